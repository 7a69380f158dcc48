"""A client that tolerates everything that the spec allows, and clients that each lack one tolerance."""

import contextlib
import http.client
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from standardwebhooks import Webhook

from tests.support.deployment import API
from tests.support.webhook_receivers import Hooks, Message

PAGE_SIZE = 10
RETRIES = 5
KNOWN_CODES = {"PRODUCT_SERVICE_ERROR", "PRODUCT_SERVICE_UNREACHABLE", "MASS_DELETION"}
SECONDS_FOR_MESSAGES = 12.0
Headers = list[tuple[str, str]]


class Failed(Exception):
    """The client could not handle a response."""


class Client:
    """A correct client. Subclasses override what they do wrong. They share `cache` for reading."""

    def __init__(self, environment: Mapping[str, str], hooks: Hooks, cache: dict[str, Any] | None = None) -> None:
        self.environment = environment
        self.cache = cache if cache is not None else {}
        self.token = environment["TOKEN"]
        self.hooks = hooks

    # HTTP and JSON

    def ask(self, method: str, path: str, token: str | None = None, **headers: str) -> tuple[int, Headers, Any]:
        status, found, text = self._send(method, path, {"Authorization": f"Bearer {token or self.token}", **headers})
        return status, found, self.parse(text)

    def ask_once(self, method: str, path: str, token: str | None = None) -> tuple[int, Any]:
        """Send a request that no other client has sent. Return status and body."""
        key = f"{method} {path} {token}"
        if key not in self.cache:
            self.cache[key] = self._send(method, path, {"Authorization": f"Bearer {token or self.token}"})
        status, _, text = self.cache[key]
        return status, self.parse(text)

    def _send(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, Headers, str]:
        """Send a request. Retry a 503, which a busy machine may send."""
        for _ in range(RETRIES):
            status, found, text = self._exchange(method, path, headers)
            if status != 503:
                break
            time.sleep(1)
        return status, found, text

    def _exchange(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, Headers, str]:
        connection = http.client.HTTPConnection(str(urlsplit(self.environment["GATEWAY"]).netloc), timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path if path.startswith(API) else API + path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read().decode()

    def get(self, path: str) -> Any:
        status, body = self.ask_once("GET", path)
        if status != 200:
            raise Failed(f"{path}: {status}")
        return body

    def parse(self, text: str) -> Any:
        return json.loads(text)

    def header(self, headers: Headers, name: str) -> str | None:
        return next((value for key, value in headers if key.lower() == name.lower()), None)

    # Reading

    def read(self) -> None:
        """Read the status, failures, rejected records, all products and the feed."""
        self.number(self.get("/sync/PRODUCT")["data"]["numRecords"])
        for sync in self.pages("/syncs?entityType=COLLECTION"):
            self.sync(sync)
            for group in self.get(f"/syncs/{sync['id']}/problems")["data"]:
                self.problem(group)
        records = [self.record(each) for each in self.pages("/products")]
        copied = [self.record(each["product"]) for each in self.pages("/changes/PRODUCT")]
        if records != copied or len(records) != 24:
            raise Failed(f"{len(records)} products in the list, {len(copied)} in the feed")
        for token, expected in (
            (self.environment["EXPIRED_TOKEN"], 401),
            (self.environment["OTHER_PLATFORM_TOKEN"], 403),
        ):
            status, body = self.ask_once("GET" if expected == 401 else "PUT", "/sync/PRODUCT", token)
            if status != expected:
                raise Failed(f"{status} instead of {expected}")
            self.errors(body)

    def pages(self, path: str) -> Iterator[Any]:
        start = f"{path}{'&' if '?' in path else '?'}page_size={PAGE_SIZE}"
        page = self.get(start)
        while True:
            yield from page["data"]
            if not self.has_next(page):
                return
            page = self.get(f"{start}&cursor={self.cursor(page['meta']['nextCursor'])}")

    def has_next(self, page: Any) -> bool:
        meta = page["meta"]
        return bool(meta.get("hasMore", "nextCursor" in meta))

    def cursor(self, cursor: str) -> str:
        return cursor

    def record(self, record: Any) -> tuple[str, str, int | None]:
        return record["id"], self.text(record["title"]), record.get("listPrice")

    def sync(self, sync: Any) -> None:
        self.time(sync["queuedAt"])
        self.number(sync["attempt"])
        self.number(sync["result"]["created"])
        if sync["failure"]:
            self.failure_code(sync["failure"]["code"])

    def problem(self, group: Any) -> None:
        self.number(group["count"])

    def errors(self, body: Any) -> None:
        self.text(body["error"][0]["detail"])

    def failure_code(self, code: str) -> str:
        return code if code in KNOWN_CODES else "OTHER"

    def number(self, number: float) -> int:
        return int(number)

    def text(self, text: str) -> str:
        return text

    def time(self, text: str) -> datetime:
        return datetime.fromisoformat(text)

    # Waiting, and webhooks

    def wait(self) -> None:
        """Request a sync, meet the 429, and wait for the end and for the message."""
        self.ask("DELETE", "/sync/PRODUCT")  # which a client with a fault may have left active
        seen = len(self.hooks.messages)
        status, headers, _ = self.ask(
            "PUT", "/sync/PRODUCT", **{"Prefer": "sync=slow", "Idempotency-Key": str(uuid4())}
        )
        if status != 202:
            raise Failed(f"PUT: {status}")
        place = self.header(headers, "location")
        status, headers, _ = self.ask("PUT", "/sync/PRODUCT")
        if status != 429 or self.followed(headers) != place:
            raise Failed(f"The second PUT: {status}, {self.followed(headers)} instead of {place}")
        sync = self.await_end(str(place))
        self.await_message(sync["id"], seen)

    def followed(self, headers: Headers) -> str | None:
        found = re.match("<([^>]*)>", self.header(headers, "link") or "")
        return found and found[1]

    def await_end(self, place: str) -> Any:
        while True:
            _, headers, body = self.ask("GET", place, Prefer="wait=20")
            seconds = self.header(headers, "retry-after")
            if seconds is None:
                return body["data"]
            if self.header(headers, "preference-applied") is None:
                self.sleep(int(seconds))

    def sleep(self, seconds: int) -> None:
        if seconds > 30:
            raise Failed(f"would sleep for {seconds} s")
        time.sleep(seconds)

    def await_message(self, sync_id: str, seen: int) -> None:
        """Wait for the message of this sync. Handle each message once."""
        handled: set[str] = set()
        until = time.monotonic() + SECONDS_FOR_MESSAGES
        while time.monotonic() < until:
            for message in list(self.hooks.messages)[seen:]:
                seen += 1
                if self.is_new(message, handled) and self.receive(message) == sync_id:
                    time.sleep(0.1)  # for a repeated message
                    for late in list(self.hooks.messages)[seen:]:
                        self.is_new(late, handled)
                    return
            time.sleep(0.05)
        raise Failed("no message came")

    def is_new(self, message: Message, handled: set[str]) -> bool:
        is_new = message.headers["webhook-id"] not in handled
        handled.add(message.headers["webhook-id"])
        return is_new

    def receive(self, message: Message) -> str | None:
        """Verify a message; return the id of the sync that has ended."""
        event = Webhook(self.environment["WEBHOOK_SECRET"]).verify(message.body, self.signed(message.headers))
        return event["data"]["id"] if self.is_known(event["type"]) else None

    def signed(self, headers: dict[str, str]) -> dict[str, str]:
        return headers

    def is_known(self, event_type: str) -> bool:
        return event_type.startswith("sync.")


def _refuse(condition: object, reason: str) -> None:
    if condition:
        raise Failed(reason)


class RejectsUnknownMembers(Client):
    known = frozenset({"id", "title", "description", "thumbnail", "listPrice", "sku", "createdAt", "updatedAt", "meta"})

    def record(self, record: Any) -> tuple[str, str, int | None]:
        _refuse(record.keys() - self.known, "unknown members")
        return super().record(record)


class ClosesFailureCodes(Client):
    def failure_code(self, code: str) -> str:
        _refuse(code not in KNOWN_CODES, code)
        return code


class Reads32Bits(Client):
    def number(self, number: float) -> int:
        _refuse(number > 2**31 - 1, f"{number} is too large")
        return int(number)


class ReadsOnlyIntegers(Client):
    def number(self, number: float) -> int:
        _refuse(isinstance(number, float), f"{number} is no integer")
        return int(number)


class ComparesHeaderNamesWithCase(Client):
    def header(self, headers: Headers, name: str) -> str | None:
        return next((value for key, value in headers if key == name.lower()), None)


class StopsAtAShortPage(Client):
    def has_next(self, page: Any) -> bool:
        return len(page["data"]) == PAGE_SIZE and super().has_next(page)


class DecodesCursors(Client):
    def cursor(self, cursor: str) -> str:
        _refuse(len(cursor) > 255, "the cursor does not fit into its column")
        return cursor


class TakesAnEarlyResponseForAFailure(Client):
    def await_end(self, place: str) -> Any:
        _, _, body = self.ask("GET", place, Prefer="wait=20")
        _refuse(body["data"]["finishedAt"] is None, "the sync has not ended")
        return body["data"]


class AlwaysSleeps(Client):
    def await_end(self, place: str) -> Any:
        while True:
            _, headers, body = self.ask("GET", place, Prefer="wait=1")
            seconds = self.header(headers, "retry-after")
            if seconds is None:
                return body["data"]
            self.sleep(int(seconds))


class BreaksOnARepeatedMessage(Client):
    def is_new(self, message: Message, handled: set[str]) -> bool:
        _refuse(message.headers["webhook-id"] in handled, "the message came twice")
        return super().is_new(message, handled)


class RefusesUnknownMessages(Client):
    def is_known(self, event_type: str) -> bool:
        _refuse(event_type not in ("sync.succeeded", "sync.failed", "sync.cancelled"), event_type)
        return True


class ReadsOneSignature(Client):
    def signed(self, headers: dict[str, str]) -> dict[str, str]:
        return {**headers, "webhook-signature": headers["webhook-signature"].split(" ")[0]}

    def receive(self, message: Message) -> str | None:
        try:
            return super().receive(message)
        except Exception as error:
            raise Failed("bad signature") from error


class KnowsOneFormOfTimes(Client):
    def time(self, text: str) -> datetime:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")


class NeedsOptionalMembers(Client):
    def record(self, record: Any) -> tuple[str, str, int | None]:
        return record["id"], record["title"], record["listPrice"]


class SearchesTheText(Client):
    def parse(self, text: str) -> Any:
        _refuse(text and not text.startswith(('{"data":', '{"error":')), "no data")
        return super().parse(text)


class CutsTexts(Client):
    def text(self, text: str) -> str:
        _refuse(len(text) > 255, "the text does not fit into its column")
        return text


class WantsOneError(Client):
    def errors(self, body: Any) -> None:
        (_,) = body["error"]


READING: dict[type[Client], set[str]] = {
    RejectsUnknownMembers: {"additional-members-of-data", "additional-nulls"},
    ClosesFailureCodes: {"unknown-failure-code", "longest-codes"},
    Reads32Bits: {"largest-counts", "largest-number-of-records"},
    ReadsOnlyIntegers: {"number-of-records-with-fraction"},
    StopsAtAShortPage: {"fewer-records-per-page", "one-record-per-page"},
    DecodesCursors: {"longest-cursors"},
    KnowsOneFormOfTimes: {"times-with-nine-digits", "times-in-whole-seconds", "times-with-an-offset"},
    NeedsOptionalMembers: {"optional-members-of-records-absent"},
    SearchesTheText: {"json-with-white-space", "members-in-reverse-order"},
    CutsTexts: {"longest-titles", "longest-details"},
    WantsOneError: {"several-errors"},
}
"""The clients whose fault is in `read`, with the mutations that break them."""

WAITING: dict[type[Client], set[str]] = {
    ComparesHeaderNamesWithCase: {"header-names-in-upper-case", "header-names-capitalised"},
    TakesAnEarlyResponseForAFailure: {"wait-shortened", "wait-ignored"},
    AlwaysSleeps: {"retry-after-longest"},
    BreaksOnARepeatedMessage: {"messages-twice"},
    RefusesUnknownMessages: {"unknown-message-types"},
    ReadsOneSignature: {"several-signatures"},
}
"""The clients whose fault is in `wait`, with the mutations that break them."""


def fault_of(run: Callable[[], None]) -> str | None:
    """Run a part of a client; return what it could not handle, or None."""
    try:
        run()
    except (Failed, KeyError, ValueError, TypeError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return None
