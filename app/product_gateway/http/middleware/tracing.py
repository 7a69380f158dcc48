"""Tracing middleware: one span for each request."""

from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from product_gateway.http.middleware.request_context import logged_path
from product_gateway.telemetry import tracing


class TracingMiddleware:
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

        with tracing.request(scope["method"], scope["scheme"], logged_path(scope), scope["headers"]):
            try:
                await self._app(scope, receive, watched)
            finally:
                tracing.answered(status)
