"""What a mutation is, and what it changes: an exchange of request and response, or a message to a webhook."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, urlencode

from product_gateway.http.prefer import preferences

Headers = list[tuple[bytes, bytes]]

LISTS = ("listProducts", "listCollections", "listSyncs", "listSyncChanges")
PAGED = (*LISTS, "listChanges", "getCollection")


class Kind(StrEnum):
    """What a mutation changes."""

    VALUE = "value"
    """A value in a JSON body. All responses of a run get the same change, because a client may compare them."""
    BODY = "body"
    """The whole JSON body, or its text."""
    REQUEST = "request"
    """The request, before the gateway sees it."""
    RESPONSE = "response"
    """Headers and framing of a response."""
    MESSAGE = "message"
    """The deliveries of a message to a webhook."""


@dataclass(frozen=True)
class Mutation:
    """A named change that the spec allows. `applies_to` lists schemas, `Schema.member` or formats of a VALUE."""

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
