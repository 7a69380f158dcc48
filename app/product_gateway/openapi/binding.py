"""Binding of a spec's operations to handlers: one ASGI application around Connexion's pipeline.

A handler is an `async def` method named after the operationId, in snake_case. If spec and handlers do not fit, the
start fails with a message that contains the source of the missing handlers.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from connexion import ConnexionMiddleware
from connexion.decorators.parameter import pythonic
from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.response_validation import ResponseValidationMiddleware
from connexion.options import SwaggerUIOptions
from connexion.resolver import Resolver
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from product_gateway.errors import SettingsError
from product_gateway.http.context import request_context
from product_gateway.http.limits import LARGEST_BODY_BYTES
from product_gateway.http.responses import DeferredResponse, EventStream, Response
from product_gateway.openapi import documents
from product_gateway.openapi.parameters import RequestValidation
from product_gateway.openapi.routing import Routing
from product_gateway.openapi.scaffold import skeletons
from product_gateway.openapi.security import Authenticate, Authenticator, Security

Handler = Callable[..., Awaitable[Response[Any] | DeferredResponse[Any]]]


async def _identity(caller: Any) -> Any:
    return caller


def bind(
    document: documents.Document,
    *handlers: object,
    authenticate: Authenticate | None = None,
    describe_error: Callable[[Exception], Response[Any]],
    authorize: Callable[[Any], Awaitable[Any]] = _identity,
    middleware: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    lifespan: Callable[[Any], AbstractAsyncContextManager[None]] = lambda _: nullcontext(),
    validate_responses: bool = False,
) -> ASGIApp:
    """Return the application that serves the operations of `document`.

    Secured operations: `authenticate` returns the caller, before the parameters are validated. `authorize` then turns
    the caller into the handler's first argument. `describe_error` maps exceptions to responses, also those of
    `middleware`, which wraps the pipeline. Raise SettingsError if spec and handlers do not fit, or no function
    authenticates.
    """
    operations = {each["operationId"]: each for _, _, each in documents.operations(document)}
    methods = _methods(document, handlers)
    endpoints = {
        operation_id: _Endpoint(methods[operation_id], authorize if documents.is_secured(document, each) else None)
        for operation_id, each in operations.items()
    }
    secured = any(documents.is_secured(document, each) for each in operations.values())
    if secured and authenticate is None:
        raise SettingsError("The spec has operations that need a token. Pass authenticate.")
    authenticator = authenticate and Authenticator(authenticate, operations)
    app = ConnexionMiddleware(
        Dispatch(endpoints),
        middlewares=[
            lambda app: Errors(app, describe_error),
            middleware,
            Routing,
            Security,
            RequestValidation,
            *([ResponseValidationMiddleware] if validate_responses else []),
            LifespanMiddleware,
        ],
        lifespan=lifespan,
        security_map=dict.fromkeys(("bearer", "apiKey"), lambda: authenticator) if authenticator else {},
        resolver=Resolver(methods.__getitem__),
        validate_responses=validate_responses,
        swagger_ui_options=SwaggerUIOptions(serve_spec=False, swagger_ui=False),
    )
    app.add_api(document if validate_responses else documents.without_responses(document))
    # Connexion would build the stack at the first request; an invalid spec must fail the start instead.
    app.app, app.middleware_stack = app._build_middleware_stack()
    return app  # type: ignore[no-any-return]


def _methods(document: documents.Document, handlers: Sequence[object]) -> dict[str, Handler]:
    """Return the handler of each operationId. Raise SettingsError unless names and parameters fit the spec."""
    found: dict[str, Handler] = {}
    for owner in handlers:
        # Static: this must not compute the owner's cached properties, such as the compressed pages.
        for name, _ in inspect.getmembers_static(owner, inspect.iscoroutinefunction):
            method = getattr(owner, name)
            if name in found:
                raise SettingsError(
                    f"{_label(found[name], name)} and {_label(method, name)} handle the same operation."
                )
            if not name.startswith("_"):
                found[name] = method
    ids = [operation["operationId"] for _, _, operation in documents.operations(document)]
    unknown = sorted(found.keys() - {pythonic(each) for each in ids})
    if unknown:
        labels = ", ".join(_label(found[name], name) for name in unknown)
        raise SettingsError(f"Handlers without an operation in the spec: {labels}")
    if missing := [each for each in ids if pythonic(each) not in found]:
        owners = ", ".join(type(each).__name__ for each in handlers)
        raise SettingsError(
            f"The spec has operations without a handler. Paste into {owners}:\n\n{skeletons(document, missing)}"
        )
    for path, verb, operation in documents.operations(document):
        name = pythonic(operation["operationId"])
        names = {pythonic(each["name"]) for each in documents.parameters(document, path, operation)}
        secured = documents.is_secured(document, operation)
        signature = list(inspect.signature(found[name]).parameters)
        if set(signature[secured:]) != names or (secured and not signature):
            raise SettingsError(
                f"{_label(found[name], name)} does not take the parameters of {verb.upper()} {path}. "
                f"Its skeleton:\n\n{skeletons(document, [operation['operationId']])}"
            )
    return {each: found[pythonic(each)] for each in ids}


def _label(handler: Any, name: str) -> str:
    return f"{type(handler.__self__).__name__}.{name}"


class _Endpoint:
    """A handler that converts its arguments to the types of its annotations."""

    def __init__(self, handler: Handler, authorize: Callable[[Any], Awaitable[Any]] | None) -> None:
        self._handler = handler
        self._authorize = authorize
        hints = get_type_hints(handler)
        names = list(inspect.signature(handler).parameters)[1 if authorize else 0 :]
        found = [(name, _converter(hints[name])) for name in names]
        self._convert = [(name, convert) for name, convert in found if convert is not None]

    async def __call__(self, scope: Scope) -> Response[Any] | DeferredResponse[Any]:
        arguments = request_context(scope).arguments
        for name, convert in self._convert:
            if arguments[name] is not None:
                arguments[name] = convert(arguments[name])
        if self._authorize is None:
            return await self._handler(**arguments)
        caller = scope["extensions"]["connexion_context"]["token_info"]["caller"]
        return await self._handler(await self._authorize(caller), **arguments)


def _converter(hint: Any) -> Callable[[Any], Any] | None:
    """Return the type that converts a str (an enum, UUID), None if the annotation is a plain type."""
    kinds = [each for each in get_args(hint) if each is not NoneType] if isinstance(hint, UnionType) else [hint]
    plain = len(kinds) != 1 or not isinstance(kinds[0], type) or kinds[0] in (str, int, float, bool)
    return None if plain else kinds[0]


class Dispatch:
    """The innermost application: calls the handler of the operation and sends its response."""

    def __init__(self, endpoints: Mapping[str, _Endpoint]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raise HTTPException 404 if no operation has the path."""
        endpoint = self._endpoints.get(scope["extensions"]["connexion_routing"]["operation_id"])
        if endpoint is None:
            raise HTTPException(404, "There is nothing at this path.")
        response: Response[Any] | DeferredResponse[Any] | None = await endpoint(scope)
        if isinstance(response, DeferredResponse):
            response = await response.resolve(scope)
        if isinstance(response, EventStream):
            await response.send_until_disconnected(scope, receive, send)
        elif response is not None:  # None: the client has disconnected
            await response.send(scope, send)


class Errors:
    """The outermost application: maps every exception to a response."""

    def __init__(self, app: ASGIApp, describe: Callable[[Exception], Response[Any]]) -> None:
        self._app = app
        self._describe = describe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 if Content-Length exceeds the limit of all operations."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            _refuse_large_body(scope)
            await self._app(scope, receive, send_and_note)
        except Exception as error:
            if started:  # too late for another status: the server closes the connection
                raise
            await self._describe(error).send(scope, send)


def _refuse_large_body(scope: Scope) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > LARGEST_BODY_BYTES:
            raise HTTPException(413, f"A request body may have at most {LARGEST_BODY_BYTES} bytes.")
