"""Connexion's routing with one trie of paths and a complete Allow header."""

import re
from typing import Any
from urllib.parse import unquote

from connexion.middleware.routing import RoutingAPI, RoutingMiddleware, RoutingOperation
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.errors import InvalidRequest
from product_gateway.openapi.router import PathTrie
from product_gateway.telemetry.logs import bind


class PathsAPI(RoutingAPI):  # type: ignore[misc]  # Connexion has no types
    """Connexion's routing by a trie, not one regular expression after another; no redirects for a trailing slash."""

    def __init__(self, specification: Any, *, next_app: ASGIApp, **kwargs: Any) -> None:
        self._paths: PathTrie[dict[str, RoutingOperation]] = PathTrie()
        self._default = RoutingOperation(None, next_app)
        super().__init__(specification, next_app=next_app, **kwargs)

    def _add_operation_internal(
        self, method: str, path: str, operation: RoutingOperation, name: str | None = None
    ) -> None:
        path = re.sub(r":\w+}", "}", path)  # Connexion's converters; validation reports wrong values
        by_method = self._paths.setdefault(path, {})
        by_method[method.upper()] = operation
        if method == "get":
            by_method["HEAD"] = operation  # RFC 9110 §9.3.2

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the operation of path and method, or the default if no path matches. Raise HTTPException 405."""
        operation = self._default
        if found := self._paths.find(scope["path"]):
            by_method, values = found
            if scope["method"] not in by_method:
                allow = ", ".join(sorted(by_method))  # complete (RFC 9110 §10.2.1)
                said = f"This path answers to {allow}; not to {scope['method'][:32]}."
                raise HTTPException(405, said, {"Allow": allow})
            operation = by_method[scope["method"]]
            bind(operation=operation.operation_id)
            scope["path_params"] = {name: _decoded(value) for name, value in values.items()}
        # As in RoutingOperation.__call__, without its copy of the scope, which only a Starlette mount needs.
        routing = {"api_base_path": "", "operation_id": operation.operation_id}
        scope.setdefault("extensions", {})["connexion_routing"] = routing
        await operation.next_app(scope, receive, send)


class Routing(RoutingMiddleware):  # type: ignore[misc]
    """Connexion's routing by the raw path, so that an id may contain an encoded slash (RFC 3986 §2.2)."""

    def add_api(self, specification: Any, **kwargs: Any) -> None:
        """Override: use the router of the one API directly, without a mount."""
        self.router = PathsAPI(specification, next_app=self.app, **kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raise InvalidRequest if the path is not UTF-8."""
        raw: bytes = scope.get("raw_path") or b""
        if b"%" in raw:
            scope = {**scope, "path": _encoded(raw)}
        elif "%" in scope.get("path", ""):
            scope = {**scope, "path": _encoded(scope["path"].encode())}
        await (self.router if scope["type"] == "http" else self.app)(scope, receive, send)


def _encoded(raw: bytes) -> str:
    """Decode the path. Slashes and percent signs inside segments stay encoded, for `_decoded`."""
    try:
        segments = [unquote(segment, errors="strict") for segment in raw.decode("ascii").split("/")]
    except UnicodeDecodeError:
        raise InvalidRequest("The path is not percent-encoded UTF-8.") from None
    return "/".join(segment.replace("%", "%25").replace("/", "%2F") for segment in segments)


def _decoded(segment: str) -> str:
    return segment.replace("%2F", "/").replace("%25", "%") if "%" in segment else segment
