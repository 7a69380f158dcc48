"""All connections of one HTTP server: how many there may be, how long each may take, and what is said to the others."""

import asyncio
import logging
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any, cast

import orjson
from uuid_utils import uuid7
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from product_gateway.http.limits import Limits, MalformedRequest
from product_gateway.http.middleware.request_context import SAFE
from product_gateway.http.protocol import HTTPProtocol
from product_gateway.http.responses import Response
from product_gateway.http.unsent import UnsentBytes

logger = logging.getLogger(__name__)

SECONDS_UNTIL_THERE_IS_ROOM = 1
MOST_TURNED_AWAY_AT_ONCE = 64  # that are still there to hear it
LATE_SECONDS = 1

ErrorAnswer = Callable[[HTTPStatus, str, dict[str, str]], Response[Any]]
"""Status, detail, headers -> the answer with the server's error body."""


class ConnectionSupervisor:
    """Makes the protocol of each connection: what uvicorn.Config takes as `http`.

    There are no timers of requests: every second all deadlines are looked at, which costs a request nothing.
    """

    def __init__(self, error_answer: ErrorAnswer, limits: Limits) -> None:
        self.limits = limits
        self.now = 0.0
        self.unsent = UnsentBytes(limits.unsent_bytes)
        self._error_answer = error_answer
        self._interval = min(1.0, limits.header_timeout / 4, limits.body_timeout / 4, limits.lingering_timeout / 2)
        self._server_state = ServerState()
        self._due = 0.0  # when we look at them again
        self._planned = self._asked = False
        self._turned_away: set[asyncio.Transport] = set()
        self._turned_away_since = 0

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.Protocol:
        """Called by uvicorn for each connection."""
        loop = _loop or asyncio.get_running_loop()
        self._server_state = server_state
        self._asked = True  # before long there is one more connection to look at
        if not self._planned:
            self._plan(loop)
        if len(server_state.connections) >= self.limits.connections:
            self._turned_away_since += 1
            return OverCapacityProtocol(self._turned_away, self._full(), self.limits.lingering_timeout)
        return HTTPProtocol(config, server_state, app_state, loop, self)

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        time = loop.time()
        self.now = time + self._interval  # reckoned from here, no deadline is early
        self._due = time + self._interval
        self._planned = True
        loop.call_at(self._due, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        time = loop.time()
        # Where we are late ourselves, what has arrived meanwhile is read first.
        if time - self._due < LATE_SECONDS:
            for each in [each for each in self._connections() if each.deadline <= time]:
                each.expire()
        if self._turned_away_since:
            logger.warning(
                "%d connections were turned away, as %d were open.", self._turned_away_since, self.limits.connections
            )
            self._turned_away_since = 0
        self._planned = False
        if self._asked or self._server_state.connections:
            self._asked = False
            self._plan(loop)

    def _connections(self) -> Collection[HTTPProtocol]:
        return self._server_state.connections  # type: ignore[return-value]  # nobody else makes any

    def refusal(self, refused: MalformedRequest, client: str, *, with_body: bool) -> bytes:
        """A whole answer, the connection's last; logged by its X-Request-Id."""
        request_id = str(uuid7())
        extra = {"request_id": request_id, "status": refused.status.value, "client": client}
        logger.info("refused: %s", refused.detail, extra=extra)
        return self._last_answer(refused.status, refused.detail, {}, request_id, with_body=with_body)

    def _full(self) -> bytes:
        detail = "The gateway has more connections than it can serve at the moment."
        headers = {"Retry-After": str(SECONDS_UNTIL_THERE_IS_ROOM)}
        return self._last_answer(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers, str(uuid7()), with_body=True)

    def _last_answer(
        self, status: HTTPStatus, detail: str, headers: dict[str, str], request_id: str, *, with_body: bool
    ) -> bytes:
        answer = self._error_answer(status, detail, headers)
        body = orjson.dumps(answer.body)
        lines = [
            *self._server_state.default_headers,
            (b"content-type", answer.media_type.encode()),
            (b"content-length", b"%d" % len(body)),
            *((name.lower().encode(), value.encode()) for name, value in answer.headers.items()),
            (b"x-request-id", request_id.encode()),
            *SAFE,
            (b"connection", b"close"),
        ]
        head = b"".join(b"%b: %b\r\n" % line for line in lines)
        return STATUS_LINE[status.value] + head + b"\r\n" + (body if with_body else b"")


class OverCapacityProtocol(asyncio.Protocol):
    """A connection for which there is no room: it is told so, and closed without a parser."""

    def __init__(self, there: set[asyncio.Transport], words: bytes, seconds: float) -> None:
        self._there = there
        self._words = words
        self._seconds = seconds
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says it, and leaves the client a moment to hear it: closed at once, its request would drown the answer."""
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.write(self._words)
        if len(self._there) >= MOST_TURNED_AWAY_AT_ONCE:
            transport.close()
            return
        self._there.add(transport)
        transport.write_eof()
        asyncio.get_running_loop().call_later(self._seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Nobody listens."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Makes room for the next one to be told."""
        if self._transport is not None:
            self._there.discard(self._transport)
