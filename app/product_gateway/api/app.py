"""Composition of the gateway's ASGI application."""

import functools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from product_gateway.api.catalog import CatalogHandlers
from product_gateway.api.discovery import DiscoveryHandlers, with_metadata
from product_gateway.api.error_responses import describe_error
from product_gateway.api.health import HealthHandlers
from product_gateway.api.long_poll import MAX_WAITERS, GenerationWaiters, SyncWaiters
from product_gateway.api.syncs import SyncHandlers
from product_gateway.auth.claims import Caller
from product_gateway.auth.keys import verification_key
from product_gateway.auth.tokens import KeySource, TokenVerifier, static_key
from product_gateway.db.database import Database, connect
from product_gateway.db.wakeups import Notifier, Wakeups
from product_gateway.docs_pages.pages import PageHandlers
from product_gateway.http.middleware.concurrency_limit import ConcurrencyLimiter
from product_gateway.http.middleware.cors import StrictCORSMiddleware
from product_gateway.http.middleware.rate_limit import RateLimiter, SlidingWindows, network
from product_gateway.http.middleware.request_context import RequestContextMiddleware
from product_gateway.http.middleware.tracing import TracingMiddleware
from product_gateway.openapi import documents
from product_gateway.openapi.binding import bind
from product_gateway.openapi.security import by_bearer_token
from product_gateway.settings import OFF, Settings, listed
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry.metrics import ADDRESS, MERCHANT, OVERLOAD, Metrics

if TYPE_CHECKING:
    from product_gateway.http_client.client import HttpClient

SECONDS_FOR_THE_DATABASE = 1.7  # per request, so that a request without the database fails within 2 s
QUIET = ("getLiveness", "getReadiness")
Count = Callable[[str], None]


def create_app(
    settings: Settings,
    metrics: Metrics | None = None,
    supervisor: Supervisor | None = None,
    *,
    wakeups: Wakeups | None = None,
    now: Callable[[], float] = lambda: time.time(),
    most_waiting: int = MAX_WAITERS,
    counts: Mapping[str, SlidingWindows] | None = None,
) -> ASGIApp:
    """Return the gateway as an ASGI application, which connects to nothing before it starts. Raise SettingsError.

    `wakeups` reach the workers of this process. Tokens expire by the clock `now`. At most `most_waiting` clients may
    wait for a sync at a time, so that connections remain for other requests. `counts` are the storages of the rate
    limits by MERCHANT and ADDRESS, if several processes share them.
    """
    metrics = metrics or Metrics()
    supervisor = supervisor or Supervisor(metrics)
    database = connect(settings.database, deadline=SECONDS_FOR_THE_DATABASE, may_create=False)
    waiters = SyncWaiters(database, most_waiting, supervisor)
    generation_waiters = GenerationWaiters(database, most_waiting, supervisor)
    notifier = Notifier(database, wakeups or Wakeups())
    keys, http_client = _keys(settings)
    limiter = functools.partial(_rate_limiter, metrics=metrics, counts=counts or {})

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await waiters.aclose()
            await generation_waiters.aclose()
            await notifier.aclose()
            if http_client:
                await http_client.aclose()
            database.close()

    document = documents.load(documents.GATEWAY)
    always = [each for each, _, operation in documents.operations(document) if operation.get("x-never-refused")]
    app = bind(
        document,
        SyncHandlers(database, metrics, waiters, notifier.queued),
        CatalogHandlers(database, generation_waiters),
        HealthHandlers(database, supervisor),
        PageHandlers(shown=settings.docs),
        DiscoveryHandlers(settings, document),
        authenticate=by_bearer_token(TokenVerifier(settings, keys, now=now).authenticate),
        authorize=_authorization(database, limiter(settings.rate_limit_per_merchant, MERCHANT)),
        describe_error=with_metadata(describe_error),
        middleware=functools.partial(
            ConcurrencyLimiter,
            at_once=settings.requests_at_once,
            always=always,
            refused=functools.partial(metrics.refused, OVERLOAD),
            count=limiter(settings.rate_limit_per_address, ADDRESS),
        ),
        lifespan=lifespan,
        validate_responses=settings.validate_responses,
    )
    if settings.cors_origins:
        methods = sorted({method.upper() for _, method, _ in documents.operations(document)} | {"HEAD"})
        app = StrictCORSMiddleware(app, origins=listed(settings.cors_origins), methods=methods)
    if settings.traces_endpoint:
        app = TracingMiddleware(app, untraced=always)
    outermost = RequestContextMiddleware(
        app, answered=metrics.observe_request, access_log=settings.access_log, quiet=QUIET
    )
    metrics.requests_in_flight.set_function(lambda: outermost.in_flight)
    return outermost


def _keys(settings: Settings) -> tuple[KeySource, "HttpClient | None"]:
    """Return the key source for tokens, and the client that it uses."""
    if not settings.jwks_url:
        return static_key(verification_key(settings)), None
    # Imported here: without a JWKS, a gateway needs no HTTP client.
    from product_gateway.auth.jwks import MAX_BYTES, Jwks
    from product_gateway.http_client.client import HttpClient

    client = HttpClient(allow_private_addresses=settings.allow_private_addresses, max_bytes=MAX_BYTES)
    return Jwks(client, settings.jwks_url).find, client


def _rate_limiter(notation: str | None, who: str, *, metrics: Metrics, counts: Mapping[str, SlidingWindows]) -> Count:
    if notation in (None, OFF):
        return lambda _: None
    return RateLimiter(notation, who, network if who == ADDRESS else str, metrics.refused, counts.get(who)).hit


def _authorization(database: Database, count: Count) -> Callable[[Caller], Any]:
    async def authorize(caller: Caller) -> str:
        count(caller.merchant)  # before any query: the limit protects the database
        database.start_deadline()
        return caller.merchant  # each query checks whether the merchant is active

    return authorize
