"""Parsing and validation of parameters, over real HTTP."""

from collections.abc import Iterator

import pytest

from tests.support import sample_api
from tests.support.sample_api import ask
from tests.support.serving import serve

ID = "01a20a4b-f514-708c-8b35-b67ebc5d86e0"


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with serve(sample_api.app()) as url:
        yield url


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("", "size", "10"),
        ("size=0", "size", "0"),
        ("size=-7", "size", "-7"),
        ("size=100000000000000000", "size", "100000000000000000"),
        ("size=%31%30%30", "size", "100"),
        ("ratio=1", "ratio", "1.0"),
        ("ratio=-0.5", "ratio", "-0.5"),
        ("ratio=1e2", "ratio", "100.0"),
        ("ratio=2.5E-1", "ratio", "0.25"),
        ("flag=true", "flag", "True"),
        ("flag=false", "flag", "False"),
        ("colour=RED", "colour", "<Colour.RED: 'RED'>"),
        ("ids=1", "ids", "[1]"),
        ("ids=3,2,3", "ids", "[3, 2, 3]"),
        ("ids=3%2C2", "ids", "[3, 2]"),
        (f"ref={ID}", "ref", f"UUID('{ID}')"),
        (f"ref={ID.upper()}", "ref", f"UUID('{ID}')"),
        ("text=", "text", "''"),
        ("text", "text", "''"),
        ("text=a+b%20c", "text", "'a b c'"),
        ("text=a%2Bb%26c%3Dd%3Be;f", "text", "'a+b&c=d;e;f'"),
        ("text=%C3%B6%F0%9F%8D%B5", "text", "'ö\N{TEACUP WITHOUT HANDLE}'"),
        ("text=100%&&", "text", "'100%'"),
        ("text=%252F", "text", "'%2F'"),
        ("%74ext=x", "text", "'x'"),
    ],
)
def test_query_parameters_have_the_types_of_the_spec(base: str, query: str, name: str, value: str) -> None:
    """They are percent-decoded once."""
    answer = ask(base, f"/search?{query}")
    assert answer.status == 200, answer.content
    assert answer.body[name] == value


def test_absent_parameters_are_none_or_their_default(base: str) -> None:
    """A handler need not know which ones the client sent."""
    assert ask(base, "/search").body == ask(base, "/search?").body == {"size": "10"}


NO_INTEGERS = ["", "1_0", "%2B5", "+5", "%205", "5%20", "%D9%A5", "1e2", "1.0", "0x10", "007", "--1", "-", "five"]
NO_INTEGERS += ["true", "5%00", "5%0A", "%EF%BC%95", "9" * 19, "9" * 30, "9" * 5000, "5,6", "Infinity"]


@pytest.mark.parametrize("text", NO_INTEGERS)
def test_integers_are_written_in_one_way_only(base: str, text: str) -> None:
    """Python's int() accepts more forms, and fails with a 500 at 5,000 digits."""
    answer = ask(base, f"/search?size={text}")
    assert answer.status == 400
    assert answer.detail.startswith("Query parameter size: ")
    assert answer.detail.endswith(" is not an integer of at most 18 digits.")
    assert len(answer.detail) < 300


@pytest.mark.parametrize(
    "text", ["", "1_0.0", "%2B1", "%201", "nan", "inf", "-Infinity", "1e999", "1,5", ".5", "5.", "%D9%A5"]
)
def test_numbers_are_written_as_in_json(base: str, text: str) -> None:
    """RFC 8259 §6: finite, no separators, ASCII digits."""
    assert ask(base, f"/search?ratio={text}").detail.endswith("is not a number.")


REFUSED = [
    ("flag=True", "is neither true nor false"),
    ("flag=1", "is neither true nor false"),
    ("flag=", "is neither true nor false"),
    ("colour=red", "'red' should be 'RED' or 'BLUE'."),
    ("colour=", "'' should be 'RED' or 'BLUE'."),
    ("ids=1,,2", "'' is not an integer"),
    ("ids=1,x", "'x' is not an integer"),
    ("ids=1,2,3,4", "should have at most 3 items"),
    ("size=100000000000000001", "should be less than or equal to 100000000000000000."),
    ("text=" + "x" * 21, "should have at most 20 characters."),
    ("text=a&text=b", "The query parameter text is given more than once"),
    ("size=5&size=5", "The query parameter size is given more than once"),
    ("Size=5", "There is no query parameter 'Size' here; known: size, ratio, flag, colour, ids, ref, text"),
    ("=5", "There is no query parameter '' here"),
    ("size[]=5", "There is no query parameter 'size[]' here"),
    ("thing_id=5", "There is no query parameter 'thing_id' here"),
    ("x_trace=5", "There is no query parameter 'x_trace' here"),
    ("text=%FF", "The query is not percent-encoded UTF-8"),
    ("text=%ED%A0%80", "The query is not percent-encoded UTF-8"),
    ("text=%C3", "The query is not percent-encoded UTF-8"),
    ("%FF=1", "The query is not percent-encoded UTF-8"),
    ("&".join(f"a{n}=1" for n in range(101)), "The query has more than 100 parameters"),
    ("&" * 101, "The query has more than 100 parameters"),
    *((f"ref={text}", "is not a UUID.") for text in ("", "x", ID[:-1], ID + "0", ID.replace("-", ""), f"%7B{ID}%7D")),
]


@pytest.mark.parametrize(("query", "reason"), REFUSED)
def test_an_invalid_query_is_refused_with_the_reason(base: str, query: str, reason: str) -> None:
    """In one line, without the validator's internal text."""
    answer = ask(base, f"/search?{query}")
    assert answer.status == 400
    assert reason in answer.detail
    assert "\n" not in answer.detail


def test_a_refusal_repeats_only_the_start_of_a_long_value(base: str) -> None:
    """An error must not reflect large inputs."""
    for query in ("text=" + "x" * 5000, "y" * 5000 + "=1", "colour=" + "z" * 5000, "size=" + "q" * 5000):
        assert len(ask(base, f"/search?{query}").detail) < 400


def test_headers_are_parameters_too(base: str) -> None:
    """Header names are case-insensitive; unknown headers are ignored."""
    assert ask(base, "/search", headers={"x-TRACE": "abc", "Unheard-Of": "1"}).body == {
        "size": "10",
        "x_trace": "'abc'",
    }
    assert ask(base, "/search", headers={"X-Trace": "ABC"}).detail.startswith("Header X-Trace: ")


@pytest.mark.parametrize(
    ("target", "headers", "reason"),
    [
        ("/must", {"Key": "k"}, "Query parameter page-size is missing."),
        ("/must?page-size=5", {}, "Header Key is missing."),
        ("/must?page_size=5", {"Key": "k"}, "There is no query parameter 'page_size' here; known: page-size."),
    ],
)
def test_a_missing_required_parameter_is_named(base: str, target: str, headers: dict[str, str], reason: str) -> None:
    """By its name in the spec."""
    assert ask(base, "/must?page-size=5", headers={"Key": "k"}).body == {"page_size": "5", "key": "'k'"}
    answer = ask(base, target, headers=headers)
    assert (answer.status, answer.detail) == (400, reason)


@pytest.mark.parametrize(
    ("target", "thing"),
    [
        ("/things/a%2Fb", "a/b"),
        ("/things/%2F", "/"),
        ("/things/a%2fb%2Fc", "a/b/c"),
        ("/things/..%2F..%2Fetc", "../../etc"),
        ("/things/%252F", "%2F"),
        ("/things/%25252F", "%252F"),
        ("/things/%25%2F%25", "%/%"),
        ("/things/100%", "100%"),
        ("/things/%zz", "%zz"),
        ("/things/a+b", "a+b"),
        ("/things/a%20b", "a b"),
        ("/things/%C3%B6", "ö"),
        ("/things/a;b=c,d@e:f!$&'()*", "a;b=c,d@e:f!$&'()*"),
        ("/things/%3Fa%23b", "?a#b"),
        ("/things/{thingId}", "{thingId}"),
        ("/%74hings/x", "x"),
        ("/t%68ing%73/%78", "x"),
    ],
)
def test_an_id_may_contain_any_encoded_character(base: str, target: str, thing: str) -> None:
    """RFC 3986 §2.2: an encoded slash is data. Paths are decoded once."""
    assert ask(base, target).body == {"thing_id": repr(thing)}


def test_an_encoded_slash_does_not_reach_another_operation(base: str) -> None:
    """Otherwise a proxy that checks paths and the gateway would see two different paths."""
    assert ask(base, "/things/a%2Fpart%2F3").body == {"thing_id": "'a/part/3'"}
    assert ask(base, f"/things/a%2Fb/part/{ID}").body == {"thing_id": "'a/b'", "part": f"UUID('{ID}')"}
    assert ask(base, "/things%2Fa").status == 404


@pytest.mark.parametrize("target", ["/things/%FF", "/things/%C3", "/things/%ED%A0%80", "/%FF/x", "/nothing/%FF"])
def test_a_path_that_is_not_utf_8_is_400(base: str, target: str) -> None:
    answer = ask(base, target)
    assert (answer.status, answer.detail) == (400, "The path is not percent-encoded UTF-8.")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/things/" + "x" * 51, "Path parameter thingId: "),
        ("/things/a/part/x", "Path parameter part: 'x' is not a UUID."),
        ("/things/a?x=1", "There is no query parameter 'x' here; known: none."),
    ],
)
def test_an_invalid_path_parameter_is_400(base: str, target: str, reason: str) -> None:
    """Not 404: the path exists."""
    answer = ask(base, target)
    assert answer.status == 400
    assert answer.detail.startswith(reason)
