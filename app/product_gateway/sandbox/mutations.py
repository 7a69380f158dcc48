"""The mutations of `sandbox --tolerance`: each changes real responses in one way that the spec allows.

VALUES and HEADERS are tables. Mutations of other kinds are functions; a function's docstring is the description.
"""

import re
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import orjson

from product_gateway.sandbox.mutation import LISTS, Exchange, Kind, Message, Mutation

Object = dict[str, Any]

LARGEST = 2**53 - 1  # the spec's `maximum` of counts and prices
LARGEST_ATTEMPT, LARGEST_GENERATION, LARGEST_PRODUCT_COUNT = 2**31 - 1, 2**48 - 1, 100_000
LONGEST_CODE, LONGEST_CURSOR, LONGEST_ETAG, LONGEST_REQUEST_ID = 64, 1400, 64, 128
LONGEST_TEXT, LONGEST_MESSAGE, LONG_DESCRIPTION = 8192, 1024, 100_000
LONGEST_RETRY_AFTER, SHORTEST_WAIT = b"3600", "1"
FEWER_RECORDS = 7
CHUNK_BYTES = 500

UNKNOWN = "ADDED_LATER"

PRODUCTS = ("Product", "ChangedProduct")
RECORDS = (*PRODUCTS, "CollectionSummary", "Collection", "ChangedCollection")
SYNCS = ("Sync", "SyncProgress", "SyncResult", "SyncFailure", "SyncWarning")
PROBLEMS = ("SyncProblemGroup", "SyncProblemSample")
DATA = (
    *SYNCS,
    *PROBLEMS,
    *RECORDS,
    "EntitySyncStatus",
    "Thumbnail",
    "Change",
    "CatalogStaleEventData",
    "TestEventData",
)
METAS = ("Meta", "SyncListMeta", "CatalogMeta", "ChangeMeta", "SyncStatusMeta")
RESPONSES = (
    "SyncResponse", "SyncListResponse", "SyncStatusResponse", "SyncProblemsResponse", "ProductListResponse",
    "ProductResponse", "CollectionListResponse", "CollectionResponse", "ChangeListResponse", "SyncChangeListResponse",
    "ErrorResponse",
)  # fmt: skip
ADDED: Object = {"addedLater": {"since": "1.99.0", "values": [1, None, {"deep": True}]}}


def members(name: str, *schemas: str) -> tuple[str, ...]:
    """Return `Schema.name` of each schema."""
    return tuple(f"{each}.{name}" for each in schemas)


Change = Callable[[Any], Any]


def always(value: Any) -> Change:
    """Return a change to this value."""
    return lambda _: value


def plus(**more: Any) -> Change:
    """Return a change that adds or replaces members of an object."""
    return lambda node: {**node, **more}


def without(*names: str) -> Change:
    """Return a change that removes members of an object."""
    return lambda node: {name: value for name, value in node.items() if name not in names}


def padded(length: int, character: str = ".") -> Change:
    """Return a change that makes a text this long."""
    return lambda text: text.ljust(length, character)


def followed_by(more: str) -> Change:
    """Return a change that appends to a text of at most LONGEST_TEXT characters."""
    return lambda text: text[: LONGEST_TEXT - len(more)] + more


def _with_warning(sync: Object) -> Object:
    if sync["status"] != "SUCCEEDED":
        return sync
    return {**sync, "warnings": [*sync.get("warnings", []), {"code": UNKNOWN, "detail": "A later version."}]}


def _with_second_error(body: Object) -> Object:
    first, *others = body["error"]
    return {**body, "error": [first, *others, {**first, "detail": "There is more to say."}]}


def _with_description(record: Object) -> Object:
    """Describe a quarter of the records. More would exceed what a page may have."""
    is_chosen = zlib.crc32(record["id"].encode()) % 4 == 0
    return {**record, "description": "a long text ".ljust(LONG_DESCRIPTION, ".")} if is_chosen else record


def _with_largest_counts(node: Object) -> Object:
    return {name: LARGEST if isinstance(value, int) and name != "percent" else value for name, value in node.items()}


def _with_nine_digits(time: str) -> str:
    whole, _, fraction = time.removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z"


def _with_offset(time: str) -> str:
    return datetime.fromisoformat(time).astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()


TITLES = members("title", *RECORDS)
VALUES: tuple[tuple[str, str, tuple[str, ...], Change], ...] = (
    # Members
    ("additional-members-of-data", "Every object of `data` has an unknown member.", DATA, plus(**ADDED)),
    ("additional-members-of-meta", "`meta` has an unknown member.", METAS, plus(**ADDED)),
    ("additional-members-of-errors", "Each error has an unknown member.", ("Error",), plus(**ADDED)),
    (
        "additional-members-beside-data",
        "The body has an unknown member beside `data` and `meta`, or `error`.",
        RESPONSES,
        plus(**ADDED),
    ),
    (
        "additional-nulls",
        "Every object of `data` and `meta` has an unknown member that is null.",
        (*DATA, *METAS),
        plus(addedLater=None),
    ),
    (
        "optional-members-of-syncs-absent",
        "A sync has no `warnings`, `publication`, `generation` and `reverts`.",
        ("Sync",),
        without("warnings", "publication", "generation", "reverts"),
    ),
    (
        "optional-members-of-records-absent",
        "A product or collection has only its required members.",
        RECORDS,
        without("description", "thumbnail", "listPrice", "sku", "createdAt", "updatedAt", "meta"),
    ),
    (
        "optional-members-of-thumbnails-absent",
        "A thumbnail has neither `url` nor `altText`.",
        ("Thumbnail",),
        without("url", "altText"),
    ),
    (
        "optional-members-of-meta-absent",
        "`meta` has no `currency`, `generation`, `sync`, `fresh` and `staleAfter`.",
        ("CatalogMeta", "SyncStatusMeta"),
        without("currency", "generation", "sync", "fresh", "staleAfter"),
    ),
    (
        "unknown-progress",
        "`progress.recordsTotal` and `progress.percent` are null.",
        ("SyncProgress",),
        plus(recordsTotal=None, percent=None),
    ),
    (
        "rejected-records-without-id",
        "`recordId` of a rejected record is null.",
        ("SyncProblemSample",),
        plus(recordId=None),
    ),
    # Codes that the spec leaves open
    (
        "unknown-failure-code",
        "`failure.code` is a code that the client does not know.",
        ("SyncFailure.code",),
        always(UNKNOWN),
    ),
    (
        "unknown-problem-code",
        "`code` of rejected records is a code that the client does not know.",
        ("SyncProblemGroup.code",),
        always(UNKNOWN),
    ),
    (
        "unknown-warning",
        "A sync that has SUCCEEDED has a warning that the client does not know.",
        ("Sync",),
        _with_warning,
    ),
    (
        "unknown-publication",
        "`publication` of a sync is a value that the client does not know.",
        ("Sync.publication",),
        always(UNKNOWN),
    ),
    (
        "longest-codes",
        "Codes of failures, rejected records and warnings have 64 characters.",
        members("code", "SyncFailure", "SyncProblemGroup", "SyncWarning"),
        padded(LONGEST_CODE, "X"),
    ),
    ("several-errors", "An error response has a second error.", ("ErrorResponse",), _with_second_error),
    # Texts
    (
        "longest-details",
        "`detail` of errors, failures and warnings has 8,192 characters.",
        members("detail", "Error", "SyncFailure", "SyncWarning"),
        padded(LONGEST_TEXT),
    ),
    (
        "longest-messages",
        "`message` of rejected records has 1,024 characters.",
        ("SyncProblemSample.message",),
        padded(LONGEST_MESSAGE),
    ),
    (
        "longest-titles",
        "`title` and `sku` of records have 8,192 characters.",
        (*TITLES, *members("sku", *PRODUCTS)),
        padded(LONGEST_TEXT),
    ),
    ("long-descriptions", "Some records have a `description` of 100,000 characters.", RECORDS, _with_description),
    ("empty-titles", "`title` of records is empty.", TITLES, always("")),
    (
        "non-ascii-texts",
        "`title` of records and `detail` of errors have characters of several scripts and beyond U+FFFF.",
        (*TITLES, "Error.detail", "SyncFailure.detail"),
        followed_by(" – 日本語 עברית e\u0301 🧵"),
    ),
    (
        "markup-in-texts",
        "`title` of records and `detail` of errors have quotes, markup and a backslash.",
        (*TITLES, "Error.detail", "SyncFailure.detail"),
        followed_by(""" <b>"it's" \\ 100% &amp; $x</b>"""),
    ),
    # Numbers and times
    ("largest-prices", "`listPrice` is 9007199254740991.", members("listPrice", *PRODUCTS), always(LARGEST)),
    ("zero-prices", "`listPrice` is 0.", members("listPrice", *PRODUCTS), always(0)),
    (
        "largest-counts",
        "Counts in `progress`, `result` and rejected records are 9007199254740991.",
        ("SyncProgress", "SyncResult", "SyncProblemGroup"),
        _with_largest_counts,
    ),
    (
        "largest-product-counts",
        "`productCount` of collections is 100000.",
        members("productCount", "CollectionSummary", "Collection", "ChangedCollection"),
        always(LARGEST_PRODUCT_COUNT),
    ),
    ("largest-attempts", "`attempt` of a sync is 2147483647.", ("Sync.attempt",), always(LARGEST_ATTEMPT)),
    (
        "largest-generations",
        "`generation` is 281474976710655.",
        ("Generation", "Sync.generation"),
        always(LARGEST_GENERATION),
    ),
    (
        "largest-number-of-records",
        "`numRecords` is 9007199254740991.",
        ("EntitySyncStatus.numRecords",),
        always(LARGEST),
    ),
    (
        "number-of-records-with-fraction",
        "`numRecords` is written with a fraction, such as 24.0.",
        ("EntitySyncStatus.numRecords",),
        float,
    ),
    ("times-with-nine-digits", "Times have nine digits after the point.", ("date-time",), _with_nine_digits),
    (
        "times-in-whole-seconds",
        "Times have no fraction.",
        ("date-time",),
        lambda time: re.sub(r"\.\d+", "", time),
    ),
    ("times-with-an-offset", "Times have the offset +05:30.", ("date-time",), _with_offset),
    # Cursors
    ("other-cursors", "Cursors have another form.", ("Cursor",), lambda text: f"v9_{text[::-1]}"[:LONGEST_CURSOR]),
    ("longest-cursors", "Cursors have 1,400 characters.", ("Cursor",), padded(LONGEST_CURSOR, "_")),
)
HEADERS: tuple[tuple[str, str, bytes, Change], ...] = (
    ("retry-after-shortest", "`Retry-After` is 1.", b"retry-after", always(b"1")),
    (
        "content-type-with-charset",
        "`Content-Type` is `application/json; charset=utf-8`.",
        b"content-type",
        lambda value: value + b"; charset=utf-8",
    ),
    (
        "additional-links",
        "`Link` has a parameter and a second link, after the link to the active sync.",
        b"link",
        lambda value: value + b'; title="The active sync", </docs>; rel="help"',
    ),
    (
        "additional-challenge-parameters",
        "`WWW-Authenticate` has an unknown parameter.",
        b"www-authenticate",
        lambda value: value + b', added_later="1, 2"',
    ),
)
MUTATIONS = {
    **{name: Mutation(name, text, Kind.VALUE, frozenset(schemas), change) for name, text, schemas, change in VALUES},
    **{
        name: Mutation(
            name, text, Kind.RESPONSE, frozenset(), partial(Exchange.change_header, name=header, change=change)
        )
        for name, text, header, change in HEADERS
    },
}


def _register(kind: Kind) -> Callable[[Change], Change]:
    """Return a decorator for functions that are mutations of this kind."""

    def register(change: Change) -> Change:
        name = change.__name__.replace("_", "-")
        MUTATIONS[name] = Mutation(name, str(change.__doc__).partition("\n")[0], kind, frozenset(), change)
        return change

    return register


bodies, requests, responses, messages = (
    _register(kind) for kind in (Kind.BODY, Kind.REQUEST, Kind.RESPONSE, Kind.MESSAGE)
)


# Pages


@requests
def fewer_records_per_page(exchange: Exchange) -> None:
    """Pages have at most 7 records, also if the client asks for more."""
    exchange.limit_page_size(FEWER_RECORDS)


@requests
def one_record_per_page(exchange: Exchange) -> None:
    """Pages have one record, also if the client asks for more."""
    exchange.limit_page_size(1)


@responses
def empty_last_page(exchange: Exchange) -> None:
    """The last page of a list is empty."""
    body = exchange.body  # None of a response to HEAD
    is_list = exchange.operation_id in LISTS and exchange.status == 200 and body is not None
    if is_list and "nextCursor" not in body["meta"] and body["data"] and not exchange.is_after_end:
        asked = dict(parse_qsl(exchange.query)).get("cursor", "")
        body["meta"]["nextCursor"] = cursor = f"end-{len(exchange.aliases)}"
        exchange.aliases[cursor] = AFTER_END + asked


AFTER_END = "after the end of "
"""Before the real cursor of the last page, in `aliases`."""


# Waiting


@requests
def wait_ignored(exchange: Exchange) -> None:
    """The gateway ignores `Prefer: wait`."""
    exchange.change_wait(None)


@requests
def wait_shortened(exchange: Exchange) -> None:
    """The gateway waits for one second at most."""
    exchange.change_wait(SHORTEST_WAIT)


@responses
def retry_after_longest(exchange: Exchange) -> None:
    """`Retry-After` is 3600 where a client need not wait: beside `Preference-Applied: wait`, or beside `Link`."""
    waited = (exchange.header(b"preference-applied") or b"").startswith(b"wait")
    if waited or exchange.header(b"link"):
        exchange.change_header(b"retry-after", lambda _: LONGEST_RETRY_AFTER)


# JSON as text


def _reversed(node: Any) -> Any:
    if isinstance(node, list):
        return [_reversed(each) for each in node]
    if isinstance(node, dict):
        return {name: _reversed(node[name]) for name in reversed(node)}
    return node


@bodies
def members_in_reverse_order(body: Any) -> Any:
    """The members of every object come in reverse order."""
    return _reversed(body)


@bodies
def json_with_white_space(body: Any) -> bytes:
    """The JSON is indented and ends with a line break."""
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


@bodies
def json_with_escapes(body: Any) -> bytes:
    r"""The JSON writes slashes as `\/`, and characters beyond ASCII as `\u` with four digits."""
    import json  # orjson writes no escapes

    return json.dumps(body).replace("/", "\\/").encode()


# Headers and framing


class CasedName(bytes):
    """A header name that keeps its case. uvicorn calls `lower` on the names that it writes."""

    def lower(self) -> bytes:
        return self


FRAMING = (b"content-length", b"transfer-encoding", b"connection")  # uvicorn looks for their lower-case names


def _change_names(exchange: Exchange, change: Callable[[bytes], bytes]) -> None:
    exchange.headers = [
        (name if name in FRAMING else CasedName(change(name)), value) for name, value in exchange.headers
    ]


@responses
def header_names_in_upper_case(exchange: Exchange) -> None:
    """Header names are in upper case, such as RETRY-AFTER."""
    _change_names(exchange, bytes.upper)


@responses
def header_names_capitalised(exchange: Exchange) -> None:
    """Header names are capitalised, such as Retry-After."""
    _change_names(exchange, bytes.title)


@responses
def additional_headers(exchange: Exchange) -> None:
    """Responses have unknown headers, one of them twice."""
    exchange.headers += [(b"x-added-later", b"1"), (b"x-added-later", b"2; a=b"), (b"server-timing", b"db;dur=53")]


@responses
def other_etags(exchange: Exchange) -> None:
    """`ETag` has another form, and 64 characters."""

    def change(value: bytes) -> bytes:
        changed = b'"%s"' % value.strip(b'"').rjust(LONGEST_ETAG - 2, b"0")
        exchange.aliases[changed.decode()] = value.decode()
        return changed

    exchange.change_header(b"etag", change)


@requests
def longest_request_ids(exchange: Exchange) -> None:
    """`X-Request-Id` has 128 characters, unless the client has sent its own."""
    if not exchange.request_header(b"x-request-id"):
        exchange.set_request_header(b"x-request-id", "~" * LONGEST_REQUEST_ID)


@responses
def chunked_bodies(exchange: Exchange) -> None:
    """Bodies come in chunks, without `Content-Length`."""
    exchange.headers = [each for each in exchange.headers if each[0].lower() != b"content-length"]
    exchange.chunked = True


@responses
def closed_connections(exchange: Exchange) -> None:
    """The connection is closed after each response."""
    exchange.headers.append((b"connection", b"close"))


# Webhooks


@messages
def messages_twice(message: Message) -> None:
    """A webhook gets each message twice."""
    message.repeats = 2


@messages
def messages_out_of_order(message: Message) -> None:
    """A webhook gets a message after the one that follows it, if that comes within about four seconds."""
    message.is_held = True


@messages
def unknown_message_types(message: Message) -> None:
    """A webhook gets messages of a type that the receiver does not know, with other data."""
    other = f"{message.id[:-4]}abcd"
    changes = {"type": "added.later", "id": other, "data": {"merchant": "sandbox-shop"}}
    message.before.append((other, orjson.dumps({**orjson.loads(message.body), **changes})))


@messages
def several_signatures(message: Message) -> None:
    """`webhook-signature` has a second signature, as after a change of the secret."""
    message.has_old_secret = True


@messages
def additional_members_of_messages(message: Message) -> None:
    """A message to a webhook has an unknown member."""
    message.body = orjson.dumps(orjson.loads(message.body) | ADDED)


@messages
def additional_message_headers(message: Message) -> None:
    """Messages have unknown headers."""
    message.headers["X-Added-Later"] = "1"
