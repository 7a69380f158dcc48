"""Connexion's pipeline, tuned through its extension points: what costs time is done once, at the start.

Each class replaces one of Connexion's middlewares and keeps its place and its job:
routing, security and validation still come from the spec, operation by operation.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
from connexion.exceptions import InvalidSpecification
from connexion.middleware.request_validation import (
    RequestValidationAPI,
    RequestValidationMiddleware,
    RequestValidationOperation,
)
from connexion.middleware.routing import RoutingAPI, RoutingMiddleware, RoutingOperation
from connexion.middleware.security import SecurityAPI, SecurityMiddleware, SecurityOperation
from connexion.security import NO_VALUE, AbstractSecurityHandler
from connexion.spec import OpenAPISpecification
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway import spec
from product_gateway.errors import InvalidRequest, NotAuthenticated
from product_gateway.logs import about
from product_gateway.parameters import Parameters
from product_gateway.paths import Paths


def _validated(cls: type[OpenAPISpecification], document: spec.Document) -> None:
    """Connexion's own check takes a fifth of a second: as long as all the rest that it does with a document."""
    try:
        jsonschema_rs.Draft4Validator(cls.openapi_schema).validate(document)
    except jsonschema_rs.ValidationError as error:
        where = "/".join(str(each) for each in error.instance_path)
        raise InvalidSpecification(f"{where}: {error.message[:500]}") from None


OpenAPISpecification._validate_spec = classmethod(_validated)

ARGUMENTS = "product_gateway.arguments"

Authenticate = Callable[[str, spec.Document], Awaitable[Any]]
"""Bearer token and operation object -> who is asking. Raises NotAuthenticated or NotAllowed."""

Guard = Callable[[Scope], Awaitable[Any]]
"""A whole request -> who is asking, where there is more to look at than a token. Raises the same."""


class PathOperations:
    """All operations of one path: picks by method, and knows the whole `Allow` (RFC 9110 §10.2.1)."""

    def __init__(self) -> None:
        self._by_method: dict[str, RoutingOperation] = {}

    def add(self, method: str, operation: RoutingOperation) -> None:
        """Answers `method`, and HEAD where it is GET (RFC 9110 §9.3.2)."""
        self._by_method[method.upper()] = operation
        if method == "get":
            self._by_method["HEAD"] = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands over to the operation. Raises HTTPException 405."""
        operation = self._by_method.get(scope["method"])
        if operation is None:
            methods = sorted(self._by_method)
            allow = ", ".join(methods)
            raise HTTPException(405, f"This path answers to {allow}; not to {scope['method'][:32]}.", {"Allow": allow})
        about(operation=operation.operation_id)
        scope["path_params"] = {name: _decoded(value) for name, value in scope["path_params"].items()}
        await _go_on(operation, scope, receive, send)


async def _go_on(operation: RoutingOperation, scope: Scope, receive: Receive, send: Send) -> None:
    """As the operation itself does, but for the copy of the scope, which only a mount of Starlette's would need."""
    routing = {"api_base_path": "", "operation_id": operation.operation_id}
    scope.setdefault("extensions", {})["connexion_routing"] = routing
    await operation.next_app(scope, receive, send)


class PathRouter:
    """In the place of Starlette's router, which tries one expression after the other."""

    def __init__(self, default: RoutingOperation) -> None:
        self.paths: Paths[PathOperations] = Paths()
        self._default = default

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands over to the operations of the path."""
        found = self.paths.find(scope["path"])
        if found is None:
            await _go_on(self._default, scope, receive, send)
        else:
            operations, scope["path_params"] = found
            await operations(scope, receive, send)


class PathsAPI(RoutingAPI):  # type: ignore[misc]  # Connexion has no types
    """Connexion's routing with one place a path, and no redirects for a slash too many."""

    def __init__(self, specification: Any, *, next_app: ASGIApp, **kwargs: Any) -> None:
        self.by_path = PathRouter(RoutingOperation(None, next_app))
        super().__init__(specification, next_app=next_app, **kwargs)

    def _add_operation_internal(
        self, method: str, path: str, operation: RoutingOperation, name: str | None = None
    ) -> None:
        path = re.sub(r":\w+}", "}", path)  # what a parameter must look like is checked, and answered, later
        operations = self.by_path.paths.at(path)
        if operations is None:
            operations = PathOperations()
            self.by_path.paths.put(path, operations)
        operations.add(method, operation)


class Routing(RoutingMiddleware):  # type: ignore[misc]
    """Routes by the path as it was sent, so that an id may hold an encoded slash (RFC 3986 §2.2)."""

    def add_api(self, specification: Any, **kwargs: Any) -> None:
        """One API for the whole server: its router is used as it is, without a mount around it."""
        self.router = PathsAPI(specification, next_app=self.app, **kwargs).by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises InvalidRequest for a path that is not UTF-8."""
        raw: bytes = scope.get("raw_path") or b""
        if b"%" in raw:
            scope = {**scope, "path": _encoded(raw)}
        elif "%" in scope.get("path", ""):
            scope = {**scope, "path": _encoded(scope["path"].encode())}
        await (self.router if scope["type"] == "http" else self.app)(scope, receive, send)


def _encoded(raw: bytes) -> str:
    """The path with everything decoded but the slashes (and percent signs) inside of segments."""
    try:
        segments = [unquote(segment, errors="strict") for segment in raw.decode("ascii").split("/")]
    except UnicodeDecodeError:
        raise InvalidRequest("The path is not percent-encoded UTF-8.") from None
    return "/".join(segment.replace("%", "%25").replace("/", "%2F") for segment in segments)


def _decoded(segment: str) -> str:
    return segment.replace("%2F", "/").replace("%25", "%") if "%" in segment else segment


class _Asked:
    """What is looked at to find out who is asking, in place of Connexion's request, which takes longer to make."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.context: dict[str, Any] = scope["extensions"].setdefault("connexion_context", {})


class SecuredOperation(SecurityOperation):  # type: ignore[misc]
    """Connexion's check of who is asking, as the spec has it for the operation."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leaves who it is in the scope. Raises what the check raises."""
        if self.security:
            await self.verification_fn(_Asked(scope))
        await self.next_app(scope, receive, send)


class SecuredAPI(SecurityAPI):  # type: ignore[misc]
    """Makes a SecuredOperation of each operation."""

    def make_operation(self, operation: Any) -> SecuredOperation:
        """Called by Connexion for each operation of the spec."""
        return SecuredOperation.from_operation(  # type: ignore[no-any-return]
            operation, next_app=self.next_app, security_handler_factory=self.security_handler_factory
        )


class Security(SecurityMiddleware):  # type: ignore[misc]
    """Connexion's security over secured operations."""

    api_cls = SecuredAPI


class CompiledOperation(RequestValidationOperation):  # type: ignore[misc]
    """Connexion's check of a request, with the parameters' validators compiled once."""

    def __init__(self, next_app: ASGIApp, **kwargs: Any) -> None:
        super().__init__(next_app, **kwargs)
        self._compiled = Parameters(self._operation.parameters)
        if self._operation.request_body:
            raise NotImplementedError("request bodies: no operation has one yet")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leaves the operation's arguments in the scope. Raises InvalidRequest."""
        scope[ARGUMENTS] = self._compiled.read(scope["path_params"], scope["query_string"], scope["headers"])
        await self.next_app(scope, receive, send)


class CompiledValidationAPI(RequestValidationAPI):  # type: ignore[misc]
    """Makes a CompiledOperation of each operation."""

    def make_operation(self, operation: Any) -> CompiledOperation:
        """Called by Connexion for each operation of the spec."""
        return CompiledOperation(self.next_app, operation=operation)


class RequestValidation(RequestValidationMiddleware):  # type: ignore[misc]
    """Connexion's request validation over compiled operations."""

    api_cls = CompiledValidationAPI


class Bearer(AbstractSecurityHandler):  # type: ignore[misc]
    """The `bearer` scheme of the spec (RFC 6750): finds the token and asks `authenticate`."""

    def __init__(self, authenticate: Authenticate, operations: dict[str, spec.Document]) -> None:
        self._authenticate = authenticate
        self._operations = operations

    def get_fn(self, security_scheme: spec.Document, required_scopes: Sequence[str]) -> Callable[..., Any]:
        """Called by Connexion for each operation that names the scheme."""
        return self._verify

    async def _verify(self, request: Any) -> dict[str, Any]:
        values = [value for name, value in request.scope["headers"] if name == b"authorization"]
        operation_id = request.scope["extensions"]["connexion_routing"]["operation_id"]
        caller = await self._authenticate(bearer_token(values), self._operations[operation_id])
        return {"caller": caller}


class Guarded(AbstractSecurityHandler):  # type: ignore[misc]
    """Every scheme of a spec whose requests a guard looks at: it decides about all of them at once."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def get_fn(self, security_scheme: spec.Document, required_scopes: Sequence[str]) -> Callable[..., Any]:
        """Called by Connexion for each operation and scheme."""
        return self._verify if security_scheme["type"] == "http" else lambda _: NO_VALUE

    async def _verify(self, request: Any) -> dict[str, Any]:
        return {"caller": await self._guard(request.scope)}


def bearer_token(values: list[bytes]) -> str:
    """The token in the Authorization headers. Raises NotAuthenticated."""
    if not values:
        raise NotAuthenticated("A bearer token is needed: Authorization: Bearer …", presented=False)
    if len(values) > 1:
        raise NotAuthenticated("The request has more than one Authorization header.")
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated("The Authorization header is not of the form: Bearer …", presented=False)
    return token.strip()
