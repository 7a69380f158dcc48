"""Concurrency limit: load beyond it is refused at once instead of queued."""

import asyncio
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.errors import Overloaded
from product_gateway.http.responses import LEAVE

# Clients that ask again as soon as they are refused would take up the time of those who were let in: with 200 of them
# and 8 places, 60 requests a second were served instead of 750. This is how often one connection can be refused.
SECONDS_UNTIL_REFUSED = 0.25


class ConcurrencyLimiter:
    """Lets `at_once` requests in at the same time; one more is refused soon instead of waiting behind them.

    A queue without an end makes every request late: with this one, those that are let in are answered in time. A
    request whose client wants to wait leaves: nobody works for it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        at_once: int,
        always: Collection[str] = (),
        refused: Callable[[], None] = lambda: None,
        count: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._app = app
        self._count = count
        self._at_once = at_once
        self._always = frozenset(always)
        self._refused = refused
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Paths in `always` are let in whatever happens. Raises Overloaded, and what `count` of the address raises."""
        if scope["type"] != "http" or scope["path"] in self._always:
            await self._app(scope, receive, send)
            return
        self._count(scope["client"][0] if scope.get("client") else "")
        if self._inside >= self._at_once:
            self._refused()
            await asyncio.sleep(SECONDS_UNTIL_REFUSED)
            raise Overloaded
        self._inside += 1
        is_inside = True

        def leave() -> None:
            nonlocal is_inside
            self._inside -= is_inside
            is_inside = False

        scope[LEAVE] = leave
        try:
            await self._app(scope, receive, send)
        except Overloaded:
            self._refused()
            raise
        finally:
            leave()
