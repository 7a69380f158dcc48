"""The gateway's application, and the one table from error to HTTP answer."""

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from product_gateway import db, errors, logs, spec
from product_gateway.answers import Answer
from product_gateway.api_types import ErrorResponse
from product_gateway.binding import bind
from product_gateway.claims import Caller
from product_gateway.cors import Cors
from product_gateway.db import Database
from product_gateway.edge import Edge, Gate, Traced
from product_gateway.handlers import SYNCS, Handlers
from product_gateway.keys import verification_key
from product_gateway.metrics import ADDRESS, MERCHANT, OVERLOAD, Metrics
from product_gateway.security import Keys, OneKey, Tokens
from product_gateway.settings import OFF, Settings, listed
from product_gateway.supervisor import Supervisor
from product_gateway.waiting import MOST_WAITING, Waiting

logger = logging.getLogger(__name__)

REALM = 'Bearer realm="product-gateway"'
SECONDS_UNTIL_IT_MAY_BE_BACK = 5
SECONDS_FOR_THE_DATABASE = 1.7  # of one request: what cannot be had is answered within 2 s
SECONDS_UNTIL_THERE_IS_ROOM = 1
QUIET = ("getLiveness", "getReadiness")

Headers = dict[str, str]
Count = Callable[[str], None]


def create_app(
    settings: Settings,
    metrics: Metrics | None = None,
    supervisor: Supervisor | None = None,
    *,
    most_waiting: int = MOST_WAITING,
) -> ASGIApp:
    """The gateway as an ASGI application. Raises SettingsError; contacts nothing before it is started.

    No more than `most_waiting` clients may wait for a sync at a time, so that others find a connection that is free.
    """
    metrics = metrics or Metrics()
    supervisor = supervisor or Supervisor(metrics)
    database = db.connect(settings.database, deadline=SECONDS_FOR_THE_DATABASE, may_create=False)
    waiting = Waiting(database, most_waiting, supervisor)
    keys, let_go = _keys(settings)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await waiting.aclose()
            await let_go()
            database.close()

    document = spec.load(spec.GATEWAY)
    always = [each for each, _, operation in spec.operations(document) if operation.get("x-never-refused")]
    app = bind(
        document,
        Handlers(database, metrics, waiting, supervisor, docs=settings.docs),
        authenticate=Tokens(settings, keys).authenticate,
        admit=_admission(database, _counting(settings.rate_limit_per_merchant, MERCHANT, metrics)),
        describe_error=describe_error,
        gate=functools.partial(
            Gate,
            at_once=settings.requests_at_once,
            always=always,
            refused=functools.partial(metrics.refused, OVERLOAD),
            count=_counting(settings.rate_limit_per_address, ADDRESS, metrics),
        ),
        lifespan=lifespan,
        validate_responses=settings.validate_responses,
    )
    if settings.cors_origins:
        methods = sorted({method.upper() for _, method, _ in spec.operations(document)} | {"HEAD"})
        app = Cors(app, origins=listed(settings.cors_origins), methods=methods)
    if settings.traces_endpoint:
        app = Traced(app, untraced=always)
    edge = Edge(app, answered=metrics.answered, access_log=settings.access_log, quiet=QUIET)
    metrics.count_in_flight(lambda: edge.in_flight)
    return edge


def _keys(settings: Settings) -> tuple[Keys, Callable[[], Awaitable[None]]]:
    """What tokens are checked with, and what lets go of it."""
    if not settings.jwks_url:
        return OneKey(verification_key(settings)), _nothing
    from product_gateway.jwks import MAX_BYTES, Jwks
    from product_gateway.outbound import Outbound

    outbound = Outbound(allow_private_addresses=settings.allow_private_addresses, max_bytes=MAX_BYTES)
    return Jwks(outbound, settings.jwks_url), outbound.aclose


async def _nothing() -> None:
    pass


def _counting(notation: str | None, who: str, metrics: Metrics) -> Count:
    if notation in (None, OFF):
        return lambda _: None
    from product_gateway import rate_limits

    key = rate_limits.network if who == ADDRESS else str
    return rate_limits.counting(notation, who, key, metrics.refused)


def _admission(database: Database, count: Count) -> Callable[[Caller], Any]:
    async def admit(caller: Caller) -> str:
        count(caller.merchant)  # before the merchant is looked up: it is the database that a limit spares
        database.start_clock()
        return caller.merchant  # whether it may ask is looked up with what it asks for

    return admit


def _not_authenticated(error: errors.NotAuthenticated) -> Headers:
    if not error.presented:
        return {"WWW-Authenticate": REALM}
    return {
        "WWW-Authenticate": f'{REALM}, error="invalid_token", error_description="{_description(error.detail)}"',
    }


def _description(detail: str) -> str:
    """Return the text in the characters that error_description may have (RFC 6750 §3), in at most 500 of them."""
    plain = detail.replace('"', "'").replace("`", "'").replace("\\", "/")
    return "".join(each if " " <= each <= "~" else "?" for each in plain)[:500]


def _missing_scope(error: errors.MissingScope) -> Headers:
    return {"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{error.scope}"'}


def _already_active(error: errors.SyncAlreadyActive) -> Headers:
    return {
        "Retry-After": str(error.active.seconds_left),
        "Link": f'<{SYNCS}{error.active.id}>; rel="monitor"',
    }


def _unavailable(_: errors.Unavailable) -> Headers:
    return {"Retry-After": str(SECONDS_UNTIL_IT_MAY_BE_BACK)}


def _overloaded(_: errors.Overloaded) -> Headers:
    return {"Retry-After": str(SECONDS_UNTIL_THERE_IS_ROOM)}


def _rate_limited(error: errors.RateLimited) -> Headers:
    return {"Retry-After": str(error.seconds)}


def _none(_: Exception) -> Headers:
    return {}


# The most particular class comes first.
TABLE: list[tuple[type[errors.GatewayError], HTTPStatus, Callable[[Any], Headers]]] = [
    (errors.InvalidRequest, HTTPStatus.BAD_REQUEST, _none),
    (errors.NotAuthenticated, HTTPStatus.UNAUTHORIZED, _not_authenticated),
    (errors.MissingScope, HTTPStatus.FORBIDDEN, _missing_scope),
    (errors.NotAllowed, HTTPStatus.FORBIDDEN, _none),
    (errors.NotFound, HTTPStatus.NOT_FOUND, _none),
    (errors.SyncAlreadyActive, HTTPStatus.TOO_MANY_REQUESTS, _already_active),
    (errors.RateLimited, HTTPStatus.TOO_MANY_REQUESTS, _rate_limited),
    (errors.Overloaded, HTTPStatus.SERVICE_UNAVAILABLE, _overloaded),
    (errors.Unavailable, HTTPStatus.SERVICE_UNAVAILABLE, _unavailable),
]


def describe_error(error: Exception) -> Answer[ErrorResponse]:
    """The answer for any exception. What nobody expected is logged, and says nothing of itself."""
    for kind, status, headers in TABLE:
        if isinstance(error, kind):
            if isinstance(error, errors.Unavailable) and not isinstance(error, errors.Overloaded):
                logger.warning("A request was not served: %s", error.with_cause)
            if isinstance(error, errors.SyncAlreadyActive):
                logs.about(sync_id=str(error.active.id))
            return error_answer(status, error.detail, headers(error))
    if isinstance(error, HTTPException) and 400 <= error.status_code < 500:
        return error_answer(HTTPStatus(error.status_code), str(error.detail), dict(error.headers or {}))
    logger.error("A request failed.", exc_info=error)
    return error_answer(HTTPStatus.INTERNAL_SERVER_ERROR, "The gateway failed to answer this request.", {})


def error_answer(status: HTTPStatus, detail: str, headers: Headers) -> Answer[ErrorResponse]:
    """The contract's error body."""
    title = TITLES.get(status, status.phrase)
    return Answer({"error": [{"status": str(status.value), "title": title, "detail": detail}]}, status.value, headers)


# Python before 3.13 has the phrases of an older RFC.
TITLES = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large"}
