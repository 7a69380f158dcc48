"""Requests to a gateway, retried where that is safe, with validated responses."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlsplit
from uuid import UUID

import orjson
from pydantic import ValidationError

from product_gateway.client.bodies import (
    Errors,
    FeedPage,
    OneRecord,
    OneStatus,
    OneSync,
    Problems,
    RecordPage,
    SyncPage,
)
from product_gateway.errors import AnswerUnreadable, Refused, Unreachable
from product_gateway.http_client.backoff import Backoff
from product_gateway.http_client.client import HttpClient, Response, retry_after
from product_gateway.json_tools.depth import MAX_DEPTH, is_deeper
from product_gateway.model.syncs import EntityType, SyncStatus
from product_gateway.telemetry.visible_text import visible

API = "/product-gateway/v1"
TRIES = 3  # attempts of a request without a time limit
MOST_TRIES = 10_000  # where only the time is limited
FIRST_WAIT, LONGEST_WAIT = 0.3, 2.0  # seconds
SHORTEST_PAUSE = 0.5  # seconds between two looks at a sync
LONGEST_RETRY_AFTER = 30.0  # seconds
LARGEST_PAGE = 500
LONGEST_TEXT = 8192

Shape = TypeVar("Shape", OneSync, SyncPage, OneStatus, Problems, RecordPage, OneRecord, FeedPage)
Paged = TypeVar("Paged", SyncPage, RecordPage, OneRecord)
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_MONITOR = re.compile(
    rf'<[^<>]*/syncs/({_UUID})>(?:\s*;[^,<;]*)*?;\s*rel\s*=\s*"?(?:[^",;<]*\s)?monitor\b', re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Answer(Generic[Shape]):
    """A response: `content` is validated, `body` is the complete parsed JSON."""

    content: Shape
    body: Any
    reply: Response


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway at `url`. All methods raise Refused and OutboundError.

    While a sync is watched, outages of up to `patience` seconds are retried; `noticed` is told once of each.
    """

    outbound: HttpClient
    url: str
    token: str
    patience: float
    noticed: Callable[[str], None]

    async def enqueue(self, entity_type: EntityType, key: str, publish: str | None = None) -> Answer[OneSync]:
        """Request a sync. Safe to retry: the same key returns the same sync."""
        params = None if publish is None else {"publish": publish}
        return await self._ask(OneSync, "PUT", f"/sync/{entity_type}", params=params, headers={"Idempotency-Key": key})

    async def cancel(self, entity_type: EntityType) -> Answer[OneSync]:
        """Cancel the active sync, without a retry: meanwhile another sync could be active."""
        return await self._ask(OneSync, "DELETE", f"/sync/{entity_type}", tries=1)

    async def status(self, entity_type: EntityType) -> Answer[OneStatus]:
        """Return the status; 404 before the first successful sync."""
        return await self._ask(OneStatus, "GET", f"/sync/{entity_type}")

    async def sync(self, sync_id: UUID) -> Answer[OneSync]:
        return await self._ask(OneSync, "GET", f"/syncs/{sync_id}")

    async def act_on(self, sync_id: UUID, action: str) -> Answer[OneSync]:
        """Revert, publish or discard a sync, without a retry: the gateway refuses to do it twice."""
        return await self._ask(OneSync, "POST", f"/syncs/{sync_id}/{action}", tries=1)

    async def problems(self, sync_id: UUID) -> Answer[Problems]:
        return await self._ask(Problems, "GET", f"/syncs/{sync_id}/problems")

    def history(
        self, entity_type: EntityType | None, status: SyncStatus | None, limit: int
    ) -> AsyncGenerator[Answer[SyncPage], None]:
        """Return pages with at most `limit` syncs in all, if the gateway sends no more than requested."""
        params = {} if entity_type is None else {"entityType": entity_type.value}
        params |= {} if status is None else {"status": status.value}
        return self._pages(SyncPage, "/syncs", params, limit)

    def records(self, name: str, limit: float) -> AsyncGenerator[Answer[RecordPage], None]:
        """Return pages of `products` or `collections`."""
        return self._pages(RecordPage, f"/{name}", {}, limit)

    async def record(self, name: str, record_id: str, limit: float) -> AsyncGenerator[Answer[OneRecord], None]:
        """Yield one record of `products` or `collections`; a collection once for each page of its products."""
        path = f"/{name}/{quote(record_id, safe='')}"
        if name == "products":
            yield await self._ask(OneRecord, "GET", path)
            return
        async for page in self._pages(OneRecord, path, {}, limit):
            yield page

    def sync_changes(self, sync_id: UUID, limit: float) -> AsyncGenerator[Answer[RecordPage], None]:
        """Return pages of the changes of one sync."""
        return self._pages(RecordPage, f"/syncs/{sync_id}/changes", {}, limit)

    async def changes(
        self, entity_type: EntityType, cursor: str | None, *, follow: bool, pause: float, wait: int
    ) -> AsyncGenerator[Answer[FeedPage], None]:
        """Yield pages of the feed of changes after the cursor: to its end, or with `follow` also later ones.

        At the end, the gateway may hold the response for `wait` seconds. One that does not is asked every `pause`
        seconds.
        """
        params = {"page_size": str(LARGEST_PAGE)} | ({"cursor": cursor} if cursor else {})
        headers, patience = ({"Prefer": f"wait={wait}"}, self.patience) if follow else ({}, None)
        while True:
            asked = time.monotonic()
            path = f"/changes/{entity_type}"
            page = await self._ask(FeedPage, "GET", path, params=params, headers=headers, patience=patience)
            meta = page.content.meta
            if meta.has_more and meta.next_cursor == params.get("cursor"):
                raise AnswerUnreadable("The gateway's feed of changes does not go on: it sends the same cursor again.")
            yield page
            params["cursor"] = meta.next_cursor
            if not meta.has_more:
                if not follow:
                    return
                await asyncio.sleep(_pause_after(page.reply, pause, asked))

    async def _pages(
        self, shape: type[Paged], path: str, params: dict[str, str], limit: float
    ) -> AsyncGenerator[Answer[Paged], None]:
        seen: set[str] = set()
        while limit > 0:
            params["page_size"] = str(int(min(limit, LARGEST_PAGE)))
            page = await self._ask(shape, "GET", path, params=params)
            yield page
            entries = entries_of(page.body)
            limit -= len(entries)
            cursor = page.content.meta.next_cursor
            if cursor is None or cursor in seen or not entries:
                return
            seen.add(cursor)
            params["cursor"] = cursor

    async def watch(self, sync_id: UUID, pause: float, wait: int) -> AsyncGenerator[Answer[OneSync], None]:
        """One look after another, until one shows that the sync has ended, with `pause` seconds between, or less where
        Retry-After says so. A gateway that can answers when the sync ends, or after `wait` seconds (RFC 7240 §4.3).
        """
        began = time.monotonic()
        while True:
            asked = time.monotonic()
            answer = await self._ask(
                OneSync, "GET", f"/syncs/{sync_id}", headers={"Prefer": f"wait={wait}"}, patience=self.patience
            )
            yield answer
            if not answer.content.data.is_active:
                return
            # never longer than it was watched: many syncs are short
            left = min(pause, retry_after(answer.reply) or 0.0, time.monotonic() - began)
            await asyncio.sleep(_pause_after(answer.reply, left, asked))

    async def _ask(
        self,
        shape: type[Shape],
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        tries: int = TRIES,
        patience: float | None = None,
    ) -> Answer[Shape]:
        backoff = Backoff(tries, FIRST_WAIT, LONGEST_WAIT, LONGEST_RETRY_AFTER)
        if patience is not None:
            backoff = replace(backoff, attempts=MOST_TRIES, total=patience)
        url = self.url.rstrip("/").removesuffix(API) + API + path
        began = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            try:
                reply = await self.outbound.send(method, url, params=params, headers=headers, bearer=self.token)
                return self._answer(shape, reply)
            except (Refused, Unreachable) as error:
                wait = backoff.wait(attempt, _wait_asked(error), time.monotonic() - began) if _may_pass(error) else None
                if wait is None:
                    raise
                if patience is not None and attempt == 1:
                    self.noticed(f"{error.detail} Trying again for up to {patience:g} s.")
            await asyncio.sleep(wait)

    def _answer(self, shape: type[Shape], reply: Response) -> Answer[Shape]:
        body = _parsed(reply.content)
        answered, active = f"answered {reply.status}", None
        if 300 <= reply.status < 400:
            answered += f" and leads to {plain(reply.header('Location') or 'nowhere')}, which is not followed"
        host = plain(urlsplit(self.url).netloc)
        detail = f"{host} {answered}, but not as a product gateway does. Check the address: --url."
        with contextlib.suppress(ValidationError):
            if reply.status in (200, 202):
                return Answer(shape.model_validate(body), body, reply)
            if reply.status >= 400:
                errors = Errors.model_validate(body).error
                said = " ".join(plain(f"{each.title}: {each.detail}") for each in errors[:10])
                request_id = plain(reply.header("X-Request-Id") or "none")
                detail = f"The gateway answered {reply.status} {said} (X-Request-Id: {request_id})"
                monitor = _MONITOR.search(reply.header("Link")) if reply.status == 429 else None
                active = UUID(monitor[1]) if monitor else None
        raise Refused(detail, reply.status, body=body, wait=retry_after(reply), active=active)


def entries_of(body: Any) -> list[Any]:
    """Return the entries of a page: its data, or the products of one collection."""
    found = body["data"] if isinstance(body["data"], list) else body["data"].get("products")
    return found if isinstance(found, list) else []


def plain(text: str) -> str:
    """Return the text in one line without control characters, at most LONGEST_TEXT characters."""
    return visible(text[:LONGEST_TEXT]) + ("…" if len(text) > LONGEST_TEXT else "")


def _pause_after(reply: Response, pause: float, asked: float) -> float:
    """Return the seconds until the next request, less those that the gateway has waited since `asked`."""
    if "wait" in reply.header("Preference-Applied").lower():
        pause -= time.monotonic() - asked
    return max(SHORTEST_PAUSE, pause)


def _may_pass(error: Refused | Unreachable) -> bool:
    if isinstance(error, Unreachable):
        return True
    return error.active is None and (error.status in (408, 425, 429) or error.status >= 500)


def _wait_asked(error: Refused | Unreachable) -> float | None:
    """Return the seconds that the gateway asks to wait, at least the shortest pause."""
    asked = error.wait if isinstance(error, Refused) else None
    return None if asked is None else max(asked, SHORTEST_PAUSE)


def _parsed(content: bytes) -> Any:
    """Return the body, or None where it is not JSON. Raise AnswerUnreadable where it nests too deep."""
    if is_deeper(content):
        raise AnswerUnreadable(f"The answer nests objects and arrays more than {MAX_DEPTH} levels deep.")
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
