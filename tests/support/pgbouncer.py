"""PgBouncer in transaction mode, as a fixture."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.support import databases
from tests.support.deployment import free_port, unwatch, watch, within
from tests.support.postgresql_cluster import HOST, USER, give, unprivileged

PGBOUNCER = shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
SESSIONS = 2
"""The number of sessions that PgBouncer opens to a database."""


@pytest.fixture
def pgbouncer(postgresql_server: str) -> Iterator[str]:
    """Yield the URL of a new database through PgBouncer. Skip the test where that is not installed."""
    if PGBOUNCER is None:
        pytest.skip("PgBouncer is not installed (Debian: pgbouncer)")
    name = f"pgbouncer_{next(databases.numbers)}"
    databases.run(postgresql_server, f"CREATE DATABASE {name}")
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer"))
    give(folder)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"""
        [databases]
        * = host={make_url(postgresql_server).query["host"]} user={USER}
        [pgbouncer]
        listen_addr = {HOST}
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = transaction
        default_pool_size = {SESSIONS}
        """.replace("        ", "")
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([PGBOUNCER, str(settings)], cwd="/", stdout=log, stderr=log, **unprivileged())
    try:
        watch(process, "pgbouncer", folder / "log")
        within(10, lambda: listens(port))
        yield f"postgresql://{USER}@{HOST}:{port}/{name}"
    finally:
        unwatch(process)
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def listens(port: int) -> bool:
    """Return whether a server listens on the port."""
    try:
        socket.create_connection((HOST, port)).close()
    except ConnectionRefusedError:
        return False
    return True
