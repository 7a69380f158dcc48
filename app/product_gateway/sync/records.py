"""Pages of a product service: from raw bytes to what the catalog keeps, as openapi/product-service.yaml describes it.

An invalid page ends the pull. An invalid record is rejected, and the other records are kept. The catalog keeps the
fields that the spec names: times in UTC, null as absent, and the ids of a collection's products.

`page_decoder` decodes pages of valid records, which most pages are. This module decodes all other pages record by
record, to say what is wrong.
"""

import hashlib
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from itertools import compress, repeat
from typing import Any

import jsonschema_rs
import orjson

from product_gateway.errors import PullFailed
from product_gateway.json_tools import faults
from product_gateway.json_tools.tolerant import BYTE_ORDER_MARK, NotJSON, Unusable, is_text, loads
from product_gateway.model.catalog import DIGEST_BYTES, AnyPage, LazyPage, Page, Record, Rejection
from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.sync import record_faults
from product_gateway.sync.known_fields import KnownFields, Unfit
from product_gateway.sync.page_decoder import DecodedPage, PageDecoder, ids_as_json, whole_number
from product_gateway.sync.record_faults import Parts

# The path of each list and the schema of its records. The page's schema is called the same with "Page".
_LISTS = {
    EntityType.PRODUCT: ("/products", "Product"),
    EntityType.COLLECTION: ("/collections", "Collection"),
}
_MEMBERS, _MEMBER_COUNT = "products", "productCount"

_REJECTION_CODES = {
    "required": "MISSING_FIELD",
    "type": "WRONG_TYPE",
    "maxLength": "TOO_LONG",
    "maxItems": "TOO_LONG",
    "minLength": "TOO_SHORT",
    "minimum": "OUT_OF_RANGE",
    "maximum": "OUT_OF_RANGE",
}
_TIMES_IN_UTC = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


@dataclass(frozen=True, slots=True)
class ListSchema:
    """The compiled schema of one list. `path` is the list's path, `most_records` the maximum of a page."""

    path: str
    decoder: PageDecoder
    envelope: jsonschema_rs.Draft4Validator
    page_fields: KnownFields
    pagination: KnownFields
    schema: jsonschema_rs.Draft4Validator
    known: KnownFields
    record_id: jsonschema_rs.Draft4Validator
    fields: tuple[str, ...]
    converted: tuple[tuple[str, Callable[[Any], Any]], ...]
    has_members: bool
    most_records: int

    def page(self, content: bytes, where: str, max_record_bytes: int, content_type: str = "") -> Page:
        """Decode the page in a response body. Raises PullFailed: INVALID_PAGE, INVALID_PAGING.

        Ignores a byte order mark at the start (RFC 8259 §8.1).
        """
        content = content.removeprefix(BYTE_ORDER_MARK)
        raw = self.decoder.split(content, max_record_bytes)
        page = self._decode(content, where, max_record_bytes, raw.digests if raw else (), content_type)
        if page.more_results and not page.next_cursor:
            raise PullFailed(
                "INVALID_PAGING",
                f"{where} says that there are more results but has no nextCursor. "
                "Send the cursor of the next page, or moreResults false with the last.",
            )
        by_id = {each.id: each for each in page.records}  # the last of several records with the same id counts
        return Page(
            records=tuple(by_id.values()),
            rejections=tuple(page.rejections),
            next_cursor=page.next_cursor if page.more_results else None,
            total=_total(page.total, len(page.records) + len(page.rejections)),
            repeated=len(page.records) - len(by_id),
        )

    def lazy_page(self, content: bytes, where: str, max_record_bytes: int, content_type: str = "") -> AnyPage:
        """Decode only the ids of the page, if its records have distinct valid ids; else the page. Raises PullFailed."""
        content = content.removeprefix(BYTE_ORDER_MARK)
        raw = self.decoder.split(content, max_record_bytes)
        ids = raw and self.decoder.ids(content)
        if not raw or not ids or len(set(ids)) < len(ids) or (raw.more_results and not raw.next_cursor):
            return self.page(content, where, max_record_bytes, content_type)
        cursor = raw.next_cursor if raw.more_results else None
        total = _total(raw.total, len(ids))

        def decode(unchanged: Container[str]) -> Page:
            skip = [each in unchanged for each in ids]
            digests = [digest for digest, skipped in zip(raw.digests, skip, strict=True) if not skipped]
            page = DecodedPage([], [], raw.more_results, cursor, total)
            if digests:
                page = self._decode(raw.without(skip), where, max_record_bytes, digests)
            return Page(tuple(page.records), tuple(page.rejections), cursor, total, skipped=tuple(compress(ids, skip)))

        return LazyPage(dict(zip(ids, raw.digests, strict=True)), decode, cursor)

    def _decode(
        self, content: bytes, where: str, max_record_bytes: int, digests: Sequence[bytes], content_type: str = ""
    ) -> DecodedPage:
        page = self.decoder.decode(content, max_record_bytes, digests)
        return page or self.decode_leniently(content, where, max_record_bytes, digests, content_type)

    def decode_leniently(
        self,
        content: bytes,
        where: str,
        max_record_bytes: int,
        digests: Sequence[bytes] = (),
        content_type: str = "",
    ) -> DecodedPage:
        """Decode a page record by record, and reject invalid records. Raises PullFailed: INVALID_PAGE."""
        try:
            body, usable = loads(content)
        except (NotJSON, UnicodeDecodeError):
            raise PullFailed("INVALID_PAGE", f"{where} {faults.why(content, content_type)}") from None
        try:
            paging = self._paging(body)
        except Unfit as unfit:
            place = record_faults.pointer_to(unfit.parts) or "its top"
            looks = faults.looks(content, content_type)
            fault = f"does not fit product-service.yaml at {place}: {unfit.message} {looks}"
            raise PullFailed("INVALID_PAGE", f"{where} {fault} Send what the spec describes.") from None
        records: list[Record] = []
        rejections: list[Rejection] = []
        for item, digest in zip(body["items"], digests or repeat(b""), strict=False):
            outcome = self.record(item, max_record_bytes, digest, usable=usable)
            if isinstance(outcome, Record):
                records.append(outcome)
            else:
                rejections.append(outcome)
        total = whole_number(body["pagination"].get("totalNumber"))
        return DecodedPage(records, rejections, paging["moreResults"], paging.get("nextCursor"), total)

    def _paging(self, body: Any) -> dict[str, Any]:
        """Validate the page without its records, and return its pagination. Raises Unfit."""
        page: Any = body
        if isinstance(body, dict):
            items, pagination = body.get("items"), body.get("pagination")
            page = {name: body[name] for name in ("items", "pagination") if name in body}
            if isinstance(items, list | dict):
                page["items"] = [None] * len(items) if isinstance(items, list) else {}
            if "pagination" in body:
                page["pagination"] = self.pagination.of(pagination, ("pagination",))
        elif isinstance(body, list):
            page = []
        elif isinstance(body, str):
            page = faults.encodable(body)
        elif isinstance(body, Unusable):
            page = 0
        _validate(self.envelope, page, self.page_fields, "The page")
        paging: dict[str, Any] = page["pagination"]
        return paging

    def record(self, item: Any, max_bytes: int, digest: bytes = b"", *, usable: bool = True) -> Record | Rejection:
        """Return the record as the catalog keeps it, or its rejection. `usable` comes from tolerant.loads."""
        try:
            known = item
            if not usable or not self.schema.is_valid(item):
                known = self.known.of(item)
                _validate(self.schema, known, self.known)
        except Unfit as unfit:
            record_id = self._id_of(item)
            own_digest = b"" if record_id else _digest(item)
            return Rejection(unfit.code, record_id, record_faults.pointer_to(unfit.parts), unfit.message, own_digest)
        return self._normalize(known, max_bytes, digest)

    def _normalize(self, item: Any, max_bytes: int, digest: bytes) -> Record | Rejection:
        document: dict[str, Any] = {name: value for name in self.fields if (value := item.get(name)) is not None}
        name = ""
        try:
            for name, convert in self.converted:
                if name not in document:
                    continue
                value = convert(document[name])
                if value is None:
                    del document[name]
                else:
                    document[name] = value
        except (ValueError, OverflowError):
            fault = record_faults.not_a_time((name,), item[name])
            return Rejection("INVALID_DATE_TIME", item["id"], f"/{name}", fault)
        product_ids: tuple[str, ...] = ()
        if self.has_members:
            product_ids = tuple(dict.fromkeys(product["id"] for product in item.get(_MEMBERS) or ()))
            document[_MEMBER_COUNT] = len(product_ids)
        text = orjson.dumps(document, option=_TIMES_IN_UTC)
        size = len(text) + len(ids_as_json(product_ids))
        if size > max_bytes:
            pointer = _largest(document | {_MEMBERS: product_ids})
            return Rejection("TOO_LARGE", item["id"], pointer, _too_large(size, max_bytes))
        return Record(item["id"], text.decode(), product_ids, digest)

    def _id_of(self, item: Any) -> str | None:
        record_id = item.get("id") if isinstance(item, dict) else None
        fits = isinstance(record_id, str) and is_text(record_id) and self.record_id.is_valid(record_id)
        return record_id if fits else None


@cache
def list_schema(entity_type: EntityType) -> ListSchema:
    """Return the schema of the list of these records, compiled once."""
    document = documents.load(documents.PRODUCT_SERVICE)
    path, name = _LISTS[entity_type]
    page = documents.json_schema(document, f"{name}Page")
    pagination = dict(document["components"]["schemas"]["Pagination"])
    pagination["properties"] = {key: each for key, each in pagination["properties"].items() if key != "totalNumber"}
    schemas = page["components"]["schemas"]
    del schemas["Pagination"]["properties"]["totalNumber"]  # an invalid total never fails a page
    # Records are validated one by one, so that an invalid one does not fail the page.
    del schemas[f"{name}Page"]["properties"]["items"]["items"]
    properties = document["components"]["schemas"][name]["properties"]
    return ListSchema(
        path=path,
        decoder=PageDecoder(document, f"{name}Page", _MEMBERS, _MEMBER_COUNT),
        envelope=_validator(page),
        page_fields=KnownFields(document, document["components"]["schemas"][f"{name}Page"]),
        pagination=KnownFields(document, pagination),
        schema=_validator(documents.json_schema(document, name)),
        known=KnownFields(document, document["components"]["schemas"][name]),
        record_id=_validator(documents.json_schema(document, "RecordId")),
        fields=tuple(field for field in properties if field != _MEMBERS),
        converted=tuple(
            (field, convert)
            for field, schema in properties.items()
            if field != _MEMBERS and (convert := _converter(documents.resolve(document, schema)))
        ),
        has_members=_MEMBERS in properties,
        most_records=document["components"]["schemas"][f"{name}Page"]["properties"]["items"]["maxItems"],
    )


def _validator(schema: documents.Document) -> jsonschema_rs.Draft4Validator:
    return jsonschema_rs.Draft4Validator(schema, validate_formats=False)


def _validate(
    validator: jsonschema_rs.Draft4Validator, value: Any, known: KnownFields, top: str = "The record"
) -> None:
    """Raise Unfit with the first fault."""
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        code = _REJECTION_CODES.get(error.kind.name, "INVALID_VALUE")
        parts: Parts = tuple(error.instance_path)
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
            parts = (*parts, error.kind.property)
        raise Unfit(code, parts, _words(code, parts, value, known, top)) from None


def _words(code: str, parts: Parts, value: Any, known: KnownFields, top: str) -> str:
    schema = known.at(parts)
    if code == "MISSING_FIELD":
        return record_faults.missing(parts, schema)
    for part in parts:
        value = value[part]
    match code:
        case "WRONG_TYPE":
            return record_faults.wrong_type(parts, value, schema, top)
        case "OUT_OF_RANGE":
            return record_faults.out_of_range(parts, value, schema)
        case "TOO_LONG":
            return record_faults.too_long(parts, value, schema)
        case "TOO_SHORT":
            return record_faults.too_short(parts)
    return record_faults.has_control_character(parts, value)  # the spec has no other pattern


def _converter(schema: documents.Document) -> Callable[[Any], Any] | None:
    if schema.get("format") == "date-time":
        return _in_utc
    return partial(_only, tuple(schema["properties"])) if "properties" in schema else None


def _in_utc(value: str) -> datetime:
    moment = datetime.fromisoformat(value.upper())  # RFC 3339 allows "t" and "z"
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _only(names: tuple[str, ...], value: dict[str, Any]) -> dict[str, Any] | None:
    return {name: value[name] for name in names if value.get(name) is not None} or None


def _digest(item: Any) -> bytes:
    # Of the parsed value, not of the raw bytes: these are unknown for pages that the page decoder cannot split.
    return hashlib.blake2b(faults.encodable(repr(item)).encode(), digest_size=DIGEST_BYTES).digest()


def _total(total: int | None, on_page: int) -> int | None:
    # Some merchants send the number of items on the page instead. Then the total of the list is unknown.
    return total if total is not None and on_page < total else None


def _largest(document: dict[str, Any]) -> str:
    return "/" + max(document, key=lambda name: len(orjson.dumps(document[name])))


def _too_large(size: int, most: int) -> str:
    return f"What the catalog keeps of the record has {size} bytes as JSON, and {most} are the most."
