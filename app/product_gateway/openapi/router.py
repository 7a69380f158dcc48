"""Which operations a path has: by its segments, those that are written out before those that stand for a parameter.

That is what OpenAPI 3.0.3 has (Paths Object, path templating matching), whatever the order of the paths in the spec.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Node(Generic[T]):
    """Behind so many segments: where each next one leads, and what is here."""

    static: dict[str, "_Node[T]"] = field(default_factory=dict)
    wildcard: "_Node[T] | None" = None
    found: tuple[T, tuple[str, ...]] | None = None  # and the names of the parameters on the way here


class PathTrie(Generic[T]):
    """What was put at each path template."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def at(self, template: str) -> T | None:
        """What is at exactly this template."""
        place = self._place(template)
        return None if place.found is None else place.found[0]

    def put(self, template: str, what: T) -> None:
        """`{name}` stands for any segment that is not empty."""
        names = tuple(each[1:-1] for each in template.split("/") if each.startswith("{"))
        self._place(template).found = (what, names)

    def find(self, path: str) -> tuple[T, dict[str, str]] | None:
        """What is at the path, and its parameters."""
        values: list[str] = []
        found = _find(self._root, path.split("/"), 0, values)
        return None if found is None else (found[0], dict(zip(found[1], values, strict=True)))

    def _place(self, template: str) -> _Node[T]:
        place = self._root
        for segment in template.split("/"):
            if segment.startswith("{"):
                place.wildcard = place.wildcard or _Node()
                place = place.wildcard
            else:
                place = place.static.setdefault(segment, _Node())
        return place


def _find(place: _Node[T], segments: list[str], at: int, values: list[str]) -> tuple[T, tuple[str, ...]] | None:
    if at == len(segments):
        return place.found
    segment = segments[at]
    following = place.static.get(segment)
    found = None if following is None else _find(following, segments, at + 1, values)
    if found is None and place.wildcard is not None and segment:
        values.append(segment)
        found = _find(place.wildcard, segments, at + 1, values)
        if found is None:
            values.pop()
    return found
