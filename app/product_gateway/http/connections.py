"""All connections of one HTTP server: their maximum, their deadlines, and the refusals outside the application."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import orjson
from uuid_utils import uuid7
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from product_gateway.http.limits import Limits, MalformedRequest, UnsentBytes
from product_gateway.http.middleware.request_context import SAFE
from product_gateway.http.protocol import HTTPProtocol
from product_gateway.http.responses import Response

logger = logging.getLogger(__name__)

RETRY_AFTER = 1
MOST_LINGERING = 64  # refused connections that are closed gracefully at a time
LATE_SECONDS = 1  # a later sweep expires nothing: the process itself was blocked

ErrorAnswer = Callable[[HTTPStatus, str, dict[str, str]], Response[Any]]
"""Status, detail, headers -> a response with the server's error body."""


class ConnectionSupervisor:
    """A factory of protocols (`http` of uvicorn.Config), which also supervises the deadlines of all connections.

    Once a second it checks all deadlines: a timer for each request would cost more.
    """

    def __init__(self, error_answer: ErrorAnswer, limits: Limits) -> None:
        self.limits = limits
        self.now = 0.0
        self.unsent = UnsentBytes(limits.unsent_bytes)
        self._error_answer = error_answer
        self._interval = min(1.0, limits.header_timeout / 4, limits.body_timeout / 4, limits.lingering_timeout / 2)
        self._server_state = ServerState()
        self._due = 0.0  # time of the next sweep
        self._is_planned = self._has_new = False
        self._lingering: set[OverCapacityProtocol] = set()
        self._refused = 0  # since the last sweep

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.Protocol:
        loop = _loop or asyncio.get_running_loop()
        self._server_state = server_state
        self._has_new = True  # not in `connections` yet
        if not self._is_planned:
            self._plan(loop)
        if len(server_state.connections) >= self.limits.connections:
            self._refused += 1
            detail = "The gateway has more connections than it can serve at the moment."
            headers = {"Retry-After": str(RETRY_AFTER)}
            full = self._last_answer(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers, str(uuid7()), with_body=True)
            return OverCapacityProtocol(self._lingering, full, self.limits.lingering_timeout)
        return HTTPProtocol(config, server_state, app_state, loop, self)

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        time = loop.time()
        self.now = time + self._interval  # ahead of time, so that no deadline is too early
        self._due = time + self._interval
        self._is_planned = True
        loop.call_at(self._due, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        time = loop.time()
        if time - self._due < LATE_SECONDS:
            connections = cast(set[HTTPProtocol], self._server_state.connections)  # __call__ makes them all
            for each in [each for each in connections if each.deadline <= time]:
                each.expire()
        if self._refused:
            logger.warning("%d connections were refused, because %d were open.", self._refused, self.limits.connections)
            self._refused = 0
        self._is_planned = False
        if self._has_new or self._server_state.connections:
            self._has_new = False
            self._plan(loop)

    def refusal(self, refused: MalformedRequest, client: str, *, with_body: bool) -> bytes:
        """Return a whole response with `Connection: close`, and log it under its X-Request-Id."""
        request_id = str(uuid7())
        extra = {"request_id": request_id, "status": refused.status.value, "client": client}
        logger.info("refused: %s", refused.detail, extra=extra)
        return self._last_answer(refused.status, refused.detail, {}, request_id, with_body=with_body)

    def _last_answer(
        self, status: HTTPStatus, detail: str, headers: dict[str, str], request_id: str, *, with_body: bool
    ) -> bytes:
        response = self._error_answer(status, detail, headers)
        body = orjson.dumps(response.body)
        lines = [
            *self._server_state.default_headers,
            (b"content-type", response.media_type.encode()),
            (b"content-length", b"%d" % len(body)),
            *((name.lower().encode(), value.encode()) for name, value in response.headers.items()),
            (b"x-request-id", request_id.encode()),
            *SAFE,
            (b"connection", b"close"),
        ]
        head = b"".join(b"%b: %b\r\n" % line for line in lines)
        return STATUS_LINE[status.value] + head + b"\r\n" + (body if with_body else b"")


@dataclass(eq=False)
class OverCapacityProtocol(asyncio.Protocol):
    """A connection beyond the maximum: it gets a 503 without a parser, and is closed."""

    lingering: set["OverCapacityProtocol"]
    response: bytes
    seconds: float

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer and linger: after an immediate close, the unread request would reset the connection."""
        transport = cast(asyncio.Transport, transport)
        transport.write(self.response)
        if len(self.lingering) >= MOST_LINGERING:
            transport.close()
            return
        self.lingering.add(self)
        transport.write_eof()
        asyncio.get_running_loop().call_later(self.seconds, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lingering.discard(self)
