"""From the bytes of a page to what the catalog keeps of it, by what openapi/product-service.yaml says.

A page that does not fit ends the pull. A record that does not fit is rejected, and the others go on. Of a record
that fits the catalog keeps the fields that the document names: times in UTC, null as absent, and of a
collection's products their ids alone.

`page_types` reads most pages, and this one the others: what has to be looked at piece by piece.
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

# The path of each list, and the schema of its records; the page's schema is named after it.
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
    """What the spec says about one list, compiled. `path` is where the list is."""

    path: str
    typed: PageDecoder
    envelope: jsonschema_rs.Draft4Validator
    page_fields: KnownFields
    pagination: KnownFields
    schema: jsonschema_rs.Draft4Validator
    known: KnownFields
    record_id: jsonschema_rs.Draft4Validator
    fields: tuple[str, ...]
    converted: tuple[tuple[str, Callable[[Any], Any]], ...]
    has_members: bool
    most_records: int  # in a page

    def page(self, content: bytes, where: str, max_record_bytes: int, content_type: str = "") -> Page:
        """The page in an answer's body. Raises PullFailed: INVALID_PAGE, INVALID_PAGING.

        A byte order mark at its beginning is ignored (RFC 8259 §8.1).
        """
        content = content.removeprefix(BYTE_ORDER_MARK)
        sheet = self.typed.sheet(content, max_record_bytes)
        digests = sheet.digests if sheet else ()
        page = self._found(content, where, max_record_bytes, digests, content_type)
        if page.more_results and not page.next_cursor:
            raise PullFailed(
                "INVALID_PAGING",
                f"{where} says that there are more results but has no nextCursor. "
                "Send the cursor of the next page, or moreResults false with the last.",
            )
        by_id = {each.id: each for each in page.records}  # of records with the same id, the last counts
        return Page(
            records=tuple(by_id.values()),
            rejections=tuple(page.rejections),
            next_cursor=page.next_cursor if page.more_results else None,
            total=_total(page.total, len(page.records) + len(page.rejections)),
            repeated=len(page.records) - len(by_id),
        )

    def unread_page(self, content: bytes, where: str, max_record_bytes: int, content_type: str = "") -> AnyPage:
        """The same without a look at its records, where they can be told apart without one. Raises PullFailed."""
        content = content.removeprefix(BYTE_ORDER_MARK)
        sheet = self.typed.sheet(content, max_record_bytes)
        ids = sheet and self.typed.ids(content)
        if not sheet or not ids or len(set(ids)) < len(ids) or (sheet.more_results and not sheet.next_cursor):
            return self.page(content, where, max_record_bytes, content_type)
        cursor = sheet.next_cursor if sheet.more_results else None
        total = _total(sheet.total, len(ids))

        def decode(unchanged: Container[str]) -> Page:
            skip = [each in unchanged for each in ids]
            digests = [digest for digest, skipped in zip(sheet.digests, skip, strict=True) if not skipped]
            found = DecodedPage([], [], sheet.more_results, cursor, total)
            if digests:
                found = self._found(sheet.without(skip), where, max_record_bytes, digests)
            skipped = tuple(compress(ids, skip))
            return Page(tuple(found.records), tuple(found.rejections), cursor, total, skipped=skipped)

        return LazyPage(dict(zip(ids, sheet.digests, strict=True)), decode, cursor)

    def _found(
        self, content: bytes, where: str, max_record_bytes: int, digests: Sequence[bytes], content_type: str = ""
    ) -> DecodedPage:
        found = self.typed.read(content, max_record_bytes, digests)
        return found or self.read(content, where, max_record_bytes, digests, content_type)

    def read(
        self,
        content: bytes,
        where: str,
        max_record_bytes: int,
        digests: Sequence[bytes] = (),
        content_type: str = "",
    ) -> DecodedPage:
        """What the body of an answer has, whatever of it does not fit. Raises PullFailed: INVALID_PAGE."""
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
        for item, sent in zip(body["items"], digests or repeat(b""), strict=False):
            outcome = self.record(item, max_record_bytes, sent, usable=usable)
            if isinstance(outcome, Record):
                records.append(outcome)
            else:
                rejections.append(outcome)
        total = whole_number(body["pagination"].get("totalNumber"))
        return DecodedPage(records, rejections, paging["moreResults"], paging.get("nextCursor"), total)

    def _paging(self, body: Any) -> dict[str, Any]:
        """What a page says of the list. Raises Unfit where it is no page."""
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

    def record(self, item: Any, max_bytes: int, sent: bytes = b"", *, usable: bool = True) -> Record | Rejection:
        """The record as the catalog keeps it, or why it does not fit. `usable`: as tolerant_json.loads says."""
        try:
            known = item
            if not usable or not self.schema.is_valid(item):
                known = self.known.of(item)
                _validate(self.schema, known, self.known)
        except Unfit as unfit:
            record_id = self._id_of(item)
            key = b"" if record_id else _digest(item)
            return Rejection(unfit.code, record_id, record_faults.pointer_to(unfit.parts), unfit.message, key)
        return self._kept(known, max_bytes, sent)

    def _kept(self, item: Any, max_bytes: int, sent: bytes) -> Record | Rejection:
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
        return Record(item["id"], text.decode(), product_ids, sent)

    def _id_of(self, item: Any) -> str | None:
        record_id = item.get("id") if isinstance(item, dict) else None
        fits = isinstance(record_id, str) and is_text(record_id) and self.record_id.is_valid(record_id)
        return record_id if fits else None


@cache
def contract(entity_type: EntityType) -> ListSchema:
    """The contract of the list of these records, compiled once."""
    document = documents.load(documents.PRODUCT_SERVICE)
    path, name = _LISTS[entity_type]
    page = documents.json_schema(document, f"{name}Page")
    pagination = dict(document["components"]["schemas"]["Pagination"])
    pagination["properties"] = {key: each for key, each in pagination["properties"].items() if key != "totalNumber"}
    schemas = page["components"]["schemas"]
    del schemas["Pagination"]["properties"]["totalNumber"]  # whatever it says, it is no reason to fail
    # records are checked one by one, so that one that does not fit does not cost the page
    del schemas[f"{name}Page"]["properties"]["items"]["items"]
    properties = document["components"]["schemas"][name]["properties"]
    return ListSchema(
        path=path,
        typed=PageDecoder(document, f"{name}Page", _MEMBERS, _MEMBER_COUNT),
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
    """Raises Unfit with the first fault."""
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
    return record_faults.has_control_character(parts, value)  # the only pattern of the contract


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
    """Of a record as it was read: it stands for a record without an id, whether or not its page was read by types."""
    return hashlib.blake2b(faults.encodable(repr(item)).encode(), digest_size=DIGEST_BYTES).digest()


def _total(total: int | None, on_page: int) -> int | None:
    """The total where it can be the whole: merchants read the spec in two ways, and some count wrong."""
    return total if total is not None and on_page < total else None


def _largest(document: dict[str, Any]) -> str:
    return "/" + max(document, key=lambda name: len(orjson.dumps(document[name])))


def _too_large(size: int, most: int) -> str:
    return f"What the catalog keeps of the record has {size} bytes as JSON, and {most} are the most."
