"""The trie of path templates."""

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
    """Return a trie in which the value of each template is the template itself."""
    made: PathTrie[str] = PathTrie()
    for each in TEMPLATES:
        made.setdefault(each, each)
    return made


@pytest.mark.parametrize(("path", "found"), FOUND.items())
def test_static_segments_take_precedence_over_parameters(path: str, found: tuple[str, object]) -> None:
    """Also with backtracking, where the static branch has no match."""
    assert paths().find(path) == found


@pytest.mark.parametrize("path", NOT_FOUND)
def test_other_paths_are_not_found(path: str) -> None:
    """A parameter is never empty, and a trailing slash makes another path."""
    assert paths().find(path) is None


def test_a_template_keeps_its_first_value() -> None:
    """All methods of a path share one value."""
    made = paths()
    assert made.setdefault("/docs/{name}", "other") == "/docs/{name}"
    assert made.setdefault("/nothing", "other") == "other"


@given(st.lists(st.sampled_from(["a", "b", "c", "docs", "try", "x y", ""]), min_size=1, max_size=4))
def test_a_path_is_found_if_and_only_if_starlette_would(segments: list[str]) -> None:
    """With the same parameters as Starlette's regular expression of the template."""
    path = "/" + "/".join(segments)
    matches = {each: compile_path(each)[0].match(path) for each in TEMPLATES}
    found = paths().find(path)
    assert (found is None) == (not any(matches.values()))
    if found is not None:
        match = matches[found[0]]
        assert match is not None
        assert match.groupdict() == found[1]
