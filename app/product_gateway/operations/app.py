"""The operations port of a gateway or worker: metrics, health and the monitor (openapi/operations.yaml).

It is for operators, not for clients. Metrics need no token, so the port must not be reachable from outside.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.api.app import QUIET, SECONDS_FOR_THE_DATABASE
from product_gateway.api.error_responses import describe_error
from product_gateway.api.health import HealthHandlers
from product_gateway.db import freshness, syncs
from product_gateway.db.database import Database, connect
from product_gateway.db.single_flight import SingleFlight
from product_gateway.http.middleware.request_context import RequestContextMiddleware
from product_gateway.http.responses import Response
from product_gateway.model.syncs import CatalogSize
from product_gateway.openapi import documents
from product_gateway.openapi.binding import bind
from product_gateway.operations.monitor.auth import Access, token_digest
from product_gateway.operations.monitor.handlers import LOOKING, Monitor
from product_gateway.settings import Settings
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.telemetry import logs
from product_gateway.telemetry.metrics import MEDIA_TYPE, QUEUE_METRICS, Metrics

QUEUE_STATS_TTL = 5.0  # seconds
SCRAPE_TIMEOUT = 1.0  # seconds for the database: Prometheus drops a scrape that takes too long


class Group(Protocol):
    """The processes of one gateway or worker."""

    async def exposition(self) -> bytes:
        """Return the sum of their metrics. Raises Unavailable."""

    async def check(self) -> None:
        """Raise Unavailable if one of them fails."""


def create_operations_app(
    settings: Settings, metrics: Metrics, supervisor: Supervisor | None = None, group: Group | None = None
) -> tuple[ASGIApp, Callable[[], None]]:
    """Return the application of the operations port, and a function that closes its streams before a stop.

    `group` are all processes of a gateway, with this one; None: this process is the only one. Contacts nothing before
    the first request. Raises SettingsError.
    """
    supervisor = supervisor or Supervisor(metrics)
    digest = token_digest(settings)
    database = connect(settings.database, deadline=SECONDS_FOR_THE_DATABASE, may_create=False)
    access = Access(settings, database, digest)
    catalog_limit = CatalogSize(settings.max_catalog_records, settings.max_catalog_bytes)
    monitor = Monitor(database, metrics, access, catalog_limit, supervisor)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            database.close()

    def error_or_page(error: Exception) -> Response[Any]:
        answer = describe_error(error)
        # A Link points to the gateway's port.
        answer = replace(answer, headers={name: each for name, each in answer.headers.items() if name != "Link"})
        return monitor.as_page(answer, str(logs.context().get("operation", "")))

    app = bind(
        documents.load(documents.OPERATIONS),
        monitor,
        HealthHandlers(database, supervisor, None if group is None else group.check),
        MetricsHandlers(database, metrics, group),
        authenticate=access.guard,
        middleware=functools.partial(check_host, require_host=access.require_host),
        describe_error=error_or_page,
        lifespan=lifespan,
        validate_responses=settings.validate_responses,
    )
    quiet = (*QUIET, "getMetrics", *LOOKING)
    context = RequestContextMiddleware(app, answered=lambda *_: None, access_log=settings.access_log, quiet=quiet)
    return context, monitor.close_streams


def check_host(app: ASGIApp, require_host: Callable[[Scope], None]) -> ASGIApp:
    """Return middleware that checks the Host of requests outside the monitor, whose own check is stricter."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith("/monitor"):
            require_host(scope)
        await app(scope, receive, send)

    return checked


class MetricsHandlers:
    """The metrics of this process or its group, and of the queue."""

    def __init__(self, database: Database, metrics: Metrics, group: Group | None = None) -> None:
        self._database = database
        self._metrics = metrics
        self._group = group
        self._queue_loop = Loop(QUEUE_METRICS, metrics)
        self._queue_stats = SingleFlight(QUEUE_STATS_TTL)

    async def get_metrics(self) -> Response[bytes]:
        """Return the processes' metrics, and the queue's from the database; without the latter if it does not answer.

        The single-flight cache protects the database from frequent scrapes. Raise Unavailable if the group does not
        answer.
        """
        try:
            async with asyncio.timeout(SCRAPE_TIMEOUT):
                await self._queue_stats.get("queue", self._read_queue_stats)
        except TimeoutError:
            self._metrics.set_queue_stats(None)
        found = self._metrics.exposition() if self._group is None else await self._group.exposition()
        return Response(found, media_type=MEDIA_TYPE)

    async def _read_queue_stats(self) -> None:
        self._database.start_deadline()
        try:
            unfinished = await self._database.read(syncs.unfinished)
            self._metrics.set_queue_stats(*unfinished, await self._database.read(freshness.count_stale))
            self._queue_loop.progressed()
        except Exception as error:  # noqa: BLE001 - logged by `failed`; the other metrics are still exposed
            self._queue_loop.failed(error)
            self._metrics.set_queue_stats(None)
