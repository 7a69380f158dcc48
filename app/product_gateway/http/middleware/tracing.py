"""Tracing middleware: one span for each request."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.http.context import request_context
from product_gateway.http.middleware.request_context import logged_path
from product_gateway.telemetry import tracing


class TracingMiddleware:
    """Records a span of each request except those to `untraced` paths. Place it inside RequestContextMiddleware."""

    def __init__(self, app: ASGIApp, *, untraced: Collection[str]) -> None:
        self._app = app
        self._untraced = frozenset(untraced)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._untraced:
            await self._app(scope, receive, send)
            return
        with tracing.request(scope["method"], scope["scheme"], logged_path(scope), scope["headers"]):
            try:
                await self._app(scope, receive, send)
            finally:
                tracing.answered(request_context(scope).status)
