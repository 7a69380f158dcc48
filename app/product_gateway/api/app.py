"""The gateway's ASGI application: its parts put together."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp

from product_gateway.api.catalog import CatalogHandlers
from product_gateway.api.error_responses import describe_error
from product_gateway.api.health import HealthHandlers
from product_gateway.api.long_poll import MAX_WAITERS, SyncWaiters
from product_gateway.api.syncs import SyncHandlers
from product_gateway.auth.claims import Caller
from product_gateway.auth.keys import verification_key
from product_gateway.auth.tokens import KeySource, StaticKey, TokenVerifier
from product_gateway.db.database import Database, connect
from product_gateway.docs_pages.handlers import PageHandlers
from product_gateway.http.middleware.concurrency_limit import ConcurrencyLimiter
from product_gateway.http.middleware.cors import StrictCORSMiddleware
from product_gateway.http.middleware.request_context import RequestContextMiddleware
from product_gateway.http.middleware.tracing import TracingMiddleware
from product_gateway.openapi import documents
from product_gateway.openapi.binding import bind
from product_gateway.settings import OFF, Settings, listed
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry.metrics import ADDRESS, MERCHANT, OVERLOAD, Metrics

SECONDS_FOR_THE_DATABASE = 1.7  # of one request: what cannot be had is answered within 2 s
QUIET = ("getLiveness", "getReadiness")
Count = Callable[[str], None]


def create_app(
    settings: Settings,
    metrics: Metrics | None = None,
    supervisor: Supervisor | None = None,
    *,
    most_waiting: int = MAX_WAITERS,
) -> ASGIApp:
    """The gateway as an ASGI application. Raises SettingsError; contacts nothing before it is started.

    No more than `most_waiting` clients may wait for a sync at a time, so that others find a connection that is free.
    """
    metrics = metrics or Metrics()
    supervisor = supervisor or Supervisor(metrics)
    database = connect(settings.database, deadline=SECONDS_FOR_THE_DATABASE, may_create=False)
    waiting = SyncWaiters(database, most_waiting, supervisor)
    keys, let_go = _keys(settings)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await waiting.aclose()
            await let_go()
            database.close()

    document = documents.load(documents.GATEWAY)
    always = [each for each, _, operation in documents.operations(document) if operation.get("x-never-refused")]
    app = bind(
        document,
        SyncHandlers(database, metrics, waiting),
        CatalogHandlers(database),
        HealthHandlers(database, supervisor),
        PageHandlers(shown=settings.docs),
        authenticate=TokenVerifier(settings, keys).authenticate,
        authorize=_authorization(database, _counting(settings.rate_limit_per_merchant, MERCHANT, metrics)),
        describe_error=describe_error,
        middleware=functools.partial(
            ConcurrencyLimiter,
            at_once=settings.requests_at_once,
            always=always,
            refused=functools.partial(metrics.refused, OVERLOAD),
            count=_counting(settings.rate_limit_per_address, ADDRESS, metrics),
        ),
        lifespan=lifespan,
        validate_responses=settings.validate_responses,
    )
    if settings.cors_origins:
        methods = sorted({method.upper() for _, method, _ in documents.operations(document)} | {"HEAD"})
        app = StrictCORSMiddleware(app, origins=listed(settings.cors_origins), methods=methods)
    if settings.traces_endpoint:
        app = TracingMiddleware(app, untraced=always)
    edge = RequestContextMiddleware(app, answered=metrics.answered, access_log=settings.access_log, quiet=QUIET)
    metrics.count_in_flight(lambda: edge.in_flight)
    return edge


def _keys(settings: Settings) -> tuple[KeySource, Callable[[], Awaitable[None]]]:
    """What tokens are checked with, and what lets go of it."""
    if not settings.jwks_url:
        return StaticKey(verification_key(settings)), _nothing
    from product_gateway.auth.jwks import MAX_BYTES, Jwks
    from product_gateway.http_client.client import HttpClient

    outbound = HttpClient(allow_private_addresses=settings.allow_private_addresses, max_bytes=MAX_BYTES)
    return Jwks(outbound, settings.jwks_url), outbound.aclose


async def _nothing() -> None:
    pass


def _counting(notation: str | None, who: str, metrics: Metrics) -> Count:
    if notation in (None, OFF):
        return lambda _: None
    from product_gateway.http.middleware import rate_limit

    key = rate_limit.network if who == ADDRESS else str
    return rate_limit.RateLimiter(notation, who, key, metrics.refused).hit


def _authorization(database: Database, count: Count) -> Callable[[Caller], Any]:
    async def authorize(caller: Caller) -> str:
        count(caller.merchant)  # before the merchant is looked up: it is the database that a limit spares
        database.start_deadline()
        return caller.merchant  # whether it may ask is looked up with what it asks for

    return authorize
