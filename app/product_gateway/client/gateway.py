"""Requests to a gateway, retried where that is safe, with validated responses."""

import asyncio
import itertools
import re
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import orjson
from pydantic import ValidationError

from product_gateway.client.bodies import Errors, OneStatus, OneSync, Problems, SyncPage
from product_gateway.errors import AnswerUnreadable, Refused, Unreachable
from product_gateway.http_client.backoff import Backoff
from product_gateway.http_client.client import MEBIBYTE, HttpClient, Response, retry_after
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

Shape = TypeVar("Shape", OneSync, SyncPage, OneStatus, Problems)
_MONITOR = re.compile(
    r'<[^<>]*/syncs/([0-9A-Fa-f-]{36})>(?:\s*;[^,<;]*)*?;\s*rel\s*=\s*"?(?:[^",;<]*\s)?monitor\b', re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Answer(Generic[Shape]):
    """A response: `content` is validated, `body` is the complete parsed JSON."""

    content: Shape
    body: Any
    reply: Response


def to_gateway() -> HttpClient:
    """Return the HTTP client. Private addresses and http are allowed: the user typed the address."""
    return HttpClient(
        allow_private_addresses=True, connect_timeout=5, read_timeout=30, total_timeout=60, max_bytes=32 * MEBIBYTE
    )


class Gateway:
    """The gateway at `url`. All methods raise Refused and OutboundError.

    While a sync is watched, outages of up to `patience` seconds are retried; `noticed` is told once of each.
    """

    def __init__(
        self,
        outbound: HttpClient,
        url: str,
        token: str,
        *,
        patience: float = 60,
        noticed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._outbound = outbound
        self._url = url.rstrip("/").removesuffix(API) + API
        self._token = token
        self._patience = patience
        self._noticed = noticed

    async def enqueue(self, entity_type: EntityType, key: str) -> Answer[OneSync]:
        """Request a sync. Safe to retry: the same key returns the same sync."""
        return await self._ask(OneSync, "PUT", f"/sync/{entity_type}", headers={"Idempotency-Key": key})

    async def cancel(self, entity_type: EntityType) -> Answer[OneSync]:
        """Cancel the active sync, without a retry: meanwhile another sync could be active."""
        return await self._ask(OneSync, "DELETE", f"/sync/{entity_type}", tries=1)

    async def status(self, entity_type: EntityType) -> Answer[OneStatus]:
        """Return the status; 404 before the first successful sync."""
        return await self._ask(OneStatus, "GET", f"/sync/{entity_type}")

    async def sync(self, sync_id: UUID) -> Answer[OneSync]:
        return await self._ask(OneSync, "GET", f"/syncs/{sync_id}")

    async def problems(self, sync_id: UUID) -> Answer[Problems]:
        return await self._ask(Problems, "GET", f"/syncs/{sync_id}/problems")

    async def history(
        self, entity_type: EntityType | None, status: SyncStatus | None, limit: int
    ) -> AsyncGenerator[Answer[SyncPage], None]:
        """Pages with at most `limit` syncs in all, if the gateway sends no more than it is asked for."""
        params = {} if entity_type is None else {"entityType": entity_type.value}
        params |= {} if status is None else {"status": status.value}
        seen: set[str] = set()
        while limit > 0:
            page = await self._ask(
                SyncPage, "GET", "/syncs", params={**params, "page_size": str(min(limit, LARGEST_PAGE))}
            )
            yield page
            limit -= len(page.content.data)
            cursor = page.content.meta.next_cursor
            if cursor is None or cursor in seen or not page.content.data:
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
                OneSync, "GET", f"/syncs/{sync_id}", headers={"Prefer": f"wait={wait}"}, patience=self._patience
            )
            yield answer
            if not answer.content.data.is_active:
                return
            # never longer than it was watched: many syncs are short
            left = min(pause, retry_after(answer.reply) or 0.0, time.monotonic() - began)
            if "wait" in answer.reply.header("Preference-Applied").lower():
                left -= time.monotonic() - asked
            await asyncio.sleep(max(SHORTEST_PAUSE, left))

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
        backoff = Backoff(
            attempts=tries if patience is None else MOST_TRIES,
            first=FIRST_WAIT,
            longest=LONGEST_WAIT,
            longest_asked=LONGEST_RETRY_AFTER,
        )
        began = time.monotonic()
        told = patience is None
        for attempt in itertools.count(1):
            try:
                reply = await self._outbound.send(
                    method, self._url + path, params=params, headers=headers, bearer=self._token
                )
                return self._answer(shape, reply)
            except (Refused, Unreachable) as error:
                passed = time.monotonic() - began
                wait = backoff.wait(attempt, _wait_asked(error), 0.0) if _may_pass(error) else None
                if wait is None or (patience is not None and passed + wait > patience):
                    raise
                if not told:
                    told = True
                    self._noticed(f"{error.detail} Trying again for up to {patience:g} s.")
            await asyncio.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _answer(self, shape: type[Shape], reply: Response) -> Answer[Shape]:
        body = _parsed(reply.content)
        if reply.status in (200, 202):
            try:
                return Answer(shape.model_validate(body), body, reply)
            except ValidationError:
                raise Refused(self._not_a_gateway(f"answered {reply.status}"), reply.status, body=body) from None
        if 300 <= reply.status < 400:
            target = plain(reply.header("Location") or "nowhere")
            detail = f"answered {reply.status} and leads to {target}, which is not followed"
            raise Refused(self._not_a_gateway(detail), reply.status, body=body)
        try:
            errors = Errors.model_validate(body).error
        except ValidationError:
            raise Refused(
                self._not_a_gateway(f"answered {reply.status}"), reply.status, body=body, wait=retry_after(reply)
            ) from None
        said = " ".join(plain(f"{each.title}: {each.detail}") for each in errors[:10])
        request_id = plain(reply.header("X-Request-Id") or "none")
        monitor = _MONITOR.search(reply.header("Link")) if reply.status == 429 else None
        raise Refused(
            f"The gateway answered {reply.status} {said} (X-Request-Id: {request_id})",
            reply.status,
            body=body,
            wait=retry_after(reply),
            active=_id_in(monitor),
        )

    def _not_a_gateway(self, what: str) -> str:
        host = urlsplit(self._url).netloc
        return f"{plain(host)} {what}, but not as a product gateway does. Check the address: --url."


def plain(text: str) -> str:
    """Return the text in one line without control characters, at most LONGEST_TEXT characters."""
    return visible(text[:LONGEST_TEXT]) + ("…" if len(text) > LONGEST_TEXT else "")


def _may_pass(error: Refused | Unreachable) -> bool:
    """Whether asking again may help."""
    if isinstance(error, Unreachable):
        return True
    return error.active is None and (error.status in (408, 425, 429) or error.status >= 500)


def _wait_asked(error: Refused | Unreachable) -> float | None:
    """Seconds, and not less than the shortest pause."""
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


def _id_in(found: re.Match[str] | None) -> UUID | None:
    try:
        return None if found is None else UUID(found[1])
    except ValueError:
        return None
