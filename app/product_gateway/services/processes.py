"""The processes of the gateway: which services each one runs."""

import logging
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from product_gateway import data_directory
from product_gateway.api.app import create_app
from product_gateway.auth.encryption import Secrets
from product_gateway.db import migrate
from product_gateway.db.database import open_database
from product_gateway.db.wakeups import Wakeups
from product_gateway.http.middleware.rate_limit import SlidingWindows
from product_gateway.operations.app import Group, create_operations_app
from product_gateway.services.http_server import HTTPServer
from product_gateway.services.service import Service, configure_log, run, shutdown_on_signals
from product_gateway.services.sockets import OPERATIONS_PORT_OF_WORKER, bind_operations, max_connections, url_of
from product_gateway.settings import Settings
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry import tracing
from product_gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from product_gateway.services.shared_listener import Share

# services.worker is imported where it is used: a server without a worker starts sooner.

logger = logging.getLogger(__name__)

SECONDS_TO_FINISH_SCRAPES = 1
WAITING_SHARE = 5 / 6  # of connections that may wait for a sync to end; the others serve other requests


def serve(
    settings: Settings,
    listening: socket.socket,
    for_operations: socket.socket,
    started: Callable[[], None],
    *,
    with_worker: bool,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; call `started` once it answers. Raises SettingsError."""
    data_directory.prepare(settings, secrets=with_worker)
    _prepare(settings, may_create=True)
    metrics = Metrics()
    supervisor = Supervisor(metrics)
    wakeups = Wakeups()
    api = api_server(settings, metrics, supervisor, wakeups, listening)
    services: list[Service] = [OperationsServer(settings, metrics, supervisor, for_operations)]
    if with_worker:
        from product_gateway.services.worker import WorkerService

        services.append(WorkerService(settings, metrics, supervisor, wakeups))
    services.append(api)
    with tracing.exporting(settings):
        run(services, shutdown_on_signals(), started)


def serve_alone(app: ASGIApp, listening: socket.socket, started: Callable[[], None]) -> None:
    """Serve any application over HTTP until SIGTERM or Ctrl-C; call `started` once it answers."""
    run([HTTPServer(app, listening)], shutdown_on_signals(), started)


def run_worker(settings: Settings) -> None:
    """Run a worker until SIGTERM or Ctrl-C. Raises SettingsError."""
    from product_gateway.services.worker import WorkerService

    data_directory.make_files_private()
    data_directory.require(settings, secrets=True)
    for_operations = bind_operations(settings, OPERATIONS_PORT_OF_WORKER)
    _prepare(settings, may_create=False)
    Secrets(settings)  # a wrong secret key stops the start, not every sync
    metrics = Metrics()
    supervisor = Supervisor(metrics)
    services: list[Service] = [
        OperationsServer(settings, metrics, supervisor, for_operations),
        WorkerService(settings, metrics, supervisor, announce=True),
    ]
    with tracing.exporting(settings):
        run(services, shutdown_on_signals())


def api_server(
    settings: Settings,
    metrics: Metrics,
    supervisor: Supervisor,
    wakeups: Wakeups,
    listening: socket.socket,
    counts: Mapping[str, SlidingWindows] | None = None,
    share: "Share | None" = None,
) -> HTTPServer:
    """Return the server of the API. `counts` as for `create_app`, `share` as for HTTPServer."""
    most_waiting = int(max_connections() * WAITING_SHARE)
    app = create_app(settings, metrics, supervisor, wakeups=wakeups, most_waiting=most_waiting, counts=counts)
    proxies, base_path = settings.trusted_proxies, settings.public_base_path
    return HTTPServer(app, listening, trusted_proxies=proxies, base_path=base_path, share=share)


class OperationsServer(HTTPServer):
    """Metrics, health and the monitor. Stopped last, so that an orchestrator can follow the other services."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        supervisor: Supervisor,
        listening: socket.socket,
        group: Group | None = None,
    ) -> None:
        app, self._close_streams = create_operations_app(settings, metrics, supervisor, group)
        super().__init__(
            app,
            listening,
            seconds_to_finish=SECONDS_TO_FINISH_SCRAPES,
            name="operations",
            trusted_proxies=settings.trusted_proxies,
            base_path=settings.operations_base_path,
        )

    def start(self) -> None:
        """Return once the server answers. Raises SettingsError."""
        super().start()
        url = url_of(self._listening)
        logger.info("Metrics and health are at %s/metrics, the monitor at %s/monitor", url, url)

    def _request_stop(self) -> None:
        self._close_streams()
        super()._request_stop()


def _prepare(settings: Settings, *, may_create: bool) -> None:
    configure_log(settings)
    prepare_database(settings, may_create=may_create)


def prepare_database(settings: Settings, *, may_create: bool) -> None:
    """Bring the tables up to date, or check that they are. Raises SettingsError."""
    with open_database(settings.database, may_create=may_create) as database:
        migrate.prepare(database)
