"""`--processes N`: which processes a gateway or a worker has. The parent imports no more than this module needs."""

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from product_gateway import data_directory
from product_gateway.http.shared_counters import SharedCounters
from product_gateway.services.process_group import API, OPERATIONS, WORKER, ProcessGroup, Role
from product_gateway.services.service import configure_log
from product_gateway.services.shared_listener import ConnectionCounts
from product_gateway.services.sockets import OPERATIONS_PORT_OF_WORKER, bind_operations
from product_gateway.settings import Settings

if TYPE_CHECKING:
    from product_gateway.services.member import Member

# The roles import services.members themselves, after the fork.


def available_cores() -> int:
    """Return the number of cores that this process may use (its CPU affinity)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve(
    settings: Settings,
    listening: socket.socket,
    for_operations: socket.socket,
    started: Callable[[], None],
    processes: int,
    *,
    with_worker: bool,
) -> None:
    """Run the gateway in `processes` processes for the API, one for the operations port, and one for the worker.

    Until SIGTERM or Ctrl-C. Calls `started` once all work. Raises SettingsError.
    """
    data_directory.prepare(settings, secrets=with_worker)
    configure_log(settings)
    counters = SharedCounters(processes), SharedCounters(processes)
    connections = ConnectionCounts(processes)
    # SQLite has no notifications between processes.
    heard, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def api(number: int, member: "Member") -> None:
        from product_gateway.services import members

        to_worker = told if with_worker else None
        members.serve(settings, member, listening, counters, connections, number, to_worker)

    def worker(member: "Member") -> None:
        from product_gateway.services import members

        members.work(settings, member, heard)

    roles = [Role(OPERATIONS, 1, partial(_operate, settings, for_operations), [for_operations])]
    roles += [Role(API, number + 1, partial(api, number), [listening, told]) for number in range(processes)]
    roles += [Role(WORKER, 1, worker, [heard])] if with_worker else []
    group = ProcessGroup(roles, [listening, for_operations, heard, told], [listening])
    group.run(partial(_prepare, settings, may_create=True), started)


def run_workers(settings: Settings, processes: int) -> None:
    """Run `processes` workers, and one process for their operations port, until SIGTERM or Ctrl-C.

    Raises SettingsError.
    """
    data_directory.make_files_private()
    data_directory.require(settings, secrets=True)
    for_operations = bind_operations(settings, OPERATIONS_PORT_OF_WORKER)
    configure_log(settings)

    def worker(member: "Member") -> None:
        from product_gateway.services import members

        members.work(settings, member, announce=True)

    roles = [Role(OPERATIONS, 1, partial(_operate, settings, for_operations), [for_operations])]
    roles += [Role(WORKER, number + 1, worker) for number in range(processes)]
    ProcessGroup(roles, [for_operations]).run(partial(_prepare, settings, may_create=False), lambda: None)


def _prepare(settings: Settings, _: "Member", *, may_create: bool) -> None:
    from product_gateway.services import members

    members.prepare(settings, may_create=may_create)


def _operate(settings: Settings, listening: socket.socket, member: "Member") -> None:
    from product_gateway.services import members

    members.operate(settings, member, listening)
