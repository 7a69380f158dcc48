"""One limit on nesting, for every text and every version of Python."""

import json
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_gateway.json_tools.depth import MAX_DEPTH, is_deeper


def depth(value: object) -> int:
    """How deep a parsed value nests."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


texts = st.text(alphabet='[]{}"\\a\n', max_size=6)
values = st.recursive(
    st.none() | texts, lambda each: st.lists(each, max_size=3) | st.dictionaries(texts, each, max_size=3)
)


@given(values, st.integers(0, 8))
def test_the_depth_is_that_of_the_parsed_value(value: object, levels: int) -> None:
    """Brackets, quotes and backslashes within strings are text."""
    assert is_deeper(json.dumps(value).encode(), levels) == (depth(value) > levels)


@given(st.text(alphabet='[]{}"\\a,', max_size=40), st.integers(0, 3))
def test_invalid_json_within_the_limit_is_left_to_the_parser(text: str, levels: int) -> None:
    """The check runs before the parser: it answers for any text."""
    if is_deeper(text.encode(), levels):
        assert text.count("[") + text.count("{") > levels


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":', '[{"]": "\\"]",\n"b":'])
def test_the_limit_is_exact_for_every_kind_of_nesting(opening: str) -> None:
    """Arrays, objects and both in turn; a text that breaks off before its brackets close counts as well."""
    each = opening.count("[") + opening.count("{") - opening.count('"["')
    times = MAX_DEPTH // each
    fits = (opening * times).encode()
    assert not is_deeper(fits)
    assert is_deeper(fits + opening.encode())


def test_what_is_within_the_limit_can_be_written_again() -> None:
    """A record that was read is sent on by the API; orjson writes as many levels as the limit."""
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert not is_deeper(deepest)
    assert orjson.dumps(orjson.loads(deepest)) == deepest
    with pytest.raises(TypeError):
        orjson.dumps([orjson.loads(deepest)])


@pytest.mark.parametrize(
    "content", [b'"' + b'\\"' * 2_000_000, b"\\" * 4_000_000, b'["\\' * 1_000_000, b"[]" * 2_000_000, b'""' * 2_000_000]
)
def test_the_time_is_linear_in_the_length(content: bytes) -> None:
    """A hostile text of megabytes is judged in well under a second for each."""
    started = time.process_time()
    is_deeper(content)
    assert time.process_time() - started < 4
