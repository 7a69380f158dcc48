"""What each process of `--processes N` runs. services.multiprocess starts them, without the imports of this module."""

import signal
import socket
from contextlib import ExitStack
from functools import partial

from product_gateway.auth.encryption import Secrets
from product_gateway.db.wakeups import Wakeups
from product_gateway.http.middleware.shared_rate_limit import SharedStorage
from product_gateway.http.shared_counters import SharedCounters
from product_gateway.services.member import Member
from product_gateway.services.processes import OperationsServer, api_server, prepare_database
from product_gateway.services.service import Service, run
from product_gateway.services.shared_listener import ConnectionCounts, Share
from product_gateway.services.wakeup_socket import hear, tell
from product_gateway.settings import Settings
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry import tracing
from product_gateway.telemetry.metrics import ADDRESS, MERCHANT, Metrics


def serve(
    settings: Settings,
    member: Member,
    listening: socket.socket,
    counters: tuple[SharedCounters, SharedCounters],
    connections: ConnectionCounts,
    number: int,
    to_worker: socket.socket | None,
) -> None:
    """Serve the API as process `number`, from 0, of several. `counters` are those of merchants and of addresses.

    `connections` are those of each process. `to_worker` leads to the process that runs the worker.
    """
    wakeups, metrics = Wakeups(), Metrics(with_queue=False)
    supervisor = Supervisor(metrics)
    counts = {who: SharedStorage(each, number) for who, each in zip((MERCHANT, ADDRESS), counters, strict=True)}
    with ExitStack() as stack:
        if to_worker is not None:
            stack.enter_context(wakeups.listening(partial(tell, to_worker)))
        server = api_server(settings, metrics, supervisor, wakeups, listening, counts, Share(connections, number))
        _run_service(settings, member, metrics, supervisor, server)


def work(
    settings: Settings, member: Member, from_servers: socket.socket | None = None, *, announce: bool = False
) -> None:
    """Run a worker as one of several processes. Wake-ups from the processes of the API come from `from_servers`."""
    from product_gateway.services.worker import WorkerService

    wakeups, metrics = Wakeups(), Metrics(with_queue=False)
    supervisor = Supervisor(metrics)
    if from_servers is not None:
        hear(from_servers, wakeups.wake)
    worker = WorkerService(settings, metrics, supervisor, wakeups, announce=announce)
    _run_service(settings, member, metrics, supervisor, worker)


def operate(settings: Settings, member: Member, listening: socket.socket) -> None:
    """Serve the operations port of several processes."""
    metrics = Metrics()
    supervisor = Supervisor(metrics)
    _run_service(
        settings, member, metrics, supervisor, OperationsServer(settings, metrics, supervisor, listening, member)
    )


def prepare(settings: Settings, *, may_create: bool) -> None:
    """Check once, and prepare, what all processes need. Raises SettingsError."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    prepare_database(settings, may_create=may_create)
    if not may_create:  # a worker
        Secrets(settings)


def _run_service(
    settings: Settings, member: Member, metrics: Metrics, supervisor: Supervisor, service: Service
) -> None:
    member.report(metrics, supervisor)
    with tracing.exporting(settings):
        run([service], member.shutdown, member.started)
