"""deployment.within: a wait ends when the condition is true, a process has exited, or the time is up."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.deployment import STARTS_WITHIN, Deployment, Process, free_port, unwatch, watch, within


def test_a_wait_ends_as_soon_as_a_process_has_exited_and_shows_its_output(sqlite_deployment: Deployment) -> None:
    """Otherwise each failure to start costs the full timeout and shows no reason."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        sqlite_deployment.process("serve", "--port", str(taken.getsockname()[1])) as process,
    ):
        started = time.monotonic()
        with pytest.raises(AssertionError, match=r"`serve --port \d+` has exited with 1: .*is in use"):
            process.url()
        with sqlite_deployment.process("worker", "--nonsense"), pytest.raises(AssertionError, match="exited with 2"):
            within(60, lambda: False)
        assert time.monotonic() - started < STARTS_WITHIN


def test_the_last_output_of_an_exited_process_counts(tmp_path: Path) -> None:
    """A process may exit right after it fulfils the condition."""
    log = tmp_path / "log"
    with log.open("w") as out, subprocess.Popen([sys.executable, "-c", "print('done')"], stdout=out) as process:
        process.wait()
        watch(process, "python", log)
        assert within(0, lambda: "done" in log.read_text())
    unwatch(process)


def test_a_process_that_a_test_ended_does_not_fail_it(sqlite_deployment: Deployment) -> None:
    """Tests kill processes on purpose."""
    with sqlite_deployment.process("sample-service", "--port", "0") as process:
        process.url()
        process.send(signal.SIGKILL)
        assert within(20, lambda: process.status() is not None)
        with pytest.raises(AssertionError, match="nothing came true within 0 s"):
            within(0, lambda: False)


def test_a_process_that_has_exited_unnoticed_fails_the_test(sqlite_deployment: Deployment) -> None:
    """A worker that dies silently must fail the test."""
    process = Process(sqlite_deployment, ("sample-service", "--port", "0"))
    process.url()
    os.kill(process.pid, signal.SIGKILL)
    assert within(20, lambda: not Path(f"/proc/{process.pid}").exists())
    with pytest.raises(AssertionError, match=r"(?s)the process has exited with -9: .*listens on"):
        process.end()


def test_a_free_port_is_outside_the_ephemeral_range() -> None:
    """The system assigns ports of that range at any moment."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    with socket.create_server(("127.0.0.1", free_port())) as listening:
        assert not first <= listening.getsockname()[1] <= last
