"""The base cost of a process: memory of `serve`, CPU of `--help`."""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from rounds import ROUNDS, Row, Section
from servers import free_port, gateway, resident_megabytes, serving
from stores import store
from wrk import CONNECTIONS, press, written


def run() -> Section:
    """Measure on SQLite, where the database is part of the process."""
    started = [cpu_of("--help") for _ in range(2 * ROUNDS)][ROUNDS:]
    idle, busy = [], []
    for _ in range(ROUNDS):
        before, after = memory()
        idle.append(before)
        busy.append(after)
    return Section(
        "process",
        "Processes",
        [
            Row("`serve`, one process, as it starts", idle, 100, 70, at_most=True, unit="MB"),
            Row(f"the same after requests on {CONNECTIONS} connections", busy, 100, 70, at_most=True, unit="MB"),
            Row("`product-gateway --help`, CPU", started, 0.35, 0.2, at_most=True, unit="s"),
        ],
    )


def cpu_of(*arguments: str) -> float:
    """Return the CPU seconds of a command, over all its threads."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "product_gateway", *arguments], check=True, capture_output=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def memory() -> tuple[float, float]:
    """Return the megabytes of a server after its start, and after a second of requests."""
    with store("sqlite") as url, tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        command, environment = gateway(url, folder, port=port)
        with serving(command, environment, folder / "log", port) as server:
            before = resident_megabytes(server.pid)
            press(server.url, written(folder, "requests", [("GET", "/health/ready", "")]), 1)
            return before, resident_megabytes(server.pid)
