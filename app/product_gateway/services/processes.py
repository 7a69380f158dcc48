"""Starts and stops what runs for long: the HTTP servers and the worker. The one way to start each."""

import asyncio
import errno
import logging
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import Server

from product_gateway import data_directory, gc_tuning
from product_gateway.api.app import create_app
from product_gateway.api.error_responses import error_answer
from product_gateway.db import migrate
from product_gateway.db.database import Database, open_database
from product_gateway.errors import SettingsError
from product_gateway.http.connections import ConnectionSupervisor
from product_gateway.http.limits import Limits
from product_gateway.http.middleware.client_address import ClientAddress
from product_gateway.http.middleware.public_path import PublicPath
from product_gateway.http.middleware.response_framing import Framed
from product_gateway.settings import Settings, listed
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.telemetry import logs, tracing
from product_gateway.telemetry.metrics import WORKER, Metrics

if TYPE_CHECKING:
    from product_gateway.http_client.client import HttpClient

# What not every process needs is imported where it is needed: a server without a worker starts sooner.

logger = logging.getLogger(__name__)

SECONDS_TO_FINISH_REQUESTS = 8
SECONDS_TO_FINISH_SCRAPES = 1
OPERATIONS_PORT_OF_GATEWAY = 8090
OPERATIONS_PORT_OF_WORKER = 8091
SECONDS_TO_START = 30
SECONDS_TO_HAND_BACK = 1.5  # for what a worker is doing when it is to stop, and as many to hand back its syncs
MOST_BYTES_OF_A_RECEIVER = 65536
BACKLOG = 2048
MOST_CONNECTIONS = 12_000
SHARE_THAT_MAY_WAIT = 5 / 6  # of them, for a sync to end: the others are for those who don't
FILES_FOR_ELSE = 200  # the database, the product services, logs, keys


@dataclass(frozen=True, slots=True)
class Proxies:
    """The reverse proxies in front of a server: whose headers are believed, and the path that they publish it under."""

    trusted: tuple[str, ...] = ()
    base_path: str = ""

    @classmethod
    def of_gateway(cls, settings: Settings) -> "Proxies":
        """Return those in front of the gateway's own port."""
        return cls(tuple(listed(settings.trusted_proxies)), settings.public_base_path or "")

    @classmethod
    def of_operations(cls, settings: Settings) -> "Proxies":
        """Return those in front of the operations port."""
        return cls(tuple(listed(settings.trusted_proxies)), settings.operations_base_path or "")


NO_PROXIES = Proxies()


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 is any that is free. Raises SettingsError in plain words."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"Port {port} of {host} is taken. Stop what listens there, or choose another port."
            ) from None
        raise SettingsError(f"Cannot listen on port {port} of {host}: {error.strerror or error}.") from None
    return listening


def bind_operations(settings: Settings, port: int) -> socket.socket:
    """A socket for metrics, health and the monitor, on `port` where the settings name none. Raises SettingsError."""
    chosen = port if settings.operations_port is None else settings.operations_port
    try:
        return bind(settings.operations_host, chosen)
    except SettingsError as error:
        raise SettingsError(
            f"{error.detail} It is meant for metrics and health: PRODUCT_GATEWAY_OPERATIONS_PORT and "
            "PRODUCT_GATEWAY_OPERATIONS_HOST say where they are to be had."
        ) from None


def url_of(listening: socket.socket) -> str:
    """The address of the socket, for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(settings: Settings, listening: socket.socket, for_operations: socket.socket, *, with_worker: bool) -> None:
    """The gateway, until SIGTERM or Ctrl-C. Raises SettingsError."""
    data_directory.prepare(settings, secrets=with_worker)
    _prepare(settings, may_create=True)
    metrics = Metrics()
    supervisor = Supervisor(metrics)
    app = create_app(settings, metrics, supervisor, most_waiting=int(most_connections() * SHARE_THAT_MAY_WAIT))
    server = _http_server(app, proxies=Proxies.of_gateway(settings))
    _end_when_told(server)
    with (
        tracing.exporting(settings),
        operations_server(settings, metrics, supervisor, for_operations),
        worker_thread(settings, metrics, supervisor) if with_worker else nullcontext(),
    ):
        _run(server, listening)


def serve_alone(app: ASGIApp, listening: socket.socket) -> None:
    """Any application over HTTP, until SIGTERM or Ctrl-C."""
    server = _http_server(app)
    _end_when_told(server)
    _run(server, listening)


def _end_when_told(server: Server) -> None:
    """From now on, so that who is told while it starts ends in good order, too."""

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn sends itself the signal again when it has stopped: it must find a handler that does no harm.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)


def _run(server: Server, listening: socket.socket) -> None:
    if not server.should_exit:
        gc_tuning.freeze_startup_objects()
        server.run(sockets=[listening])


def run_worker(settings: Settings) -> None:
    """A worker, until SIGTERM or Ctrl-C. Raises SettingsError."""
    data_directory.make_files_private()
    data_directory.require(settings, secrets=True)
    for_operations = bind_operations(settings, OPERATIONS_PORT_OF_WORKER)
    _prepare(settings, may_create=False)
    metrics = Metrics()
    supervisor = Supervisor(metrics)
    gc_tuning.freeze_startup_objects()

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, stop.set)
        with operations_server(settings, metrics, supervisor, for_operations):
            await _run_services(
                settings, metrics, supervisor, stop, lambda: logger.info("The worker is waiting for syncs.")
            )

    with tracing.exporting(settings):
        asyncio.run(until_signalled())


@contextmanager
def worker_thread(settings: Settings, metrics: Metrics, supervisor: Supervisor) -> Iterator[None]:
    """A worker in a thread, with an event loop of its own: a large page does not hold up a request.

    A worker that ends with an error is started again.
    """
    started = threading.Event()
    state: dict[str, Any] = {}

    async def until_told() -> None:
        stop = asyncio.Event()
        state["loop"], state["stop"] = asyncio.get_running_loop(), stop

        async def work(loop: Loop) -> None:
            def on_start() -> None:
                loop.progressed()
                started.set()

            with loop.idle():
                await _run_services(settings, metrics, supervisor, stop, on_start)

        await supervisor.keep(WORKER, work, stop=stop)

    def in_thread() -> None:
        try:
            asyncio.run(until_told())
        except Exception:
            logger.exception("The worker has stopped.")
        finally:
            started.set()

    thread = threading.Thread(target=in_thread, name="worker")
    thread.start()
    try:
        started.wait(SECONDS_TO_START)
        yield
    finally:
        if thread.is_alive():
            state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join()


@contextmanager
def operations_server(
    settings: Settings, metrics: Metrics, supervisor: Supervisor, listening: socket.socket
) -> Iterator[None]:
    """Metrics, health and the monitor in a thread. The last to stop, so that an orchestrator can follow the others."""
    from product_gateway.operations.app import create_operations_app

    app, end_streams = create_operations_app(settings, metrics, supervisor)
    proxies = Proxies.of_operations(settings)
    with http_server_thread(app, listening, seconds_to_finish=SECONDS_TO_FINISH_SCRAPES, proxies=proxies):
        url = url_of(listening)
        logger.info("Metrics and health are at %s/metrics, the monitor at %s/monitor", url, url)
        try:
            yield
        finally:
            end_streams()


@contextmanager
def http_server_thread(
    app: ASGIApp,
    listening: socket.socket,
    limits: Limits | None = None,
    seconds_to_finish: int = SECONDS_TO_FINISH_REQUESTS,
    proxies: Proxies = NO_PROXIES,
) -> Iterator[None]:
    """An HTTP server in a thread, answering when this is entered."""
    server = _http_server(app, limits, seconds_to_finish, proxies)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="http")
    thread.start()
    try:
        for _ in range(SECONDS_TO_START * 100):
            if server.started or not thread.is_alive():
                break
            thread.join(0.01)
        if not server.started:
            raise SettingsError("The server did not start; the messages above say why.")
        yield
    finally:
        server.should_exit = True
        thread.join()


def _prepare(settings: Settings, *, may_create: bool) -> None:
    logs.configure(settings.log_level, settings.log_format)
    if warning := data_directory.warning(settings):
        logger.warning("%s", warning)
    with open_database(settings.database, may_create=may_create) as database:
        migrate.prepare(database)


async def _run_services(
    settings: Settings,
    metrics: Metrics,
    supervisor: Supervisor,
    stop: asyncio.Event,
    on_start: Callable[[], None],
) -> None:
    from product_gateway.sync.worker import Worker
    from product_gateway.webhooks.dispatcher import WebhookDispatcher

    # It was made before: where it is gone now, an empty one would be in the way of the one that is brought back.
    with open_database(settings.database, may_create=False) as database:
        async with to_product_services(settings) as outbound, to_webhooks(settings) as to_receivers:
            worker = Worker(settings, database, outbound, metrics, supervisor)
            deliveries = WebhookDispatcher(settings, database, to_receivers, metrics, supervisor)
            on_start()
            hurrying = asyncio.create_task(_expire_on_stop(stop, database))
            try:
                async with asyncio.TaskGroup() as group:
                    for each in (worker, deliveries):
                        group.create_task(each.run(stop))
            finally:
                hurrying.cancel()


async def _expire_on_stop(stop: asyncio.Event, database: Database) -> None:
    """A database that hangs must not keep a worker from ending."""
    await stop.wait()
    database.shorten_deadline(SECONDS_TO_HAND_BACK)


def to_product_services(settings: Settings) -> "HttpClient":
    """The HTTP client of a worker, as the settings want it."""
    from product_gateway.http_client.client import HttpClient

    return HttpClient(
        allow_private_addresses=settings.allow_private_addresses,
        connect_timeout=settings.connect_timeout_seconds,
        read_timeout=settings.read_timeout_seconds,
        total_timeout=settings.request_timeout_seconds,
        max_bytes=settings.max_page_bytes,
    )


def to_webhooks(settings: Settings) -> "HttpClient":
    """The HTTP client of a worker for messages to webhooks: of what they answer, the status is all that counts."""
    seconds = settings.webhook_timeout_seconds
    from product_gateway.http_client.client import HttpClient

    return HttpClient(
        allow_private_addresses=settings.allow_private_addresses,
        connect_timeout=min(settings.connect_timeout_seconds, seconds),
        read_timeout=seconds,
        total_timeout=seconds,
        max_bytes=MOST_BYTES_OF_A_RECEIVER,
    )


def _http_server(
    app: ASGIApp,
    limits: Limits | None = None,
    seconds_to_finish: int = SECONDS_TO_FINISH_REQUESTS,
    proxies: Proxies = NO_PROXIES,
) -> Server:
    trusted = list(proxies.trusted)
    if trusted:
        app = ClientAddress(app, trusted_proxies=trusted)
    return Server(
        Config(
            Framed(PublicPath(app, base_path=proxies.base_path, trusted_proxies=trusted)),
            loop="uvloop",
            http=ConnectionSupervisor(error_answer, limits or Limits(connections=most_connections())),  # type: ignore[arg-type]  # makes what a class would
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # else uvicorn asks the environment whom to trust
            timeout_graceful_shutdown=seconds_to_finish,
        )
    )


def most_connections() -> int:
    """As many as this process may have files open, but for some; the limit is raised as far as that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + FILES_FOR_ELSE
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MOST_CONNECTIONS, soft - FILES_FOR_ELSE))
