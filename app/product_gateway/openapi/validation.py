"""Connexion's request validation with validators that are compiled once, at the start."""

from typing import Any

from connexion.middleware.request_validation import (
    RequestValidationAPI,
    RequestValidationMiddleware,
    RequestValidationOperation,
)
from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.http.context import request_context
from product_gateway.openapi.parameters import Parameters


class CompiledOperation(RequestValidationOperation):  # type: ignore[misc]
    """Validation of the requests of one operation."""

    def __init__(self, next_app: ASGIApp, **kwargs: Any) -> None:
        super().__init__(next_app, **kwargs)
        self._compiled = Parameters(self._operation.parameters)
        if self._operation.request_body:
            raise NotImplementedError("request bodies: no operation has one yet")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Store the operation's arguments in the request context. Raise InvalidRequest."""
        arguments = self._compiled.parse(scope["path_params"], scope["query_string"], scope["headers"])
        request_context(scope).arguments = arguments
        await self.next_app(scope, receive, send)


class CompiledValidationAPI(RequestValidationAPI):  # type: ignore[misc]
    """A RequestValidationAPI of compiled operations."""

    def make_operation(self, operation: Any) -> CompiledOperation:
        """Override: Connexion calls this for each operation of the spec."""
        return CompiledOperation(self.next_app, operation=operation)


class RequestValidation(RequestValidationMiddleware):  # type: ignore[misc]
    """Connexion's request validation over compiled operations."""

    api_cls = CompiledValidationAPI
