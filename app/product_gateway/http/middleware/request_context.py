"""Request context middleware: request id, security headers, metrics and access log of every request."""

import logging
import re
import time
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from product_gateway.http.context import request_context
from product_gateway.telemetry import logs

logger = logging.getLogger("product_gateway.access")

# The client's request id, where it is safe to repeat.
REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=-]{1,128}")
# Browsers must not guess a media type, and caches must not keep a merchant's data (RFC 9111 §5.2.2.5).
SAFE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
Answered = Callable[[str, int, float], None]  # with operation id ("" if there is none), status and seconds


class RequestContextMiddleware:
    """Names each request (`X-Request-Id`) in its response and in the log, and reports its status and time.

    `answered` is called after each response. Requests of `quiet` operations are logged only when the status is not 200.
    """

    def __init__(self, app: ASGIApp, *, answered: Answered, access_log: bool, quiet: Collection[str] = ()) -> None:
        self._app = app
        self._answered = answered
        self._access_log = access_log
        self._quiet = frozenset(quiet)
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if REQUEST_ID.fullmatch(given) else str(uuid7())
        logs.clear()  # a pipelined request begins in the context of the one before it
        logs.bind(request_id=request_id)
        context = request_context(scope)
        context.headers = [(b"x-request-id", request_id.encode()), *SAFE]
        self.in_flight += 1

        async def send_and_note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_status)
        finally:
            self.in_flight -= 1
            seconds = time.perf_counter() - started
            operation = str(logs.context().get("operation", ""))
            self._answered(operation, context.status, seconds - context.waited)
            if self._access_log and not (context.status == 200 and operation in self._quiet):
                extra = {
                    "method": scope["method"],
                    "path": logged_path(scope),  # without the query, which may hold personal data
                    "status": context.status,
                    "ms": round(seconds * 1000, 1),
                    "client": scope["client"][0] if scope.get("client") else "",
                }
                logger.info("answered", extra=extra)


def logged_path(scope: Scope) -> str:
    """Return the path as the client sent it, without a token that it may contain by mistake."""
    return logs.redact((scope.get("raw_path") or scope["path"].encode()).decode("latin-1"))[:200]
