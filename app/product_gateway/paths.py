"""Which operations a path has: by its segments, those that are written out before those that stand for a parameter.

That is what OpenAPI 3.0.3 has (Paths Object, path templating matching), whatever the order of the paths in the spec.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Place(Generic[T]):
    """Behind so many segments: where each next one leads, and what is here."""

    written_out: dict[str, "_Place[T]"] = field(default_factory=dict)
    any_segment: "_Place[T] | None" = None
    found: tuple[T, tuple[str, ...]] | None = None  # and the names of the parameters on the way here


class Paths(Generic[T]):
    """What was put at each path template."""

    def __init__(self) -> None:
        self._root: _Place[T] = _Place()

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

    def _place(self, template: str) -> _Place[T]:
        place = self._root
        for segment in template.split("/"):
            if segment.startswith("{"):
                place.any_segment = place.any_segment or _Place()
                place = place.any_segment
            else:
                place = place.written_out.setdefault(segment, _Place())
        return place


def _find(place: _Place[T], segments: list[str], at: int, values: list[str]) -> tuple[T, tuple[str, ...]] | None:
    if at == len(segments):
        return place.found
    segment = segments[at]
    following = place.written_out.get(segment)
    found = None if following is None else _find(following, segments, at + 1, values)
    if found is None and place.any_segment is not None and segment:
        values.append(segment)
        found = _find(place.any_segment, segments, at + 1, values)
        if found is None:
            values.pop()
    return found
