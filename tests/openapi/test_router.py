"""paths: the operations of a path are found by its segments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import compile_path

from product_gateway.openapi.router import PathTrie

TEMPLATES = ("/", "/docs", "/docs/try", "/docs/{name}", "/{any}/try", "/a/{x}/c", "/a/b/{y}", "/{x}/{y}/{z}", "/a/{x}/")

FOUND = {
    "/": ("/", {}),
    "/docs/try": ("/docs/try", {}),
    "/docs/tries": ("/docs/{name}", {"name": "tries"}),
    "/other/try": ("/{any}/try", {"any": "other"}),
    "/a/b/c": ("/a/b/{y}", {"y": "c"}),
    "/a/q/c": ("/a/{x}/c", {"x": "q"}),
    "/a/q/d": ("/{x}/{y}/{z}", {"x": "a", "y": "q", "z": "d"}),
    "/docs/try/x": ("/{x}/{y}/{z}", {"x": "docs", "y": "try", "z": "x"}),
    "/a/q/": ("/a/{x}/", {"x": "q"}),
}
NOT_FOUND = ("", "//", "/docs/", "docs", "/nothing", "/a/b/c/d", "/{name}", "//try")


def paths() -> PathTrie[str]:
    """Each template at itself."""
    made: PathTrie[str] = PathTrie()
    for each in TEMPLATES:
        made.put(each, each)
    return made


@pytest.mark.parametrize(("path", "found"), FOUND.items())
def test_what_is_written_out_comes_before_what_stands_for_anything(path: str, found: tuple[str, object]) -> None:
    """Also where that leads nowhere, and the parameter would have: then it is found after all."""
    assert paths().find(path) == found


@pytest.mark.parametrize("path", NOT_FOUND)
def test_no_other_path_has_operations(path: str) -> None:
    """No parameter is empty, and a slash too many is another path."""
    assert paths().find(path) is None


def test_what_is_at_a_template_is_found_there() -> None:
    """So that each method of a path goes to the same place."""
    assert paths().get("/docs/{name}") == "/docs/{name}"
    assert paths().get("/nothing") is None


@given(st.lists(st.sampled_from(["a", "b", "c", "docs", "try", "x y", ""]), min_size=1, max_size=4))
def test_a_path_is_found_if_and_only_if_starlette_would(segments: list[str]) -> None:
    """With the parameters that its expression of the same template has."""
    path = "/" + "/".join(segments)
    matches = {each: compile_path(each)[0].match(path) for each in TEMPLATES}
    found = paths().find(path)
    assert (found is None) == (not any(matches.values()))
    if found is not None:
        match = matches[found[0]]
        assert match is not None
        assert match.groupdict() == found[1]
