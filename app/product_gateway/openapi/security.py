"""Connexion's security: who makes a request, as the spec's security schemes say."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from connexion.middleware.security import SecurityAPI, SecurityMiddleware, SecurityOperation
from connexion.security import NO_VALUE, AbstractSecurityHandler
from starlette.types import Receive, Scope, Send

from product_gateway.errors import NotAuthenticated
from product_gateway.openapi import documents

Authenticate = Callable[[str, documents.Document], Awaitable[Any]]
"""Bearer token and operation object -> who is asking. Raises NotAuthenticated or NotAllowed."""

AuthenticateRequest = Callable[[Scope], Awaitable[Any]]
"""A whole request -> who is asking, where there is more to look at than a token. Raises the same."""


class _SecurityRequest:
    """What is looked at to find out who is asking, in place of Connexion's request, which takes longer to make."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.context: dict[str, Any] = scope["extensions"].setdefault("connexion_context", {})


class SecuredOperation(SecurityOperation):  # type: ignore[misc]
    """Connexion's check of who is asking, as the spec has it for the operation."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leaves who it is in the scope. Raises what the check raises."""
        if self.security:
            await self.verification_fn(_SecurityRequest(scope))
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


class Bearer(AbstractSecurityHandler):  # type: ignore[misc]
    """The `bearer` scheme of the spec (RFC 6750): finds the token and asks `authenticate`."""

    def __init__(self, authenticate: Authenticate, operations: dict[str, documents.Document]) -> None:
        self._authenticate = authenticate
        self._operations = operations

    def get_fn(self, security_scheme: documents.Document, required_scopes: Sequence[str]) -> Callable[..., Any]:
        """Called by Connexion for each operation that names the scheme."""
        return self._verify

    async def _verify(self, request: Any) -> dict[str, Any]:
        values = [value for name, value in request.scope["headers"] if name == b"authorization"]
        operation_id = request.scope["extensions"]["connexion_routing"]["operation_id"]
        caller = await self._authenticate(bearer_token(values), self._operations[operation_id])
        return {"caller": caller}


class RequestAuthenticator(AbstractSecurityHandler):  # type: ignore[misc]
    """Every scheme of a spec whose requests a guard looks at: it decides about all of them at once."""

    def __init__(self, guard: AuthenticateRequest) -> None:
        self._guard = guard

    def get_fn(self, security_scheme: documents.Document, required_scopes: Sequence[str]) -> Callable[..., Any]:
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
