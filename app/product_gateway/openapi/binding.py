"""Binds the operations of a spec to handlers, through Connexion's pipeline, as one ASGI application.

A handler is an `async def` method with the operationId's name in snake_case. A spec and handlers that do
not fit each other stop the start, with the missing handlers written out.
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
from product_gateway.http.limits import LARGEST_BODY_BYTES
from product_gateway.http.responses import DeferredResponse, EventStream, Response
from product_gateway.openapi import documents
from product_gateway.openapi.routing import Routing
from product_gateway.openapi.scaffold import skeletons
from product_gateway.openapi.security import Authenticate, AuthenticateRequest, Bearer, RequestAuthenticator, Security
from product_gateway.openapi.validation import ARGUMENTS, RequestValidation

Handler = Callable[..., Awaitable[Response[Any] | DeferredResponse[Any]]]


async def _identity(caller: Any) -> Any:
    return caller


def bind(
    document: documents.Document,
    *handlers: object,
    authenticate: Authenticate | None = None,
    guard: AuthenticateRequest | None = None,
    describe_error: Callable[[Exception], Response[Any]],
    admit: Callable[[Any], Awaitable[Any]] = _identity,
    gate: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    lifespan: Callable[[Any], AbstractAsyncContextManager[None]] = lambda _: nullcontext(),
    validate_responses: bool = False,
) -> ASGIApp:
    """The application that answers the operations of `document`.

    Where an operation has security, `authenticate` (token, operation) says who is asking before the parameters
    are checked, and `admit` turns that into the handler's first argument after they are; or `guard`, which sees the
    whole request, does both. `describe_error` is the
    one table from error to HTTP answer. `gate` is an application around the rest, whose errors become answers too.
    Raises SettingsError where spec and handlers do not fit, and where security has nobody to `authenticate`.
    """
    operations = {each["operationId"]: each for _, _, each in documents.operations(document)}
    methods = _methods(document, handlers)
    calls = {
        operation_id: _Endpoint(methods[operation_id], admit if documents.is_secured(document, each) else None)
        for operation_id, each in operations.items()
    }
    secured = any(documents.is_secured(document, each) for each in operations.values())
    if secured and authenticate is None and guard is None:
        raise SettingsError("The spec has operations that need a token, and nothing that checks it.")
    security = {}
    if authenticate:
        bearer = Bearer(authenticate, operations)
        security = {"bearer": lambda: bearer}
    elif guard:
        guarded = RequestAuthenticator(guard)
        security = {"bearer": lambda: guarded, "apiKey": lambda: guarded}
    app = ConnexionMiddleware(
        Dispatch(calls),
        middlewares=[
            lambda app: Errors(app, describe_error),
            gate,
            Routing,
            Security,
            RequestValidation,
            *([ResponseValidationMiddleware] if validate_responses else []),
            LifespanMiddleware,
        ],
        lifespan=lifespan,
        security_map=security,
        resolver=Resolver(methods.__getitem__),
        validate_responses=validate_responses,
        swagger_ui_options=SwaggerUIOptions(serve_spec=False, swagger_ui=False),
    )
    app.add_api(document if validate_responses else documents.without_responses(document))
    # A fault of the spec must show now, not at the first request.
    app.app, app.middleware_stack = app._build_middleware_stack()
    return app  # type: ignore[no-any-return]


def _methods(document: documents.Document, handlers: Sequence[object]) -> dict[str, Handler]:
    """Return the handler of each operationId. Raise SettingsError unless names and parameters fit the spec."""
    found: dict[str, Handler] = {}
    for owner in handlers:
        for name, method in inspect.getmembers(owner, inspect.iscoroutinefunction):
            if name in found:
                raise SettingsError(f"{_label(found[name], name)} and {_label(method, name)} handle the same operation.")
            if not name.startswith("_"):
                found[name] = method
    wanted = {pythonic(operation["operationId"]) for _, _, operation in documents.operations(document)}
    if extra := [_label(method, name) for name, method in sorted(found.items()) if name not in wanted]:
        raise SettingsError(f"Handlers without an operation in the spec: {', '.join(extra)}")
    ids = [operation["operationId"] for _, _, operation in documents.operations(document)]
    if missing := [each for each in ids if pythonic(each) not in found]:
        owners = ", ".join(type(each).__name__ for each in handlers)
        raise SettingsError(
            f"The spec has operations without a handler. Paste into {owners}:\n\n{skeletons(document, missing)}"
        )
    methods = {each: found[pythonic(each)] for each in ids}
    for path, verb, operation in documents.operations(document):
        method = methods[operation["operationId"]]
        parameters = [*document["paths"][path].get("parameters", []), *operation.get("parameters", [])]
        names = {pythonic(documents.resolve(document, parameter)["name"]) for parameter in parameters}
        secured = documents.is_secured(document, operation)
        signature = list(inspect.signature(method).parameters)
        if set(signature[secured:]) != names or (secured and not signature):
            raise SettingsError(
                f"{_label(method, pythonic(operation['operationId']))} does not take the parameters of {verb.upper()} {path}. "
                f"Its skeleton:\n\n{skeletons(document, [operation['operationId']])}"
            )
    return methods


def _label(handler: Any, name: str) -> str:
    return f"{type(handler.__self__).__name__}.{name}"


class _Endpoint:
    """One handler with the conversion of its arguments, as its annotations ask for it."""

    def __init__(self, handler: Handler, admit: Callable[[Any], Awaitable[Any]] | None) -> None:
        self._handler = handler
        self._admit = admit
        hints = get_type_hints(handler)
        names = list(inspect.signature(handler).parameters)[1 if admit else 0 :]
        found = [(name, _converter(hints[name])) for name in names]
        self._convert = [(name, convert) for name, convert in found if convert is not None]

    async def __call__(self, scope: Scope) -> Response[Any] | DeferredResponse[Any]:
        arguments = scope[ARGUMENTS]
        for name, convert in self._convert:
            if arguments[name] is not None:
                arguments[name] = convert(arguments[name])
        if self._admit is None:
            return await self._handler(**arguments)
        caller = scope["extensions"]["connexion_context"]["token_info"]["caller"]
        return await self._handler(await self._admit(caller), **arguments)


def _converter(hint: Any) -> Callable[[Any], Any] | None:
    """What makes a str into what the annotation asks for (an enum, a UUID); None where it is that already."""
    kinds = [each for each in get_args(hint) if each is not NoneType] if isinstance(hint, UnionType) else [hint]
    plain = len(kinds) != 1 or not isinstance(kinds[0], type) or kinds[0] in (str, int, float, bool)
    return None if plain else kinds[0]


class Dispatch:
    """The innermost application: from operation id to handler."""

    def __init__(self, calls: Mapping[str, _Endpoint]) -> None:
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers the request. Raises HTTPException 404 where no operation has the path."""
        call = self._calls.get(scope["extensions"]["connexion_routing"]["operation_id"])
        if call is None:
            raise HTTPException(404, "There is nothing at this path.")
        answer = await call(scope)
        if isinstance(answer, DeferredResponse):
            waited_for = await answer.answer(scope)
            if waited_for is None:
                return
            answer = waited_for
        if isinstance(answer, EventStream):
            await answer.send_while_there(scope, receive, send)
        else:
            await answer.send(scope, send)


class Errors:
    """The outermost application: every exception becomes an answer, and none is lost."""

    def __init__(self, app: ASGIApp, describe: Callable[[Exception], Response[Any]]) -> None:
        self._app = app
        self._describe = describe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 413 for a body that is larger than any operation could want."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            _refuse_large_body(scope)
            await self._app(scope, receive, watched)
        except Exception as error:
            if started:  # half an answer is out: the server closes the connection
                raise
            await self._describe(error).send(scope, send)


def _refuse_large_body(scope: Scope) -> None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > LARGEST_BODY_BYTES:
            raise HTTPException(413, f"A request body may have at most {LARGEST_BODY_BYTES} bytes.")
