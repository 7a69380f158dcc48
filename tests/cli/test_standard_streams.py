"""Commands whose standard streams are closed, full or without a reader, and servers whose terminal is closed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.support.deployment import ENDS_WITHIN, STARTS_WITHIN, Deployment, free_port, is_ready, within

PROGRAM = f"exec {sys.executable} -m product_gateway"


def shell(deployment: Deployment, command: str) -> subprocess.CompletedProcess[str]:
    """Run `product-gateway` with arguments and redirections of the shell."""
    return subprocess.run(
        ["sh", "-c", f"{PROGRAM} {command}"],
        check=False,
        env=deployment.environment,
        cwd=deployment.folder,
        capture_output=True,
        text=True,
        timeout=STARTS_WITHIN,
    )


@pytest.mark.parametrize(
    ("redirection", "reason"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
@pytest.mark.parametrize("command", ["token shop", "merchant list", "distribute --print"])
def test_lost_output_is_an_error_in_one_sentence(
    command: str, redirection: str, reason: str, sqlite_deployment: Deployment
) -> None:
    """A script must not go on with half a list, or without the token."""
    sqlite_deployment.run("merchant", "add", "shop", "--platform", "BENTO")
    done = shell(sqlite_deployment, f"{command} {redirection}")
    assert (done.returncode, done.stderr) == (1, f"Standard output cannot be written: {reason}.\n")


def test_a_client_command_says_that_its_output_is_lost(sqlite_deployment: Deployment, tmp_path: Path) -> None:
    """And `changes` keeps its cursor: the next run prints the same changes."""
    sqlite_deployment.run("merchant", "add", "shop", "--platform", "BYOP", "--product-service-url", "https://x.example")
    cursor = tmp_path / "cursor"
    (tmp_path / "token").write_text(sqlite_deployment.token("shop"))
    with sqlite_deployment.serving() as url:
        options = f"--url {url} --token-file {tmp_path / 'token'}"
        for command in (f"history {options}", f"history --json {options}", f"products {options}"):
            done = shell(sqlite_deployment, f"{command} >/dev/full")
            assert (done.returncode, done.stderr) == (
                1,
                "Standard output cannot be written: No space left on device.\n",
            )
        done = shell(sqlite_deployment, f"changes PRODUCT --json --cursor-file {cursor} {options} >/dev/full")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert not cursor.exists()


def test_without_standard_error_a_command_works(sqlite_deployment: Deployment) -> None:
    """What it would say is lost, not what it does."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_NO_SETTING"] = "1"  # a warning on standard error
    for redirection in ("2>&-", "2>/dev/full", "<&- 2>&-"):
        done = shell(sqlite_deployment, f"token shop {redirection}")
        assert done.returncode == 0
        assert done.stdout.startswith("eyJ")
        assert shell(sqlite_deployment, f"token 'no name' {redirection}").returncode == 1


@contextmanager
def served(deployment: Deployment, redirections: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `serve` in a session of its own, with redirections; yield its process once it is ready."""
    port = free_port()
    command = f"{PROGRAM} serve --port {port} {' '.join(arguments)} {redirections}"
    environment = deployment.environment
    with subprocess.Popen(
        ["sh", "-c", command], env=environment, cwd=deployment.folder, start_new_session=True
    ) as process:
        try:
            within(STARTS_WITHIN, lambda: process.poll() is not None or is_ready(f"http://127.0.0.1:{port}"))
            assert process.poll() is None, f"it has ended with {process.returncode}"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full"])
def test_a_server_needs_no_standard_streams(redirections: str, processes: str, sqlite_deployment: Deployment) -> None:
    """A full disk for its log does not stop it. No socket or database gets the number of a closed stream."""
    with served(sqlite_deployment, redirections, "--with-worker", "--processes", processes) as server:
        for number in range(3):
            assert str(Path(f"/proc/{server.pid}/fd/{number}").readlink()) in ("/dev/null", "/dev/full")
        server.send_signal(signal.SIGTERM)
        assert server.wait(ENDS_WITHIN) == 0


def test_a_server_outlives_the_reader_of_its_log(sqlite_deployment: Deployment) -> None:
    """Such as a log shipper that crashed."""
    read, write = os.pipe()
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "product_gateway", "serve", "--port", str(port)],
        env=sqlite_deployment.environment,
        cwd=sqlite_deployment.folder,
        stderr=write,
    ) as server:
        os.close(write)
        os.close(read)
        try:
            within(STARTS_WITHIN, lambda: server.poll() is not None or is_ready(f"http://127.0.0.1:{port}"))
            assert httpx2.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
            server.send_signal(signal.SIGTERM)
            assert server.wait(ENDS_WITHIN) == 0
        finally:
            server.kill()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_closed_terminal_stops_a_server_in_order(processes: str, sqlite_deployment: Deployment) -> None:
    """SIGHUP reaches all processes of the terminal. Requests are finished, and the exit status is 0."""
    with served(sqlite_deployment, "2>server.log", "--with-worker", "--processes", processes) as server:
        os.killpg(server.pid, signal.SIGHUP)
        assert server.wait(ENDS_WITHIN) == 0
    assert "has ended with" not in (sqlite_deployment.folder / "server.log").read_text()


def test_nohup_keeps_a_server_running(sqlite_deployment: Deployment) -> None:
    """It ignores SIGHUP from the start."""
    command = f"trap '' HUP; {PROGRAM} sandbox >sandbox.json 2>&1"
    printed = sqlite_deployment.folder / "sandbox.json"
    with subprocess.Popen(
        ["sh", "-c", command], env=sqlite_deployment.environment, cwd=sqlite_deployment.folder, start_new_session=True
    ) as sandbox:
        try:
            within(STARTS_WITHIN, lambda: printed.exists() and printed.read_text().endswith("\n"))
            sandbox.send_signal(signal.SIGHUP)
            with pytest.raises(subprocess.TimeoutExpired):
                sandbox.wait(0.5)
            sandbox.send_signal(signal.SIGTERM)
            assert sandbox.wait(ENDS_WITHIN) == 0
        finally:
            sandbox.kill()
