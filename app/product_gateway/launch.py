"""Starts and stops what runs for long: the HTTP servers and the worker. The one way to start each."""

import asyncio
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from product_gateway import db, logs
from product_gateway.db import Database, migrate
from product_gateway.errors import SettingsError
from product_gateway.outbound import Outbound
from product_gateway.server import create_app
from product_gateway.settings import Settings
from product_gateway.worker import Worker

logger = logging.getLogger(__name__)

SECONDS_TO_FINISH_REQUESTS = 8
# Longer than load balancers keep theirs (60 s as a rule): who closes first loses the request that was on its way.
SECONDS_TO_KEEP_A_CONNECTION = 75
SECONDS_TO_START = 30
SECONDS_TO_HAND_BACK = 2.0  # for each read or write of a worker that is to stop
BACKLOG = 2048


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


def url_of(listening: socket.socket) -> str:
    """The address of the socket, for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(settings: Settings, listening: socket.socket, *, with_worker: bool) -> None:
    """The gateway, until SIGTERM or Ctrl-C. Raises SettingsError."""
    _prepare(settings)
    app = create_app(settings)
    with worker_beside(settings) if with_worker else nullcontext():
        serve_alone(app, listening)


def serve_alone(app: ASGIApp, listening: socket.socket) -> None:
    """Any application over HTTP, until SIGTERM or Ctrl-C."""
    server = _http_server(app)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn sends itself the signal again when it has stopped: it must find a handler that does no harm.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    server.run(sockets=[listening])


def run_worker(settings: Settings) -> None:
    """A worker, until SIGTERM or Ctrl-C. Raises SettingsError."""
    _prepare(settings)

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, stop.set)
        await _work(settings, stop, lambda: logger.info("The worker is waiting for syncs."))

    asyncio.run(until_signalled())


@contextmanager
def worker_beside(settings: Settings) -> Iterator[None]:
    """A worker in a thread, with an event loop of its own: a large page does not hold up a request."""
    started = threading.Event()
    state: dict[str, Any] = {}

    async def until_told() -> None:
        state["loop"], state["stop"] = asyncio.get_running_loop(), asyncio.Event()
        await _work(settings, state["stop"], started.set)

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
def http_beside(app: ASGIApp, listening: socket.socket) -> Iterator[None]:
    """An HTTP server in a thread, answering when this is entered."""
    server = _http_server(app)
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


def _prepare(settings: Settings) -> None:
    logs.set_up(settings.log_level, settings.log_format)
    with db.open_for_a_while(settings.database) as database:
        migrate.prepare(database)


async def _work(settings: Settings, stop: asyncio.Event, on_start: Callable[[], None]) -> None:
    with db.open_for_a_while(settings.database) as database:
        async with to_product_services(settings) as outbound:
            worker = Worker(settings, database, outbound)
            on_start()
            hurrying = asyncio.create_task(_hurry(stop, database))
            try:
                await worker.run(stop)
            finally:
                hurrying.cancel()


async def _hurry(stop: asyncio.Event, database: Database) -> None:
    """A database that hangs must not keep a worker from ending."""
    await stop.wait()
    database.hurry(SECONDS_TO_HAND_BACK)


def to_product_services(settings: Settings) -> Outbound:
    """The HTTP client of a worker, as the settings want it."""
    return Outbound(
        allow_private_addresses=settings.allow_private_addresses,
        connect_timeout=settings.connect_timeout_seconds,
        read_timeout=settings.read_timeout_seconds,
        total_timeout=settings.request_timeout_seconds,
        max_bytes=settings.max_page_bytes,
    )


def _http_server(app: ASGIApp) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SECONDS_TO_FINISH_REQUESTS,
            timeout_keep_alive=SECONDS_TO_KEEP_A_CONNECTION,
        )
    )
