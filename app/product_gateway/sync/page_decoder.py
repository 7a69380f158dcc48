"""A fast decoder for pages of valid records, with msgspec types built from openapi/product-service.yaml.

It decodes, validates and normalizes without building dicts. It returns None for any other page, which
`records.ListSchema.decode_leniently` decodes. For pages that both can decode, both return the same.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
import orjson
from msgspec import Meta

from product_gateway.model.catalog import DIGEST_BYTES, Record, Rejection
from product_gateway.openapi import documents
from product_gateway.telemetry.version import version

# Numbers outside of these ranges are written differently by msgspec and orjson.
_PLAIN = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | Annotated[float, Meta(gt=-1e15, lt=1e15)] | str | bool | None
_DEEPEST = 4  # levels of free-form JSON
# The keywords that the types enforce. A spec with any other keyword is refused.
_KEYWORDS = {"type", "nullable", "format", "minLength", "maxLength", "pattern", "minimum", "maximum", "items"}
_KEYWORDS |= {"maxItems", "properties", "required", "additionalProperties", "description", "example"}
_LARGEST_TOTAL = 2**53 - 1  # as in the spec
UNNEEDED = ("totalNumber", "cursor")  # members of the pagination that never fail a page, with any value
_finer_than_microseconds = re.compile(rb"\.[0-9]{7}").search  # msgspec rounds such a time, and Python truncates it

_id = attrgetter("id")


class DecodedPage(NamedTuple):
    """The content of a response body."""

    records: list[Record]
    rejections: list[Rejection]
    more_results: bool
    next_cursor: str | None
    total: int | None


class RawPage(NamedTuple):
    """A response body, split into the raw bytes of each record, their digests, and the pagination."""

    parts: list[msgspec.Raw]
    digests: list[bytes]
    more_results: bool
    next_cursor: str | None
    total: int | None

    def without(self, skip: Sequence[bool]) -> bytes:
        """Return the body of a last page with the records that are not skipped."""
        kept = b",".join(part for part, skipped in zip(self.parts, skip, strict=True) if not skipped)
        return b'{"items":[%b],"pagination":{"moreResults":false}}' % kept


class PageDecoder:
    """The decoder of one list's pages. Of the field `members` it keeps the ids, and their number as `count`."""

    def __init__(self, document: documents.Document, page: str, members: str, count: str) -> None:
        types = _Types(document)
        schema = types.resolved(document["components"]["schemas"][page])["properties"]
        record, pagination = types.resolved(schema["items"]["items"]), types.resolved(schema["pagination"])
        fields = {name: types.resolved(each) for name, each in record["properties"].items()}
        self._times = [(name, attrgetter(name)) for name, each in fields.items() if each.get("format") == "date-time"]
        # An object without known fields must be left out, which types cannot do. No string contains an unescaped quote.
        self._nothing = [f'"{name}":{{}}'.encode() for name, each in fields.items() if "properties" in each]
        self._integers = [(name, attrgetter(name)) for name, each in fields.items() if each["type"] == "integer"]
        self._members = members if members in fields else None
        self._count = count.encode()
        item = types.struct(record, {name: datetime | None for name, _ in self._times})
        paging = types.struct(pagination, dict.fromkeys(UNNEEDED, msgspec.Raw))
        self._decode_page = _page(item, paging, schema["items"]["maxItems"])
        self._decode_raw = _page(msgspec.Raw, paging, schema["items"]["maxItems"])
        only_id = {"properties": {"id": record["properties"]["id"]}, "required": ["id"]}
        self._decode_ids = _page(types.struct(only_id, {}), paging, schema["items"]["maxItems"])
        self._encode = msgspec.json.Encoder().encode_lines
        # Part of each digest, so that another version or another spec makes every record be decoded again.
        self._rules = hashlib.blake2b(f"{version()} {document}".encode()).digest()

    def split(self, content: bytes, max_record_bytes: int) -> RawPage | None:
        """Split a body into its records; None if it is not a page. Equal digests mean equal bytes and equal rules."""
        try:
            content.decode()  # msgspec does not check the encoding of what it skips (RFC 8259 §8.1)
            page = self._decode_raw(content)
            total = _total(page.pagination.totalNumber)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        rules = hashlib.blake2b(b"%d" % max_record_bytes, key=self._rules, digest_size=16).digest()
        digests = [hashlib.blake2b(each, digest_size=DIGEST_BYTES, person=rules).digest() for each in page.items]
        return RawPage(page.items, digests, *_next(page.pagination), total)

    def ids(self, content: bytes) -> list[str] | None:
        """Return the ids of the page's records in order; None if a record has no valid id."""
        try:
            return list(map(_id, self._decode_ids(content).items))
        except (msgspec.DecodeError, RecursionError):
            return None

    def decode(self, content: bytes, max_record_bytes: int, digests: Sequence[bytes] = ()) -> DecodedPage | None:
        """Decode a page; return None if any of it is invalid or a record is too large. `digests` come from `split`."""
        if _finer_than_microseconds(content):
            return None
        try:
            content.decode()  # msgspec does not check the encoding of what it skips (RFC 8259 §8.1)
            page = self._decode_page(content)
            total = _total(page.pagination.totalNumber)
            self._to_utc(page.items)
            self._to_integers(page.items)
        except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
            return None
        members: list[tuple[str, ...]] = [()] * len(page.items)
        if self._members:
            members = [_pop_ids(self._members, each) for each in page.items]
        lines = self._encode(page.items)
        if any(each in lines for each in self._nothing):
            return None
        parts = lines.split(b"\n")[:-1]
        if self._members:
            counts = (b',"%b":%d}' % (self._count, len(each)) for each in members)
            parts = [each[:-1] + count for each, count in zip(parts, counts, strict=True)]
        sizes = (len(part) + len(ids_as_json(ids)) for part, ids in zip(parts, members, strict=True))
        if max(sizes, default=0) > max_record_bytes:
            return None
        documents = (each.decode() for each in parts)
        records = list(map(Record, map(_id, page.items), documents, members, digests or [b""] * len(parts)))
        return DecodedPage(records, [], *_next(page.pagination), total)

    def _to_integers(self, items: list[Any]) -> None:
        for name, of in self._integers:
            for each in items:
                if type(number := of(each)) is float:
                    setattr(each, name, int(number))

    def _to_utc(self, items: list[Any]) -> None:
        for name, of in self._times:
            for each in items:
                moment = of(each)
                if moment is not None and moment.tzinfo is not UTC:
                    setattr(each, name, moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC))


def whole_number(total: Any) -> int | None:
    """Return a total as an integer, also if it was written as 1250.0; None if it is no valid number of records."""
    if isinstance(total, float) and total.is_integer():
        total = int(total)
    return total if type(total) is int and 0 <= total <= _LARGEST_TOTAL else None


def _next(pagination: Any) -> tuple[bool, str | None]:
    """Return whether a page follows, and its cursor. The nextCursor of a last page is not used."""
    return pagination.moreResults, pagination.nextCursor if pagination.moreResults else None


def _total(literal: msgspec.Raw) -> int | None:
    try:
        return whole_number(orjson.loads(memoryview(literal)))
    except orjson.JSONDecodeError:  # a number beyond the range of a float
        return None


def _page(item: Any, pagination: type[msgspec.Struct], most: int) -> Callable[[bytes], Any]:
    items = Annotated[list[item], Meta(max_length=most)]
    return msgspec.json.Decoder(msgspec.defstruct("Page", [("items", items), ("pagination", pagination)])).decode


def ids_as_json(product_ids: tuple[str, ...]) -> bytes:
    """Return a collection's product ids as the catalog stores them; nothing if there are none."""
    return orjson.dumps(product_ids) if product_ids else b""


def _pop_ids(name: str, item: Any) -> tuple[str, ...]:
    """Return the ids of the records in the field, and empty the field."""
    found = getattr(item, name) or ()
    setattr(item, name, None)
    return tuple(dict.fromkeys(map(_id, found)))


class _Types:
    """Builds msgspec types from schemas of the document."""

    def __init__(self, document: documents.Document) -> None:
        self._document = document

    def resolved(self, node: documents.Document) -> documents.Document:
        return documents.resolve(self._document, node)

    def struct(self, schema: documents.Document, overrides: Mapping[str, Any]) -> type[msgspec.Struct]:
        """Build the type of an object. `overrides` replaces the types of some properties."""
        fields: list[Any] = []
        for name, each in schema["properties"].items():
            made = overrides.get(name) or self._of(each)
            default = msgspec.Raw(b"null") if made is msgspec.Raw else None
            fields.append((name, made) if name in schema.get("required", ()) else (name, made, default))
        return msgspec.defstruct("Object", fields, omit_defaults=True, gc=False)

    def _of(self, node: documents.Document) -> Any:
        schema = self.resolved(node)
        if unknown := schema.keys() - _KEYWORDS:
            raise NotImplementedError(f"keywords in product-service.yaml: {', '.join(sorted(unknown))}")
        made = self._not_null(schema)
        return made | None if schema.get("nullable") else made

    def _not_null(self, schema: documents.Document) -> Any:
        match schema["type"]:
            case "string":
                # In Python, $ also matches before a final line feed.
                pattern = re.sub(r"\$$", r"\\Z", schema["pattern"]) if "pattern" in schema else None
                lengths = {"min_length": schema.get("minLength"), "max_length": schema.get("maxLength")}
                return Annotated[str, Meta(pattern=pattern, **lengths)]
            case "integer":
                limits = {"ge": schema.get("minimum"), "le": schema.get("maximum")}
                # 1250.0 and 1.25e3 are integers in JSON Schema since Draft 6.
                return Annotated[int, Meta(**limits)] | Annotated[float, Meta(multiple_of=1, **limits)]
            case "boolean":
                return bool
            case "array":
                return Annotated[list[self._of(schema["items"])], Meta(max_length=schema.get("maxItems"))]  # type: ignore[misc]
            case "object" if "properties" in schema:
                return self.struct(schema, {})
            case "object":
                return dict[str, _any_json(_DEEPEST)]  # type: ignore[misc]
        raise NotImplementedError(f"the type {schema['type']} in product-service.yaml")


def _any_json(depth: int) -> Any:
    if depth == 0:
        return _PLAIN
    inner: Any = _any_json(depth - 1)
    return _PLAIN | list[inner] | dict[str, inner]
