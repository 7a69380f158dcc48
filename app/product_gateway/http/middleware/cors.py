"""Which origins' pages may read the answers in a browser: CORS, by the Fetch standard (fetch.spec.whatwg.org)."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.http.responses import STAMP

SENT = ("Authorization", "Idempotency-Key", "Prefer", "X-Request-Id")
READ = ("Location", "Retry-After", "Link", "Preference-Applied", "X-Request-Id", "WWW-Authenticate")
SECONDS_TO_REMEMBER = 600
NOBODY = Headers()


class Cors(CORSMiddleware):
    """Answers the preflights of `origins` and lets their pages read every answer, refusals too; never with cookies.

    To everybody else it adds nothing but `Vary`: their OPTIONS is a method that the path does not have.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str], methods: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=methods,
            allow_headers=SENT,
            expose_headers=READ,
            max_age=SECONDS_TO_REMEMBER,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stands inside of Edge: a preflight's answer gets the stamp of all answers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self.is_allowed_origin(headers.get("origin", "")):
            await self.simple_response(scope, receive, send, NOBODY)
        elif scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            # What is allowed, whatever is asked for: the browser compares, and tells its developer what is missing.
            allowed = self.preflight_response(headers).headers
            del allowed["content-length"], allowed["content-type"]  # of Starlette's own body, "OK", which 204 has not
            response = Response(status_code=204, headers=allowed)
            response.raw_headers.extend(scope.get(STAMP, ()))
            await response(scope, receive, send)
        else:
            await self.simple_response(scope, receive, send, headers)
