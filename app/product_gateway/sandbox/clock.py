"""The sandbox's clock, which clients advance: `POST /sandbox/clock` (compare the test clocks of Stripe)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.api.error_responses import error_answer
from product_gateway.auth import keys
from product_gateway.db import freshness, generations, sandbox_clock
from product_gateway.db.database import Database
from product_gateway.errors import InvalidRequest, SettingsError
from product_gateway.http.middleware.request_context import RequestContextMiddleware
from product_gateway.http.responses import Response
from product_gateway.openapi.bodies import rfc3339
from product_gateway.settings import Settings
from product_gateway.sync.freshness import CATALOGS_AT_ONCE
from product_gateway.sync.pruning import VERSIONS_AT_ONCE

PATH = "/sandbox/clock"
LONGEST = timedelta(days=366)
MOST_BYTES = 1000
USAGE = (
    'Send JSON like {"advance": "72h"}: a number of seconds, minutes, hours or days (90s, 30m, 72h, 7d), at most 366d.'
)


@dataclass
class Clock:
    """The real time, plus the seconds by which clients have advanced it."""

    offset: float = 0.0

    def time(self) -> float:
        """Return the seconds since 1970."""
        return time.time() + self.offset


@dataclass
class ClockMiddleware:
    """ASGI middleware for the clock's path. `deliver` makes the attempts of webhook messages that are due.

    `tokens` returns new tokens for the given lifetime in addition to their own.
    """

    app: ASGIApp
    clock: Clock
    settings: Settings
    database: Database
    tokens: Callable[[timedelta], dict[str, str]]
    access_log: bool
    deliver: Callable[[], Awaitable[None]] | None = None  # None until the worker runs
    _advancing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self.app(scope, receive, send)
            return
        try:
            response = await self._answer(Request(scope, receive))
        except InvalidRequest as error:
            response = error_answer(HTTPStatus.BAD_REQUEST, error.detail, {})
        app = RequestContextMiddleware(
            lambda scope, _, send: response.send(scope, send), answered=lambda *_: None, access_log=self.access_log
        )
        await app(scope, receive, send)

    async def _answer(self, request: Request) -> Response[Any]:
        if request.method == "POST":
            async with self._advancing:
                await self._advance(await _seconds(request))
        elif request.method not in ("GET", "HEAD"):
            said = f"This path answers to GET, HEAD, POST; not to {request.method[:32]}."
            return error_answer(HTTPStatus.METHOD_NOT_ALLOWED, said, {"Allow": "GET, HEAD, POST"})
        at = datetime.fromtimestamp(self.clock.time(), UTC)
        advanced = timedelta(seconds=self.clock.offset)
        data = {"now": rfc3339(at), "advancedSeconds": round(self.clock.offset), "tokens": self.tokens(advanced)}
        return Response({"data": data, "meta": {}})

    async def _advance(self, seconds: float) -> None:
        """Advance the clock from one due time to the next, so that retries come one after another, not all at once."""
        target = self.clock.offset + seconds
        await self._settle()
        while True:
            due = await asyncio.to_thread(self.database.call, sandbox_clock.seconds_until_due)
            if due is None or self.clock.offset + due >= target:
                break
            self.clock.offset += max(due, 0.0) + 0.001
            await self._settle()
        self.clock.offset = target
        await self._settle()
        await asyncio.to_thread(self._prune)

    def _prune(self) -> None:
        from product_gateway.merchants import administration  # imported here for a faster start

        administration.prune(self.settings, self.database)
        while self.database.call(generations.prune, self.settings.catalog_history_days, VERSIONS_AT_ONCE):
            pass

    async def _settle(self) -> None:
        """Do what is due now, and wait for it."""
        while await asyncio.to_thread(self.database.call, freshness.mark, CATALOGS_AT_ONCE):
            pass
        if self.deliver is not None:
            await self.deliver()


async def _seconds(request: Request) -> float:
    """Return the seconds that the body asks for. Raise InvalidRequest."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise InvalidRequest(USAGE)
    try:
        wanted = keys.lifetime(orjson.loads(content)["advance"])
    except (ValueError, KeyError, TypeError, SettingsError):
        raise InvalidRequest(USAGE) from None
    if wanted > LONGEST:
        raise InvalidRequest(USAGE)
    return wanted.total_seconds()
