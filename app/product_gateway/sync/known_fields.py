"""Extraction of a record's known fields, so that unknown fields cannot make it invalid."""

from collections.abc import Iterator
from typing import Any

from product_gateway.json_tools.tolerant import MAX_RECORD_DEPTH, Unusable, is_text
from product_gateway.openapi import documents
from product_gateway.sync import record_faults
from product_gateway.sync.record_faults import Parts


class KnownFields:
    """The known fields of one schema, with the fields of its members."""

    def __init__(self, document: documents.Document, schema: documents.Document) -> None:
        self.schema = documents.resolve(document, schema)
        properties = self.schema.get("properties", {})
        self._fields = {name: KnownFields(document, each) for name, each in properties.items()}
        self._item = KnownFields(document, self.schema["items"]) if self.schema["type"] == "array" else None

    def at(self, parts: Parts) -> documents.Document:
        """Return the schema of the value at a place."""
        if not parts:
            return self.schema
        inner = self._item if isinstance(parts[0], int) else self._fields[parts[0]]
        if inner is None:
            raise KeyError(parts[0])
        return inner.at(parts[1:])

    def of(self, value: Any, parts: Parts = ()) -> Any:
        """Return the value without unknown members, and with integers for 1250.0 or 1.25e3.

        Leaves a value of a wrong type to the validation, without its members. Raises Unfit.
        """
        kind = self.schema["type"]
        if isinstance(value, dict):
            if kind == "object" and not self._fields:
                _check_all(value, parts)
                return value
            return {name: each.of(value[name], (*parts, name)) for name, each in self._fields.items() if name in value}
        if isinstance(value, list):
            return [] if self._item is None else [self._item.of(each, (*parts, n)) for n, each in enumerate(value)]
        if isinstance(value, Unusable) and kind != "integer":
            raise record_faults.fault("WRONG_TYPE", parts, value, self.schema)
        _check(value, parts, self.schema)
        return int(value) if kind == "integer" and isinstance(value, float) and value.is_integer() else value


def _check(value: Any, parts: Parts, schema: documents.Document) -> None:
    if isinstance(value, str) and not is_text(value):
        raise record_faults.has_surrogate(parts, value)
    if isinstance(value, Unusable):
        raise record_faults.fault("OUT_OF_RANGE", parts, value, schema)


def _check_all(value: Any, parts: Parts) -> None:
    # Without recursion: the value may nest deeper than Python's stack.
    path = list(parts)
    open_members = [_members(value)]
    while open_members:
        for name, each in open_members[-1]:
            here = (*path, name)
            if isinstance(name, str) and not is_text(name):
                raise record_faults.has_surrogate(here, name, as_name=True)
            if isinstance(each, dict | list):
                if len(here) >= MAX_RECORD_DEPTH:
                    raise record_faults.too_deep(parts, MAX_RECORD_DEPTH)
                path.append(name)
                open_members.append(_members(each))
                break
            if isinstance(each, str | Unusable):
                _check(each, here, {})
        else:
            open_members.pop()
            if open_members:
                path.pop()


def _members(value: dict[str, Any] | list[Any]) -> Iterator[tuple[str | int, Any]]:
    return iter(value.items()) if isinstance(value, dict) else iter(enumerate(value))
