"""Connexion's security: authentication by the spec's security schemes."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from connexion.middleware.security import SecurityAPI, SecurityMiddleware, SecurityOperation
from connexion.security import NO_VALUE, AbstractSecurityHandler
from starlette.types import Receive, Scope, Send

from product_gateway.errors import NotAuthenticated
from product_gateway.http.context import header_values
from product_gateway.openapi import documents

Authenticate = Callable[[Scope, documents.Document], Awaitable[Any]]
"""Return the caller for a request and an operation object. Raise NotAuthenticated or NotAllowed."""


class _SecurityRequest:
    """A cheap replacement of Connexion's request object, with what the security handlers below read."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.context: dict[str, Any] = scope["extensions"].setdefault("connexion_context", {})


class SecuredOperation(SecurityOperation):  # type: ignore[misc]
    """Authentication of the requests of one operation."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Put the caller into the scope. Raise what the security handler raises."""
        if self.security:
            await self.verification_fn(_SecurityRequest(scope))
        await self.next_app(scope, receive, send)


class SecuredAPI(SecurityAPI):  # type: ignore[misc]
    """A SecurityAPI of secured operations."""

    def make_operation(self, operation: Any) -> SecuredOperation:
        """Override: Connexion calls this for each operation of the spec."""
        return SecuredOperation.from_operation(  # type: ignore[no-any-return]
            operation, next_app=self.next_app, security_handler_factory=self.security_handler_factory
        )


class Security(SecurityMiddleware):  # type: ignore[misc]
    """Connexion's security middleware over secured operations."""

    api_cls = SecuredAPI


class Authenticator(AbstractSecurityHandler):  # type: ignore[misc]
    """The handler of all security schemes: passes the request to `authenticate`."""

    def __init__(self, authenticate: Authenticate, operations: dict[str, documents.Document]) -> None:
        self._authenticate = authenticate
        self._operations = operations

    def get_fn(self, security_scheme: documents.Document, required_scopes: Sequence[str]) -> Callable[..., Any]:
        """Override: Connexion calls this for each operation and scheme. One of them is enough."""
        return self._verify if security_scheme["type"] == "http" else lambda _: NO_VALUE

    async def _verify(self, request: Any) -> dict[str, Any]:
        operation_id = request.scope["extensions"]["connexion_routing"]["operation_id"]
        return {"caller": await self._authenticate(request.scope, self._operations[operation_id])}


def by_bearer_token(authenticate: Callable[[str, documents.Document], Awaitable[Any]]) -> Authenticate:
    """Return `authenticate` for the bearer token of a request (RFC 6750)."""

    async def authenticate_request(scope: Scope, operation: documents.Document) -> Any:
        return await authenticate(bearer_token(scope), operation)

    return authenticate_request


def bearer_token(scope: Scope) -> str:
    """Return the token of the Authorization header. Raise NotAuthenticated."""
    values = header_values(scope, b"authorization")
    if not values:
        raise NotAuthenticated("A bearer token is needed: Authorization: Bearer …", presented=False)
    if len(values) > 1:
        raise NotAuthenticated("The request has more than one Authorization header.")
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated("The Authorization header is not of the form: Bearer …", presented=False)
    return token.strip()
