"""Pages of records from a merchant, kept to openapi/product-service.yaml.

A page that does not fit ends the pull; a record that does not fit is left out and reported, the others go on.
"""

import itertools
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

import jsonschema_rs
import orjson
import stamina

from product_gateway import spec
from product_gateway.model import (
    AddressNotAllowed,
    AnswerTooLarge,
    EntityType,
    OutboundError,
    Page,
    PullFailed,
    PullInterrupted,
    Record,
    Rejection,
    Unreachable,
)
from product_gateway.outbound import Outbound, Reply

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
_LONGEST_MESSAGE = 200
_NOT_A_TIME = "The value is not an ISO 8601 date and time."
_TIMES_IN_UTC = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z

_FAILURES: dict[type[OutboundError], tuple[type[PullFailed], str, str]] = {
    Unreachable: (
        PullInterrupted,
        "PRODUCT_SERVICE_UNREACHABLE",
        "Check that the product service runs and can be reached from the internet, then start the sync again.",
    ),
    AddressNotAllowed: (
        PullFailed,
        "ADDRESS_NOT_ALLOWED",
        "Register an https address on the public internet.",
    ),
    AnswerTooLarge: (PullFailed, "ANSWER_TOO_LARGE", "Send no more records in a page than page_size asks for."),
    OutboundError: (PullFailed, "PRODUCT_SERVICE_UNAUTHORIZED", "No request was sent."),
}


class ProductService:
    """A merchant's product service. `attempts` and the waits (seconds) are for requests that may be tried again."""

    def __init__(
        self,
        outbound: Outbound,
        url: str,
        token: str | None,
        page_size: int,
        *,
        attempts: int = 4,
        wait_initial: float = 0.2,
        wait_max: float = 10,
    ) -> None:
        self._outbound = outbound
        self._url = url.rstrip("/")
        self._token = token
        self._page_size = page_size
        self._attempts = attempts
        self._wait_initial = wait_initial
        self._wait_max = wait_max

    async def pages(self, entity_type: EntityType, cursor: str | None) -> AsyncGenerator[Page, None]:
        """Every page from `cursor` on (None: from the first), each fetched when it is asked for.

        Raises PullFailed; as PullInterrupted, after all attempts, where starting again later may help.
        """
        contract = _contract(entity_type)
        asked = {cursor}
        for number in itertools.count(1):
            where = f"Page {number} of {contract.path}"
            page = contract.page(await self._fetch(contract.path, cursor, where), where)
            cursor = page.next_cursor
            if cursor is not None and cursor in asked:
                raise PullFailed(
                    "INVALID_PAGING",
                    f"{where} has a nextCursor that this sync has already asked for, so it would never end. "
                    "Each nextCursor must lead on to records that have not been sent yet.",
                )
            yield page
            if cursor is None:
                return
            asked.add(cursor)

    async def _fetch(self, path: str, cursor: str | None, where: str) -> bytes:
        content = b""
        async for attempt in stamina.retry_context(
            self._backoff,
            attempts=self._attempts,
            timeout=None,
            wait_initial=self._wait_initial,
            wait_max=self._wait_max,
            wait_jitter=self._wait_initial,
        ):
            with attempt:
                content = await self._ask(path, cursor, where)
        return content

    def _backoff(self, error: Exception) -> bool | float:
        """Whether to try again; as a number, after how many seconds."""
        if not isinstance(error, PullInterrupted):
            return False
        return True if error.retry_after is None else min(error.retry_after, self._wait_max)

    async def _ask(self, path: str, cursor: str | None, where: str) -> bytes:
        params = {"page_size": str(self._page_size)}
        if cursor is not None:
            params["cursor"] = cursor
        try:
            reply = await self._outbound.get(self._url + path, params=params, bearer=self._token)
        except OutboundError as error:
            failure, code, advice = _FAILURES[type(error)]
            raise failure(code, f"{where} could not be read: {error.detail} {advice}") from error
        if reply.status != 200:
            raise self._refusal(reply, where)
        return reply.content

    def _refusal(self, reply: Reply, where: str) -> PullFailed:
        answered = f"the product service answered {reply.status}"
        if reply.status in (401, 403):
            return PullFailed(
                "PRODUCT_SERVICE_UNAUTHORIZED",
                f"{where} could not be read: {answered}, so it does not accept the gateway's token. "
                "Register a token that may read products and collections.",
            )
        if reply.status in (408, 429) or reply.status >= 500:
            limited = reply.status == 429
            return PullInterrupted(
                "PRODUCT_SERVICE_RATE_LIMITED" if limited else "PRODUCT_SERVICE_ERROR",
                f"{where} could not be read in {self._attempts} attempts: {answered}. "
                f"{'Allow the gateway more requests' if limited else 'Look into its log'}, "
                "then start the sync again.",
                _retry_after(reply),
            )
        if 300 <= reply.status < 400:
            advice = "; redirects are not followed. Register the address that it leads to."
        else:
            advice = " instead of 200. Check the registered address: the lists must be right beneath it."
        return PullFailed("PRODUCT_SERVICE_ERROR", f"{where} could not be read: {answered}{advice}")


def _retry_after(reply: Reply) -> float | None:
    """Seconds; the header's other form, a date, is left alone."""
    value = reply.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None


@dataclass(frozen=True, slots=True)
class _Contract:
    """What the spec says about one list, compiled."""

    path: str
    envelope: jsonschema_rs.Draft4Validator
    schema: jsonschema_rs.Draft4Validator
    record_id: jsonschema_rs.Draft4Validator
    fields: tuple[tuple[str, Callable[[Any], Any] | None], ...]
    has_members: bool

    def page(self, content: bytes, where: str) -> Page:
        """The page in an answer's body. Raises PullFailed: INVALID_PAGE, INVALID_PAGING."""
        try:
            body = orjson.loads(content)
            self.envelope.validate(body)
        except orjson.JSONDecodeError as error:
            fault = f"is not valid JSON in UTF-8: {error.msg} at character {error.pos}"
            raise PullFailed("INVALID_PAGE", f"{where} {fault}. Send what the spec describes.") from None
        except jsonschema_rs.ValidationError as error:
            fault = f"does not fit product-service.yaml at {_pointer(error) or 'its top'}: {_message(error)}"
            raise PullFailed("INVALID_PAGE", f"{where} {fault} Send what the spec describes.") from None
        items, pagination = body["items"], body["pagination"]
        next_cursor = (pagination.get("nextCursor") or None) if pagination["moreResults"] else None
        if pagination["moreResults"] and next_cursor is None:
            raise PullFailed(
                "INVALID_PAGING",
                f"{where} says that there are more results but has no nextCursor. "
                "Send the cursor of the next page, or moreResults false with the last.",
            )
        records: dict[str, Record] = {}
        rejections: list[Rejection] = []
        for item in items:
            outcome = self.record(item)
            if isinstance(outcome, Record):
                records[outcome.id] = outcome
            else:
                rejections.append(outcome)
        total = pagination.get("totalNumber")
        return Page(
            records=tuple(records.values()),
            rejections=tuple(rejections),
            next_cursor=next_cursor,
            total=total if total is not None and total > len(items) else None,
            repeated=len(items) - len(records) - len(rejections),
        )

    def record(self, item: Any) -> Record | Rejection:
        """The record as the catalog keeps it, or why it does not fit."""
        try:
            self.schema.validate(item)
        except jsonschema_rs.ValidationError as error:
            code = _REJECTION_CODES.get(error.kind.name, "INVALID_VALUE")
            return Rejection(code, self._id_of(item), _pointer(error), _message(error))
        document: dict[str, Any] = {}
        for name, convert in self.fields:
            value = item.get(name)
            if value is not None and convert is not None:
                try:
                    value = convert(value)
                except (ValueError, OverflowError):
                    return Rejection("INVALID_DATE_TIME", item["id"], f"/{name}", _NOT_A_TIME)
            if value is not None:
                document[name] = value
        product_ids: tuple[str, ...] = ()
        if self.has_members:
            product_ids = tuple(dict.fromkeys(product["id"] for product in item.get(_MEMBERS) or ()))
            document[_MEMBER_COUNT] = len(product_ids)
        try:
            text = orjson.dumps(document, option=_TIMES_IN_UTC).decode()
        except TypeError:  # more than orjson writes; `meta` is the only field that can nest
            return Rejection("INVALID_VALUE", item["id"], "/meta", "Objects and arrays are nested too deeply.")
        return Record(item["id"], text, product_ids)

    def _id_of(self, item: Any) -> str | None:
        record_id = item.get("id") if isinstance(item, dict) else None
        return record_id if self.record_id.is_valid(record_id) else None


@cache
def _contract(entity_type: EntityType) -> _Contract:
    document = spec.load(spec.PRODUCT_SERVICE)
    path, name = _LISTS[entity_type]
    page = spec.json_schema(document, f"{name}Page")
    # records are checked one by one, so that one that does not fit does not cost the page
    del page["components"]["schemas"][f"{name}Page"]["properties"]["items"]["items"]
    properties = document["components"]["schemas"][name]["properties"]
    return _Contract(
        path=path,
        envelope=_validator(page),
        schema=_validator(spec.json_schema(document, name)),
        record_id=_validator(spec.json_schema(document, "RecordId")),
        fields=tuple(
            (field, _converter(spec.resolve(document, schema)))
            for field, schema in properties.items()
            if field != _MEMBERS
        ),
        has_members=_MEMBERS in properties,
    )


def _validator(schema: spec.Document) -> jsonschema_rs.Draft4Validator:
    # masked: an error's message must not carry the merchant's data, which may be large
    return jsonschema_rs.Draft4Validator(schema, validate_formats=False, mask="The value")


def _converter(schema: spec.Document) -> Callable[[Any], Any] | None:
    if schema.get("format") == "date-time":
        return _in_utc
    return partial(_only, tuple(schema["properties"])) if "properties" in schema else None


def _in_utc(value: str) -> datetime:
    moment = datetime.fromisoformat(value.upper())  # RFC 3339 allows "t" and "z"
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _only(names: tuple[str, ...], value: dict[str, Any]) -> dict[str, Any] | None:
    return {name: value[name] for name in names if value.get(name) is not None} or None


def _pointer(error: jsonschema_rs.ValidationError) -> str:
    """JSON Pointer (RFC 6901) to the fault; of a missing field, to where it should be."""
    parts = list(error.instance_path)
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
        parts.append(error.kind.property)
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _message(error: jsonschema_rs.ValidationError) -> str:
    return error.message.replace("\n", " ")[: _LONGEST_MESSAGE - 1] + "."
