"""Concurrency limit: load beyond it is refused at once instead of queued."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.errors import Overloaded
from product_gateway.http.context import request_context

# A delay before each refusal: without it, 200 clients that retry at once left 60 requests per second of 750.
REFUSAL_DELAY = 0.25  # seconds


@dataclass(eq=False)
class ConcurrencyLimiter:
    """A limit of `at_once` concurrent requests (load shedding): one more is refused instead of queued.

    An unbounded queue would make every request late. A long poll and a response being sent release their slot.
    Paths in `always` have no limit. `count` gets the address of each request and may raise RateLimited.
    """

    app: ASGIApp
    at_once: int
    always: Collection[str] = ()
    refused: Callable[[], None] = lambda: None
    count: Callable[[str], None] = lambda _: None
    _running: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.always:
            await self.app(scope, receive, send)
            return
        self.count(scope["client"][0] if scope.get("client") else "")
        if self._running >= self.at_once:
            self.refused()
            await asyncio.sleep(REFUSAL_DELAY)
            raise Overloaded
        self._running += 1
        holds_slot = True

        def release() -> None:
            nonlocal holds_slot
            self._running -= holds_slot
            holds_slot = False

        request_context(scope).release_slot = release
        try:
            await self.app(scope, receive, send)
        except Overloaded:
            self.refused()
            raise
        finally:
            release()
