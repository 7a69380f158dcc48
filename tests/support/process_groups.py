"""The processes of `--processes N`, found by their names, and clients of one of them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.deployment import ENDS_WITHIN, STARTS_WITHIN, Process, within

API, WORKER, OPERATIONS = "pg-api", "pg-worker", "pg-operations"


def members(parent: Process, kind: str = "pg-") -> dict[str, int]:
    """Return the numbers of the parent's processes of a kind, by their names."""
    found = {}
    for each in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split():
        try:
            name = Path(f"/proc/{each}/comm").read_text().strip()
        except OSError:  # it has just ended
            continue
        if name.startswith(kind):
            found[name] = int(each)
    return dict(sorted(found.items()))


def replaced(parent: Process, name: str, before: int) -> int:
    """Wait until another process has the name, and return its number."""
    return int(within(STARTS_WITHIN, lambda: (now := members(parent).get(name)) and now != before and now))


def is_alive(pid: int) -> bool:
    """Return whether a process runs. One that has ended and is not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _states(pid: int) -> list[str]:
    """Return the states of the process's threads: each stops by itself."""
    return [each.read_text().rpartition(")")[2].split()[0] for each in Path(f"/proc/{pid}/task").glob("*/stat")]


@contextmanager
def only(parent: Process, name: str) -> Iterator[None]:
    """Suspend the other processes of the API: what connects meanwhile is accepted by this one."""
    others = [pid for each, pid in members(parent, API).items() if each != name]
    for each in others:
        os.kill(each, signal.SIGSTOP)
    try:
        within(ENDS_WITHIN, lambda: {state for each in others for state in _states(each)} <= {"T"})
        yield
    finally:
        for each in others:
            os.kill(each, signal.SIGCONT)
