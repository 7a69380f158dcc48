"""The doors of the gateway: Edge names, stamps, counts and logs every request; Gate turns away what is too much.

Edge is the outermost application and never fails a request. Gate stands inside of what makes answers of errors.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from product_gateway import logs, tracing
from product_gateway.answers import LEAVE, STAMP, WAITED
from product_gateway.errors import Overloaded

logger = logging.getLogger("product_gateway.access")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=-]{1,128}")
# Nothing is guessed from a body, and nothing that belongs to a merchant stays in anybody's cache (RFC 9111 §5.2.2.5).
SAFE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))

# Clients that ask again as soon as they are refused would take up the time of those who were let in: with 200 of them
# and 8 places, 60 requests a second were served instead of 750. This is how often one connection can be refused.
SECONDS_UNTIL_REFUSED = 0.25

Answered = Callable[[str, int, float], None]
"""Called after each answer with operation id (empty where there is none), status and seconds."""


class Edge:
    """Gives each request a name, says it in the answer (`X-Request-Id`) and in the log, and reports how it went."""

    def __init__(self, app: ASGIApp, *, answered: Answered, access_log: bool, quiet: Collection[str] = ()) -> None:
        self._app = app
        self._answered = answered
        self._access_log = access_log
        self._quiet = frozenset(quiet)
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`quiet` operations are logged only where they do not go well."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        logs.about_nothing()  # a pipelined request begins in the context of the one before it
        logs.about(request_id=request_id)
        scope[STAMP] = [(b"x-request-id", request_id.encode()), *SAFE]
        status = 0
        waited = 0.0
        self.in_flight += 1

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        def has_waited(seconds: float) -> None:
            nonlocal waited
            waited = seconds

        scope[WAITED] = has_waited
        try:
            await self._app(scope, receive, watched)
        finally:
            self.in_flight -= 1
            seconds = time.perf_counter() - started
            operation = str(logs.what_about().get("operation", ""))
            self._answered(operation, status, seconds - waited)  # that a client wants to wait does not make us slow
            if self._access_log and not (status == 200 and operation in self._quiet):
                _log(scope, status, seconds)


def _request_id(scope: Scope) -> str:
    """The one that the request brought where it is fit to be repeated, a new one otherwise."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value.decode() if REQUEST_ID.fullmatch(value) else str(uuid7())
    return str(uuid7())


def _log(scope: Scope, status: int, seconds: float) -> None:
    client = scope["client"][0] if scope.get("client") else ""
    milliseconds = round(seconds * 1000, 1)
    # The query may hold what is nobody's business, so it is left out.
    extra = {"method": scope["method"], "path": _path(scope), "status": status, "ms": milliseconds, "client": client}
    logger.info("answered", extra=extra)


def _path(scope: Scope) -> str:
    """As it was sent, which shows more than what became of it; a client may have put its token there by mistake."""
    return logs.masked((scope.get("raw_path") or scope["path"].encode()).decode("latin-1"))[:200]


class Traced:
    """Makes a span of each request but those to `untraced` paths. Stands inside of Edge, which names the request."""

    def __init__(self, app: ASGIApp, *, untraced: Collection[str]) -> None:
        self._app = app
        self._untraced = frozenset(untraced)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever becomes of the request becomes the span's."""
        if scope["type"] != "http" or scope["path"] in self._untraced:
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with tracing.request(scope["method"], scope["scheme"], _path(scope), scope["headers"]):
            try:
                await self._app(scope, receive, watched)
            finally:
                tracing.answered(status)


class Gate:
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
