"""Pages of a product service: from raw bytes to what the catalog keeps, as openapi/product-service.yaml describes it.

An invalid page ends the pull. An invalid record is rejected, and the other records are kept. The catalog keeps the
fields that the spec names: times in UTC, null as absent, and the ids of a collection's products.

`page_decoder` decodes pages of valid records, which most pages are. This module decodes all other pages record by
record, to say what is wrong.
"""

import hashlib
import re
from collections.abc import Callable, Container, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import compress, repeat
from typing import Any

import jsonschema_rs
import orjson

from product_gateway.errors import PullFailed
from product_gateway.json_tools import faults
from product_gateway.json_tools.tolerant import NotJSON, Unusable, from_first_character, is_text, loads
from product_gateway.model.catalog import DIGEST_BYTES, AnyPage, LazyPage, Page, Record, Rejection
from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.sync import record_faults
from product_gateway.sync.known_fields import KnownFields
from product_gateway.sync.page_decoder import UNNEEDED, DecodedPage, PageDecoder, ids_as_json, whole_number
from product_gateway.sync.record_faults import Parts, Unfit
from product_gateway.telemetry import logs

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
_LEAP_SECOND = re.compile(r"(.*[T ][0-9]{2}:?[0-9]{2}:?)60([^0-9].*|)")
_END_OF_DAY = re.compile(r"(.*[T ])24((?::?00(?::?00(?:[.,]0+)?)?)?(?:[Z+-].*)?)")
_TIMES_IN_UTC = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


class ListSchema:
    """The compiled schema of one list. `path` is the list's path, `most_records` the maximum of a page."""

    def __init__(self, entity_type: EntityType) -> None:
        self.path, name = f"/{entity_type.lower()}s", entity_type.capitalize()
        document = documents.load(documents.PRODUCT_SERVICE)
        schemas = document["components"]["schemas"]
        pagination = dict(schemas["Pagination"])
        needed = {key: each for key, each in pagination["properties"].items() if key not in UNNEEDED}
        pagination["properties"] = needed
        page = documents.json_schema(document, f"{name}Page")
        page["components"]["schemas"]["Pagination"]["properties"] = needed
        # Records are validated one by one: an invalid one does not fail the page.
        del page["components"]["schemas"][f"{name}Page"]["properties"]["items"]["items"]
        properties = schemas[name]["properties"]
        self.decoder = PageDecoder(document, f"{name}Page", _MEMBERS, _MEMBER_COUNT)
        self._envelope = _validator(page)
        self._page_fields = KnownFields(document, schemas[f"{name}Page"])
        self._pagination = KnownFields(document, pagination)
        self._schema = _validator(documents.json_schema(document, name))
        self._known = KnownFields(document, schemas[name])
        self.record_id = _validator(documents.json_schema(document, "RecordId"))
        fields = {field: documents.resolve(document, each) for field, each in properties.items() if field != _MEMBERS}
        self._converters = {field: _converter(each) for field, each in fields.items()}
        self._has_members = _MEMBERS in properties
        self.most_records: int = schemas[f"{name}Page"]["properties"]["items"]["maxItems"]

    def page(self, content: bytes, where: str, max_record_bytes: int, content_type: str = "") -> Page:
        """Decode the page in a response body. Raises PullFailed: INVALID_PAGE, INVALID_PAGING."""
        content = from_first_character(content)
        raw = self.decoder.split(content, max_record_bytes)
        digests = raw.digests if raw else ()
        page = self.decoder.decode(content, max_record_bytes, digests)
        page = page or self.decode_leniently(content, where, max_record_bytes, digests, content_type)
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
            next_cursor=page.next_cursor,
            total=_total(page.total, len(page.records) + len(page.rejections)),
            repeated=len(page.records) - len(by_id),
        )

    def lazy_page(self, content: bytes, where: str, max_record_bytes: int, content_type: str = "") -> AnyPage:
        """Decode only the ids of the page, if its records have distinct valid ids; else the page. Raises PullFailed."""
        content = from_first_character(content)
        raw = self.decoder.split(content, max_record_bytes)
        ids = raw and self.decoder.ids(content)
        if not raw or not ids or len(set(ids)) < len(ids) or (raw.more_results and not raw.next_cursor):
            return self.page(content, where, max_record_bytes, content_type)
        total = _total(raw.total, len(ids))

        def decode(unchanged: Container[str]) -> Page:
            skip = [each in unchanged for each in ids]
            digests = [digest for digest, skipped in zip(raw.digests, skip, strict=True) if not skipped]
            part = raw.without(skip)
            page = self.decoder.decode(part, max_record_bytes, digests)
            page = page or self.decode_leniently(part, where, max_record_bytes, digests)
            return Page(
                tuple(page.records), tuple(page.rejections), raw.next_cursor, total, skipped=tuple(compress(ids, skip))
            )

        return LazyPage(dict(zip(ids, raw.digests, strict=True)), decode, raw.next_cursor)

    def decode_leniently(
        self, content: bytes, where: str, max_record_bytes: int, digests: Sequence[bytes] = (), content_type: str = ""
    ) -> DecodedPage:
        """Decode a page record by record, and reject invalid records. Raises PullFailed: INVALID_PAGE.

        Redacts secrets in rejected ids: a service may echo our token as an id, and clients can read it.
        """
        try:
            body, usable = loads(content)
        except (NotJSON, UnicodeDecodeError):
            raise PullFailed("INVALID_PAGE", f"{where} {faults.why(content, content_type)}") from None
        try:
            paging = self._paging(body)
        except Unfit as unfit:
            place = record_faults.pointer_to(unfit.parts) or "its top"
            looks = faults.looks(content, content_type)
            fault = f"does not fit product-service.yaml at {place}: {unfit} {looks}"
            raise PullFailed("INVALID_PAGE", f"{where} {fault} Send what the spec describes.") from None
        records: list[Record] = []
        rejections: list[Rejection] = []
        for item, digest in zip(body["items"], digests or repeat(b""), strict=False):
            try:
                records.append(self._record(item, max_record_bytes, digest, usable=usable))
            except Unfit as unfit:
                record_id = self._id_of(item)
                # Of the parsed value, not of the raw bytes: these are unknown where the page decoder cannot split.
                text = "" if record_id else faults.encodable(repr(item))
                own_digest = hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest() if text else b""
                pointer = record_faults.pointer_to(unfit.parts)
                record_id = record_id and logs.redact(record_id)
                rejections.append(Rejection(unfit.code, record_id, pointer, str(unfit), own_digest))
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
            if isinstance(pagination, dict) and pagination.get("moreResults") is False:
                pagination = {name: each for name, each in pagination.items() if name != "nextCursor"}  # it is not used
            if "pagination" in body:
                page["pagination"] = self._pagination.of(pagination, ("pagination",))
        elif isinstance(body, list):
            page = []
        elif isinstance(body, str):
            page = faults.encodable(body)
        elif isinstance(body, Unusable):
            page = 0
        _validate(self._envelope, page, self._page_fields, "The page")
        paging: dict[str, Any] = page["pagination"]
        return paging

    def _record(self, item: Any, max_bytes: int, digest: bytes, *, usable: bool) -> Record:
        """Return the record as the catalog keeps it. `usable` comes from tolerant.loads. Raises Unfit."""
        if not usable or not self._schema.is_valid(item):
            item = self._known.of(item)
            _validate(self._schema, item, self._known)
        document: dict[str, Any] = {}
        for name, convert in self._converters.items():
            value = item.get(name)
            try:
                kept = value if value is None or convert is None else convert(value)
            except (ValueError, OverflowError):
                raise record_faults.fault("INVALID_DATE_TIME", (name,), value, {}) from None
            if kept is not None:
                document[name] = kept
        product_ids: tuple[str, ...] = ()
        if self._has_members:
            product_ids = tuple(dict.fromkeys(product["id"] for product in item.get(_MEMBERS) or ()))
            document[_MEMBER_COUNT] = len(product_ids)
        text = orjson.dumps(document, option=_TIMES_IN_UTC)
        size = len(text) + len(ids_as_json(product_ids))
        if size > max_bytes:
            sizes = {name: len(orjson.dumps(value)) for name, value in (document | {_MEMBERS: product_ids}).items()}
            fault = f"What the catalog keeps of the record has {size} bytes as JSON, and {max_bytes} are the most."
            raise Unfit("TOO_LARGE", (max(sizes, key=lambda name: sizes[name]),), fault)
        return Record(item["id"], text.decode(), product_ids, digest)

    def _id_of(self, item: Any) -> str | None:
        record_id = item.get("id") if isinstance(item, dict) else None
        fits = isinstance(record_id, str) and is_text(record_id) and self.record_id.is_valid(record_id)
        return record_id if fits else None


list_schema = cache(ListSchema)  # compiled once


def _validator(schema: documents.Document) -> jsonschema_rs.Draft4Validator:
    return jsonschema_rs.Draft4Validator(schema, validate_formats=False)


def _validate(
    validator: jsonschema_rs.Draft4Validator, value: Any, known: KnownFields, top: str = "The record"
) -> None:
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        code = _REJECTION_CODES.get(error.kind.name, "INVALID_VALUE")
        parts: Parts = tuple(error.instance_path)
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
            parts = (*parts, error.kind.property)
        for part in () if code == "MISSING_FIELD" else parts:
            value = value[part]
        raise record_faults.fault(code, parts, value, known.at(parts), top) from None


def _converter(schema: documents.Document) -> Callable[[Any], Any] | None:
    if schema.get("format") == "date-time":
        return time_in_utc
    names = schema.get("properties")
    return names and (lambda value: {name: value[name] for name in names if value.get(name) is not None} or None)


def time_in_utc(value: str) -> datetime:
    """Parse a time in ISO 8601. Raises ValueError or OverflowError.

    Python's parser knows neither a leap second, 23:59:60, nor 24:00 for the end of a day. Both become 00:00:00.
    """
    text = value.upper()  # RFC 3339 allows "t" and "z"
    at_leap_second, at_end_of_day = _LEAP_SECOND.fullmatch(text), _END_OF_DAY.fullmatch(text)
    if at_leap_second:
        text = f"{at_leap_second[1]}59{at_leap_second[2]}"
    elif at_end_of_day:
        text = f"{at_end_of_day[1]}00{at_end_of_day[2]}"
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if at_leap_second:
        moment += timedelta(seconds=1)
        if (moment.hour, moment.minute) != (0, 0):  # in UTC, where leap seconds are added
            raise ValueError(value)
    return moment + timedelta(days=1) if at_end_of_day else moment


def _total(total: int | None, on_page: int) -> int | None:
    # Some merchants send the number of items on the page instead. Then the total of the list is unknown.
    return total if total is not None and on_page < total else None
