"""A trie of path templates. Static segments take precedence over parameters, in any order of the paths.

See OpenAPI 3.0.3, Paths Object, "Path Templating Matching".
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Node(Generic[T]):
    """One segment: its children, and the value of the template that ends here."""

    static: dict[str, "_Node[T]"] = field(default_factory=dict)
    wildcard: "_Node[T] | None" = None
    value: tuple[T, tuple[str, ...]] | None = None  # with the names of the template's parameters


class PathTrie(Generic[T]):
    """Values by path template."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def setdefault(self, template: str, value: T) -> T:
        """Return the value of a template, which is `value` if it had none.

        In a template, `{name}` matches any segment that is not empty.
        """
        node = self._root
        for segment in template.split("/"):
            if segment.startswith("{"):
                node.wildcard = node.wildcard or _Node()
                node = node.wildcard
            else:
                node = node.static.setdefault(segment, _Node())
        names = tuple(each[1:-1] for each in template.split("/") if each.startswith("{"))
        node.value = node.value or (value, names)
        return node.value[0]

    def find(self, path: str) -> tuple[T, dict[str, str]] | None:
        """Return the value of the template that matches the path, and the path's parameters."""
        values: list[str] = []
        found = _find(self._root, path.split("/"), 0, values)
        return None if found is None else (found[0], dict(zip(found[1], values, strict=True)))


def _find(node: _Node[T], segments: list[str], index: int, values: list[str]) -> tuple[T, tuple[str, ...]] | None:
    if index == len(segments):
        return node.value
    segment = segments[index]
    child = node.static.get(segment)
    found = None if child is None else _find(child, segments, index + 1, values)
    if found is None and node.wildcard is not None and segment:
        values.append(segment)
        found = _find(node.wildcard, segments, index + 1, values)
        if found is None:
            values.pop()
    return found
