"""Real processes, started as an operator starts them, for tests from outside."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx2

from product_gateway import settings
from product_gateway.auth import keys
from product_gateway.settings import Settings
from tests.support.fork_server import Forked

STARTS_WITHIN = 60  # on a busy machine; a wait for a process that has exited ends at once
ENDS_WITHIN = 15
API = "/product-gateway/v1"


class Deployment:
    """One data directory, one database, and the `product-gateway` commands and processes that use them."""

    def __init__(self, folder: Path, database_url: str, **more: str) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PRODUCT_GATEWAY_")},
            "PRODUCT_GATEWAY_DATA_DIR": str(folder / "var"),
            "PRODUCT_GATEWAY_DATABASE_URL": database_url,
            "PRODUCT_GATEWAY_ALLOW_PRIVATE_ADDRESSES": "true",
            "PRODUCT_GATEWAY_WORKER_POLL_SECONDS": "0.1",
            "PRODUCT_GATEWAY_OPERATIONS_PORT": "0",
            "PRODUCT_GATEWAY_RATE_LIMIT_PER_MERCHANT": "off",  # tests ask faster than clients
            "PRODUCT_GATEWAY_RETRY_WAIT_SECONDS": "0.1",
            **{f"PRODUCT_GATEWAY_{name.upper()}": value for name, value in more.items()},
        }
        keys.make_missing(self.settings())  # as the first `merchant add` does: some tests start with another command

    def run(self, *arguments: str, check: bool = True, anew: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; with `anew` in a new interpreter."""
        name = f"{arguments[0]}-{time.monotonic_ns()}"
        out, err = (self.folder / f"{name}.{stream}" for stream in ("out", "err"))
        command = (_anew if anew else Forked)(arguments, self.environment, self.folder, out, err)
        try:
            status = command.wait(60)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{arguments} did not end: {out.read_text()}{err.read_text()}") from None
        finally:
            command.kill()
        done = subprocess.CompletedProcess(arguments, status, out.read_text(), err.read_text())
        if check:
            assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done

    def settings(self) -> Settings:
        """Return the settings that locate the keys of this deployment."""
        return settings.load(data_dir=self.folder / "var")

    def token(self, merchant: str, *arguments: str) -> str:
        """Return a bearer token from the command."""
        return self.run("token", merchant, *arguments).stdout.strip()

    def client(self, url: str, merchant: str, *arguments: str) -> httpx2.Client:
        """Return an HTTP client with a token of the merchant."""
        headers = {"Authorization": f"Bearer {self.token(merchant, *arguments)}"}
        return httpx2.Client(base_url=url, headers=headers, timeout=30)

    @contextmanager
    def process(self, *arguments: str, anew: bool = False) -> Iterator["Process"]:
        """Run a process until the block ends; with `anew` in a new interpreter."""
        process = Process(self, arguments, anew=anew)
        try:
            yield process
        finally:
            process.end()

    @contextmanager
    def serving(self, *arguments: str) -> Iterator[str]:
        """Run `product-gateway serve` on a free port; yield its URL."""
        with self.process("serve", "--port", "0", *arguments) as process:
            url = process.url()
            within(STARTS_WITHIN, lambda: is_ready(url))
            yield url

    @contextmanager
    def sample_service(self, *arguments: str) -> Iterator[str]:
        """Run `product-gateway sample-service` on a free port; yield its URL."""
        with self.process("sample-service", "--port", "0", *arguments) as process:
            yield process.url()


class Process:
    """A process of `product-gateway`, which logs to `log`."""

    def __init__(self, deployment: Deployment, arguments: tuple[str, ...], *, anew: bool = False) -> None:
        self.log = deployment.folder / f"{arguments[0]}-{time.monotonic_ns()}.log"
        self._popen = (_anew if anew else Forked)(arguments, deployment.environment, deployment.folder, self.log)
        watch(self._popen, " ".join(arguments), self.log)

    def url(self) -> str:
        """The API address that the process logs."""
        return str(within(STARTS_WITHIN, lambda: self._said_url("listens on ")))

    def operations_url(self) -> str:
        """The operations address that the process logs."""
        said = str(within(STARTS_WITHIN, lambda: self._said_url("Metrics and health are at ")))
        return said.strip('",').removesuffix("/metrics")

    def _said_url(self, before: str) -> str | None:
        said = self.log.read_text()
        return said.partition(before)[2].split()[0] if before in said and said.endswith("\n") else None

    def send(self, number: signal.Signals) -> None:
        """Send a signal. Waits no longer require this process to be alive."""
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            unwatch(self._popen)
        self._popen.send_signal(number)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._popen.pid

    def status(self) -> int | None:
        """The exit status, where it has ended."""
        status = self._popen.poll()
        if status is not None:  # the caller deals with it
            unwatch(self._popen)
        return status

    def wait(self) -> int:
        """The exit status."""
        unwatch(self._popen)
        return self._popen.wait(ENDS_WITHIN)

    def end(self) -> None:
        """End the process, by force if necessary. Raises AssertionError if it has exited unnoticed."""
        unnoticed = is_watched(self._popen)
        unwatch(self._popen)
        status = self._popen.poll()
        assert status is None or not unnoticed, f"the process has exited with {status}: {_end_of(self.log)}"
        if status is None:
            self._popen.terminate()
            try:
                self._popen.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
                raise AssertionError(f"the process did not end by itself: {self.log.read_text()}") from None


def _anew(
    arguments: Sequence[str], environment: dict[str, str], folder: Path, out: Path, err: Path | None = None
) -> "subprocess.Popen[bytes]":
    with out.open("a") as printed, (err or out).open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "product_gateway", *arguments],
            env=environment,
            cwd=folder,
            stdout=printed,
            stderr=said,
            start_new_session=True,
        )


class Watched(Protocol):
    """A process: subprocess.Popen or fork_server.Forked."""

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""


_watched: dict[int, tuple[Watched, str, Path]] = {}


def watch(process: Watched, name: str, log: Path) -> None:
    """Let every wait (`within`) fail as soon as this process has exited, and show what it has written to `log`."""
    _watched[id(process)] = (process, name, log)


def unwatch(process: Watched) -> None:
    """Let waits continue although this process has exited."""
    _watched.pop(id(process), None)


def is_watched(process: Watched) -> bool:
    """Return whether waits need this process alive."""
    return id(process) in _watched


def within(seconds: float, condition: Callable[[], Any]) -> Any:
    """Return the first true answer of `condition`.

    Raises AssertionError when there is none in time, and as soon as a watched process has exited.
    """
    started = time.monotonic()
    deadline = started + seconds
    while True:
        exited = [each for each in list(_watched.values()) if each[0].poll() is not None]
        answer = condition()  # after the look at the processes: the last words of one that has exited count
        if answer:
            return answer
        for process, name, log in exited:
            unwatch(process)
            raise AssertionError(f"`{name}` has exited with {process.poll()}: {_end_of(log)}")
        if time.monotonic() > deadline:
            running = "".join(f"\n`{name}` says: {_end_of(log)}" for _, name, log in _watched.values())
            raise AssertionError(f"nothing came true within {seconds} s: {condition}{running}")
        # A long wait looks less often: most conditions are requests, which take the time of what is waited for.
        time.sleep(min(0.25, max(0.02, (time.monotonic() - started) / 10)))


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-5000:]


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port on which nothing listens, for servers that cannot choose one by themselves.

    It is below the range from which the system takes ports for connections and for servers that ask for port 0, so
    that neither takes it before the server listens.
    """
    for _ in range(100):
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as found:
            try:
                found.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError("no port from 10000 to 29999 is free")


def ended(client: httpx2.Client, sync: dict[str, Any], seconds: float = 30) -> dict[str, Any]:
    """Wait for the end of the sync, and return it."""

    def look() -> dict[str, Any] | None:
        now: dict[str, Any] = client.get(f"{API}/syncs/{sync['id']}").json()["data"]
        return None if now["status"] in ("QUEUED", "IN_PROGRESS") else now

    found: dict[str, Any] = within(seconds, look)
    return found


def is_ready(url: str) -> bool:
    """Return whether readiness is 200."""
    try:
        return httpx2.get(f"{url}/health/ready").status_code == 200
    except httpx2.TransportError:
        return False
