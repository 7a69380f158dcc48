"""A fork server: starts processes of `product-gateway` as forks of one that has imported its modules.

Each fork has its own arguments, environment and signals, and saves a second of imports. Tests of the real start use
`anew`.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

LONGEST_ORDER = 1 << 20


class Starter:
    """The process that forks. It takes one order at a time, from any thread."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._turn = threading.Lock()
        self._popen = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        atexit.register(self._end)

    def _end(self) -> None:
        self._control.close()
        self._popen.wait(10)

    def ask(self, **order: object) -> int | None:
        """Send an order to `obey` and return its answer."""
        with self._turn:
            self._control.send(json.dumps(order).encode())
            answer = self._control.recv(LONGEST_ORDER)
        assert answer, "the process that starts others has ended; what it said is on standard error"
        found: int | None = json.loads(answer)
        return found


@functools.cache
def starter() -> Starter:
    """Return the fork server of this process."""
    return Starter()


class Forked:
    """A forked process with the parts of subprocess.Popen's interface that tests use."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        folder: Path,
        out: Path,
        err: Path | None = None,
        *,
        umask: int | None = None,
    ) -> None:
        """`out` gets what it prints, and what it says on standard error where there is no `err`."""
        files = [out, err or out]
        for each in files:
            each.touch()
        pid = starter().ask(
            start=arguments,
            environment=environment,
            folder=str(folder),
            files=[str(each) for each in files],
            umask=umask,
        )
        assert pid
        self.pid = pid
        self.returncode: int | None = None
        self._turn = threading.Lock()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        with self._turn:
            if self.returncode is None:
                self.returncode = starter().ask(status_of=self.pid)
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        """The exit status. Raises TimeoutExpired."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        """To the process, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tells it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it."""
        self.send_signal(signal.SIGKILL)


def obey(control: socket.socket) -> None:
    """Serve orders until the control socket is closed. In each started process, return at the end of its command."""
    import psycopg
    import sqlalchemy.dialects.postgresql
    import sqlalchemy.dialects.sqlite

    from product_gateway import demo
    from product_gateway.cli import main
    from product_gateway.http_client import client
    from product_gateway.merchants import administration
    from product_gateway.openapi import documents
    from product_gateway.sample import catalog_file, service
    from product_gateway.services import processes

    assert all((main, catalog_file, demo, processes, administration, service, psycopg, sqlalchemy))
    client.default_ssl_context()
    for name in (documents.GATEWAY, documents.OPERATIONS, documents.PRODUCT_SERVICE):
        documents.load(name)  # a third of the time that a server needs to start
    gc.freeze()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup would pass on that it is ignored
    while content := control.recv(LONGEST_ORDER):
        order = json.loads(content)
        if "status_of" in order:
            pid, status = os.waitpid(order["status_of"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                control.close()
                become(**order)
                return
        control.send(json.dumps(answer).encode())


def become(start: list[str], environment: dict[str, str], folder: str, files: list[str], umask: int | None) -> None:
    """Run what `python -m product_gateway` would run."""
    from product_gateway.cli.main import main

    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(files, start=1):
        said = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(said, number)
        os.close(said)
    if umask is not None:
        os.umask(umask)
    sys.argv = ["product-gateway", *start]
    main()


if __name__ == "__main__":
    obey(socket.socket(fileno=int(sys.argv[1])))
