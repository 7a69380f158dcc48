"""Server processes that are measured: each runs on one core, or on all, and is ended in any case."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import httpx2
from wrk import SERVER_CORE, on_core

from product_gateway import settings
from product_gateway.auth import keys

SECONDS_TO_START = 60
HERE = Path(__file__).parent


class Server(NamedTuple):
    """A server that accepts connections."""

    url: str
    pid: int


@contextmanager
def process(
    command: list[str], environment: Mapping[str, str], log: Path, core: int | None = SERVER_CORE
) -> Iterator[int]:
    """Run a process that logs to `log`; yield its id (taskset execs the command)."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PRODUCT_GATEWAY_")}
    with log.open("wb") as said:
        running = subprocess.Popen(
            command if core is None else on_core(core, *command),
            env={**clean, **environment}, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield running.pid
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if running.poll() is None:
                os.killpg(running.pid, number)
                try:
                    running.wait(10)
                except subprocess.TimeoutExpired:
                    continue


@contextmanager
def serving(
    command: list[str], environment: Mapping[str, str], log: Path, port: int, core: int | None = SERVER_CORE
) -> Iterator[Server]:
    """Run a server on that loopback port, and wait until it accepts connections."""
    with process(command, environment, log, core) as pid:
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if not Path(f"/proc/{pid}").exists() or time.monotonic() > deadline:
                    raise RuntimeError(f"{command} did not start: {log.read_text()}") from None
                time.sleep(0.05)
        yield Server(f"http://127.0.0.1:{port}", pid)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def gateway(url: str, folder: Path, *, port: int) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of `product-gateway serve` over a database."""
    return [sys.executable, "-m", "product_gateway", "serve", "--port", str(port)], {
        "PRODUCT_GATEWAY_DATA_DIR": str(folder),
        "PRODUCT_GATEWAY_DATABASE_URL": url,
        "PRODUCT_GATEWAY_OPERATIONS_PORT": "0",
        "PRODUCT_GATEWAY_ACCESS_LOG": "false",
        "PRODUCT_GATEWAY_RATE_LIMIT_PER_MERCHANT": "off",  # the load has few merchants
        "PRODUCT_GATEWAY_ALLOW_PRIVATE_ADDRESSES": "true",
    }


@contextmanager
def client_of(server: Server, folder: Path) -> Iterator[httpx2.Client]:
    """A client of the merchant `shop`, with all scopes. `folder` has the gateway's data."""
    token = keys.issue_token(settings.load(data_dir=folder), "shop", list(keys.SCOPES), timedelta(hours=1))
    with httpx2.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
        yield client


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of the process so far, over all its threads."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of the process (VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no memory")
