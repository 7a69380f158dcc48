"""Request context middleware: request id, security headers, metrics and access log of every request."""

import logging
import re
import time
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from product_gateway.http.responses import STAMP, WAITED
from product_gateway.telemetry import logs

logger = logging.getLogger("product_gateway.access")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=-]{1,128}")
# Nothing is guessed from a body, and nothing that belongs to a merchant stays in anybody's cache (RFC 9111 §5.2.2.5).
SAFE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))

Answered = Callable[[str, int, float], None]
"""Called after each answer with operation id (empty where there is none), status and seconds."""


class RequestContextMiddleware:
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
        logs.clear()  # a pipelined request begins in the context of the one before it
        logs.bind(request_id=request_id)
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
            operation = str(logs.context().get("operation", ""))
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
    extra = {
        "method": scope["method"],
        "path": logged_path(scope),
        "status": status,
        "ms": milliseconds,
        "client": client,
    }
    logger.info("answered", extra=extra)


def logged_path(scope: Scope) -> str:
    """As it was sent, which shows more than what became of it; a client may have put its token there by mistake."""
    return logs.redact((scope.get("raw_path") or scope["path"].encode()).decode("latin-1"))[:200]
