"""CORS: which origins' pages may read responses in a browser (Fetch standard, fetch.spec.whatwg.org)."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.http.context import request_context

# All that clients use, besides those that the Fetch standard lets every page send and read.
ALLOWED_HEADERS = ("Authorization", "Idempotency-Key", "If-None-Match", "Prefer", "X-Request-Id")
EXPOSED_HEADERS = (
    *("Location", "Retry-After", "Link", "Preference-Applied", "X-Request-Id", "WWW-Authenticate"),
    *("ETag", "Allow"),
)


class StrictCORSMiddleware(CORSMiddleware):
    """Starlette's CORS, which tells other origins nothing: an OPTIONS of theirs is a method that the path lacks.

    Place it inside RequestContextMiddleware. Cookies are never allowed.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str], methods: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=methods,
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self.is_allowed_origin(headers.get("origin", "")):
            await self.simple_response(scope, receive, send, Headers())  # adds Vary alone
        elif scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            # 204 also where Starlette says 400: the browser compares, and its console names what is not allowed.
            allowed = self.preflight_response(headers).headers
            del allowed["content-length"], allowed["content-type"]
            response = Response(status_code=204, headers=allowed)
            response.raw_headers.extend(request_context(scope).headers)
            await response(scope, receive, send)
        else:
            await self.simple_response(scope, receive, send, headers)
