"""The mutations of `sandbox --tolerance`: each changes real responses in one way that the spec allows.

A mutation's name and description are those of its function. The decorator says what the function changes:

- `values`: a value in a JSON body, by the name of its schema in the spec, `Schema.member`, or its format.
  All responses of a run get the same change, because a client may compare them.
- `bodies`: the whole JSON body, or its text.
- `requests`: the request, before the gateway sees it.
- `responses`: status line, headers and framing of a response with a JSON body.
- `messages`: the deliveries of a message to a webhook.
"""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson

from product_gateway.http.prefer import preferences

Object = dict[str, Any]
Headers = list[tuple[bytes, bytes]]

LARGEST = 2**53 - 1  # the spec's `maximum` of counts and prices
LARGEST_ATTEMPT, LARGEST_GENERATION, LARGEST_PRODUCT_COUNT = 2**31 - 1, 2**48 - 1, 100_000
LONGEST_CODE, LONGEST_CURSOR, LONGEST_ETAG, LONGEST_REQUEST_ID = 64, 1400, 64, 128
LONGEST_TEXT, LONGEST_MESSAGE, LONG_DESCRIPTION = 8192, 1024, 100_000
LONGEST_RETRY_AFTER, SHORTEST_WAIT = b"3600", "1"
FEWER_RECORDS = 7
CHUNK_BYTES = 500
LISTS = ("listProducts", "listCollections", "listSyncs", "listSyncChanges")
PAGED = (*LISTS, "listChanges", "getCollection")

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
CODES = ("SyncFailure.code", "SyncProblemGroup.code", "SyncWarning.code")
ADDED: Object = {"addedLater": {"since": "1.99.0", "values": [1, None, {"deep": True}]}}


class Kind(StrEnum):
    """What the function of a mutation changes. The module's docstring describes the kinds."""

    VALUE = "value"
    BODY = "body"
    REQUEST = "request"
    RESPONSE = "response"
    MESSAGE = "message"


@dataclass(frozen=True)
class Mutation:
    """A named change that the spec allows. `applies_to` lists schemas, members or formats of a VALUE."""

    name: str
    description: str
    kind: Kind
    applies_to: frozenset[str]
    change: Callable[[Any], Any]


@dataclass
class Exchange:
    """A request, and later its response. `aliases` has the real texts of changed cursors and ETags.

    `is_after_end` is True for a request with the cursor of an empty last page.
    """

    operation_id: str
    query: str
    request_headers: Headers
    aliases: dict[str, str]
    status: int = 0
    headers: Headers = field(default_factory=list)
    body: Any = None
    chunked: bool = False
    is_after_end: bool = False

    def request_header(self, name: bytes) -> str:
        """Return the values of a header of the request, between commas."""
        return ",".join(value.decode("latin-1") for key, value in self.request_headers if key == name)

    def set_request_header(self, name: bytes, value: str) -> None:
        """Replace a header of the request; remove it if the value is empty."""
        self.request_headers = [each for each in self.request_headers if each[0] != name]
        if value:
            self.request_headers.append((name, value.encode("latin-1")))

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a header of the response."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def change_header(self, name: bytes, change: Callable[[bytes], bytes]) -> None:
        """Change the value of a header if the response has it."""
        self.headers = [(key, change(value) if key.lower() == name else value) for key, value in self.headers]

    def limit_page_size(self, limit: int) -> None:
        """Ask the gateway for pages of at most `limit` records. Leave an invalid page size unchanged."""
        query = dict(parse_qsl(self.query, keep_blank_values=True))
        asked = query.get("page_size", "100")
        if self.operation_id in PAGED and asked.isdecimal() and int(asked) > limit:
            self.query = urlencode({**query, "page_size": limit})

    def change_wait(self, wait: str | None) -> None:
        """Replace `wait` in the request's `Prefer`; remove it if None."""
        asked = preferences(self.request_header(b"prefer"))
        if "wait" in asked:
            asked.pop("wait")
            changed = {**asked, **({"wait": wait} if wait else {})}
            self.set_request_header(b"prefer", ", ".join(f"{key}={value}" for key, value in changed.items()))


MUTATIONS: dict[str, Mutation] = {}
Decorator = Callable[[Callable[[Any], Any]], Callable[[Any], Any]]


def _register(kind: Kind, *applies_to: str) -> Decorator:
    def register(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
        name = change.__name__.replace("_", "-")
        MUTATIONS[name] = Mutation(name, str(change.__doc__).partition("\n")[0], kind, frozenset(applies_to), change)
        return change

    return register


def values(*applies_to: str) -> Decorator:
    return _register(Kind.VALUE, *applies_to)


def members(name: str, *schemas: str) -> tuple[str, ...]:
    """Return `Schema.name` of each schema."""
    return tuple(f"{each}.{name}" for each in schemas)


def without(node: Object, *names: str) -> Object:
    return {name: value for name, value in node.items() if name not in names}


bodies, requests, responses, messages = (
    _register(kind) for kind in (Kind.BODY, Kind.REQUEST, Kind.RESPONSE, Kind.MESSAGE)
)


# Members


@values(*DATA)
def additional_members_of_data(node: Object) -> Object:
    """Every object of `data` has an unknown member."""
    return node | ADDED


@values(*METAS)
def additional_members_of_meta(node: Object) -> Object:
    """`meta` has an unknown member."""
    return node | ADDED


@values("Error")
def additional_members_of_errors(node: Object) -> Object:
    """Each error has an unknown member."""
    return node | ADDED


@values(*RESPONSES)
def additional_members_beside_data(node: Object) -> Object:
    """The body has an unknown member beside `data` and `meta`, or `error`."""
    return node | ADDED


@values(*DATA, *METAS)
def additional_nulls(node: Object) -> Object:
    """Every object of `data` and `meta` has an unknown member that is null."""
    return node | {"addedLater": None}


@values("Sync")
def optional_members_of_syncs_absent(node: Object) -> Object:
    """A sync has no `warnings`, `publication`, `generation` and `reverts`."""
    return without(node, "warnings", "publication", "generation", "reverts")


@values(*RECORDS)
def optional_members_of_records_absent(node: Object) -> Object:
    """A product or collection has only its required members."""
    return without(node, "description", "thumbnail", "listPrice", "sku", "createdAt", "updatedAt", "meta")


@values("Thumbnail")
def optional_members_of_thumbnails_absent(_: Object) -> Object:
    """A thumbnail has neither `url` nor `altText`."""
    return {}


@values("CatalogMeta", "SyncStatusMeta")
def optional_members_of_meta_absent(node: Object) -> Object:
    """`meta` has no `currency`, `generation`, `sync`, `fresh` and `staleAfter`."""
    return without(node, "currency", "generation", "sync", "fresh", "staleAfter")


@values("SyncProgress")
def unknown_progress(node: Object) -> Object:
    """`progress.recordsTotal` and `progress.percent` are null."""
    return {**node, "recordsTotal": None, "percent": None}


@values("SyncProblemSample")
def rejected_records_without_id(node: Object) -> Object:
    """`recordId` of a rejected record is null."""
    return {**node, "recordId": None}


# Codes that the spec leaves open


@values("SyncFailure.code")
def unknown_failure_code(_: str) -> str:
    """`failure.code` is a code that the client does not know."""
    return "ADDED_LATER"


@values("SyncProblemGroup.code")
def unknown_problem_code(_: str) -> str:
    """`code` of rejected records is a code that the client does not know."""
    return "ADDED_LATER"


@values("Sync")
def unknown_warning(node: Object) -> Object:
    """A sync that has SUCCEEDED has a warning that the client does not know."""
    if node["status"] != "SUCCEEDED":
        return node
    return {**node, "warnings": [*node.get("warnings", []), {"code": "ADDED_LATER", "detail": "A later version."}]}


@values("Sync.publication")
def unknown_publication(_: str) -> str:
    """`publication` of a sync is a value that the client does not know."""
    return "ADDED_LATER"


@values(*CODES)
def longest_codes(code: str) -> str:
    """Codes of failures, rejected records and warnings have 64 characters."""
    return code.ljust(LONGEST_CODE, "X")


@values("ErrorResponse")
def several_errors(node: Object) -> Object:
    """An error response has a second error."""
    first, *others = node["error"]
    return {**node, "error": [first, *others, {**first, "detail": "There is more to say."}]}


# Texts


@values("Error.detail", "SyncFailure.detail", "SyncWarning.detail")
def longest_details(detail: str) -> str:
    """`detail` of errors, failures and warnings has 8,192 characters."""
    return detail.ljust(LONGEST_TEXT, ".")


@values(*members("message", "SyncProblemSample"))
def longest_messages(message: str) -> str:
    """`message` of rejected records has 1,024 characters."""
    return message.ljust(LONGEST_MESSAGE, ".")


@values(*members("title", *RECORDS), *members("sku", *PRODUCTS))
def longest_titles(text: str) -> str:
    """`title` and `sku` of records have 8,192 characters."""
    return text.ljust(LONGEST_TEXT, ".")


@values(*RECORDS)
def long_descriptions(node: Object) -> Object:
    """Some records have a `description` of 100,000 characters."""
    is_chosen = zlib.crc32(node["id"].encode()) % 4 == 0  # of all would exceed what a page may have
    return {**node, "description": "a long text ".ljust(LONG_DESCRIPTION, ".")} if is_chosen else node


@values(*members("title", *RECORDS))
def empty_titles(_: str) -> str:
    """`title` of records is empty."""
    return ""


@values(*members("title", *RECORDS), "Error.detail", "SyncFailure.detail")
def non_ascii_texts(text: str) -> str:
    """`title` of records and `detail` of errors have characters of several scripts and beyond U+FFFF."""
    return f"{text[: LONGEST_TEXT - 20]} – 日本語 עברית e\u0301 🧵"


@values(*members("title", *RECORDS), "Error.detail", "SyncFailure.detail")
def markup_in_texts(text: str) -> str:
    """`title` of records and `detail` of errors have quotes, markup and a backslash."""
    return f"""{text[: LONGEST_TEXT - 30]} <b>"it's" \\ 100% &amp; $x</b>"""


# Numbers and times


@values(*members("listPrice", *PRODUCTS))
def largest_prices(_: int) -> int:
    """`listPrice` is 9007199254740991."""
    return LARGEST


@values(*members("listPrice", *PRODUCTS))
def zero_prices(_: int) -> int:
    """`listPrice` is 0."""
    return 0


@values("SyncProgress", "SyncResult", "SyncProblemGroup")
def largest_counts(node: Object) -> Object:
    """Counts in `progress`, `result` and rejected records are 9007199254740991."""
    return {name: LARGEST if isinstance(value, int) and name != "percent" else value for name, value in node.items()}


@values(*members("productCount", "CollectionSummary", "Collection", "ChangedCollection"))
def largest_product_counts(_: int) -> int:
    """`productCount` of collections is 100000."""
    return LARGEST_PRODUCT_COUNT


@values("Sync.attempt")
def largest_attempts(_: int) -> int:
    """`attempt` of a sync is 2147483647."""
    return LARGEST_ATTEMPT


@values("Generation", "Sync.generation")
def largest_generations(_: int) -> int:
    """`generation` is 281474976710655."""
    return LARGEST_GENERATION


@values("EntitySyncStatus.numRecords")
def largest_number_of_records(_: float) -> int:
    """`numRecords` is 9007199254740991."""
    return LARGEST


@values("EntitySyncStatus.numRecords")
def number_of_records_with_fraction(number: float) -> float:
    """`numRecords` is written with a fraction, such as 24.0."""
    return float(number)


@values("date-time")
def times_with_nine_digits(time: str) -> str:
    """Times have nine digits after the point."""
    whole, _, zone = time.partition(".")
    return f"{whole}.{zone[:-1]:0<9}Z" if zone.endswith("Z") else time


@values("date-time")
def times_in_whole_seconds(time: str) -> str:
    """Times have no fraction."""
    return re.sub(r"\.\d+", "", time)


@values("date-time")
def times_with_an_offset(time: str) -> str:
    """Times have the offset +05:30."""
    return datetime.fromisoformat(time).astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()


# Pages


@values("Cursor")
def other_cursors(cursor: str) -> str:
    """Cursors have another form."""
    return f"v9_{cursor[::-1]}"[:LONGEST_CURSOR]


@values("Cursor")
def longest_cursors(cursor: str) -> str:
    """Cursors have 1,400 characters."""
    return cursor.ljust(LONGEST_CURSOR, "_")


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


@responses
def retry_after_shortest(exchange: Exchange) -> None:
    """`Retry-After` is 1."""
    exchange.change_header(b"retry-after", lambda _: b"1")


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
def content_type_with_charset(exchange: Exchange) -> None:
    """`Content-Type` is `application/json; charset=utf-8`."""
    exchange.change_header(b"content-type", lambda value: value + b"; charset=utf-8")


@responses
def additional_links(exchange: Exchange) -> None:
    """`Link` has a parameter and a second link, after the link to the active sync."""
    exchange.change_header(b"link", lambda value: value + b'; title="The active sync", </docs>; rel="help"')


@responses
def additional_challenge_parameters(exchange: Exchange) -> None:
    """`WWW-Authenticate` has an unknown parameter."""
    exchange.change_header(b"www-authenticate", lambda value: value + b', added_later="1, 2"')


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


@dataclass
class Message:
    """A message on its way to a webhook. `before` are further messages, by id, that the receiver gets before it.

    The receiver gets the message `repeats` times. If `is_held`, the next message may overtake it.
    """

    id: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    before: list[tuple[str, bytes]] = field(default_factory=list)
    repeats: int = 1
    has_old_secret: bool = False
    is_held: bool = False


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
