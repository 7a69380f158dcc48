"""The database: how to reach it. The only knowledge of dialects, together with `tables`.

Functions of this package take a connection and are called through a Database, which runs them in a
transaction, on threads of its own:

    sync = await database.write(syncs.enqueue, "demo", EntityType.PRODUCT)
"""

import asyncio
import functools
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from product_gateway.db import postgresql
from product_gateway.db.writer import GroupCommit
from product_gateway.errors import SettingsError, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 8
SECONDS_TO_WAIT_FOR_A_LOCK = 5
SECONDS_TO_WAIT_FOR_A_CONNECTION = 5
OLDEST_SQLITE = (3, 35, 0)  # the first with RETURNING
INSUFFICIENT_PRIVILEGE = "42501"  # PostgreSQL's SQLSTATE


class Database:
    """A database and the threads that use it. Every method may raise Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="database")
        self._writing = engine.execution_options(begin="IMMEDIATE")
        self._writer = GroupCommit(self._writing) if engine.dialect.name == "sqlite" else None

    async def read(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work(connection, …)` in a transaction that sees one state of the database."""
        bound = functools.partial(self._run, self.engine, work, args, kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, bound)

    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work(connection, …)` in a transaction, which is durable when this returns."""
        if self._writer is None:
            bound = functools.partial(self._run, self._writing, work, args, kwargs)
            return await asyncio.get_running_loop().run_in_executor(self._threads, bound)
        with faults_as_unavailable():
            future = self._writer.submit(functools.partial(_call, work, args, kwargs))
            result: T = await asyncio.wrap_future(future)
            return result

    def call(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same as `write`, for code without an event loop."""
        return self._run(self._writing, work, args, kwargs)

    def close(self) -> None:
        """Finishes what is under way, then lets go of the connections."""
        self._threads.shutdown()
        if self._writer is not None:
            self._writer.close()
        self.engine.dispose()

    @staticmethod
    def _run(engine: Engine, work: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        with faults_as_unavailable(), engine.begin() as connection:
            return work(connection, *args, **kwargs)


def _call(work: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], connection: Connection) -> T:
    return work(connection, *args, **kwargs)


@contextmanager
def faults_as_unavailable() -> Iterator[None]:
    """What a database that is away, locked, full or not ours raises becomes Unavailable, with the driver's error as
    the cause: SQLAlchemy's own also holds the statement and its values."""
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("The database cannot be used at the moment.") from error
    except DBAPIError as error:
        if not _is_away(error):
            raise
        raise Unavailable("The database cannot be used at the moment.") from error.orig


def _is_away(error: DBAPIError) -> bool:
    return (
        isinstance(error, OperationalError | InterfaceError)
        or error.connection_invalidated
        or type(error) is DatabaseError  # SQLite's "file is not a database"
        or getattr(error.orig, "sqlstate", None) == INSUFFICIENT_PRIVILEGE
    )


def connect(url: str) -> Database:
    """The database at a URL of SQLAlchemy's or libpq's. Contacts nothing yet. Raises SettingsError."""
    try:
        parsed = postgresql.parsed(url)
    except (ArgumentError, ValueError):  # of the port
        raise SettingsError(
            "PRODUCT_GATEWAY_DATABASE_URL is not a SQLAlchemy URL. Examples: sqlite:///var/gateway.db, "
            "postgresql://user@host/name"
        ) from None
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return Database(_sqlite(parsed))
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return Database(postgresql.engine(parsed, THREADS, SECONDS_TO_WAIT_FOR_A_CONNECTION))
    raise SettingsError(
        f"PRODUCT_GATEWAY_DATABASE_URL starts with {parsed.drivername}://; the gateway keeps its data in SQLite "
        "(sqlite:///var/gateway.db) or PostgreSQL (postgresql://user@host/name)."
    )


@contextmanager
def open_for_a_while(url: str) -> Iterator[Database]:
    """The database, let go of at the end. Raises SettingsError, also where it cannot be used, with the reason."""
    database = connect(url)
    try:
        yield database
    except Unavailable as error:
        # for the operator, at a command or a start: so it says which database, though not its password
        where = postgresql.without_secrets(database.engine.url)
        raise SettingsError(f"{error.with_cause} It is {where} (PRODUCT_GATEWAY_DATABASE_URL).") from error
    finally:
        database.close()


def is_embedded(database: Database) -> bool:
    """Whether the database is a file of ours, which we may migrate unasked."""
    return database.engine.dialect.name == "sqlite"


def _sqlite(url: URL) -> Engine:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise SettingsError(
            f"This Python has SQLite {sqlite3.sqlite_version}; 3.35 or newer is needed. Use another Python, or "
            "PostgreSQL by PRODUCT_GATEWAY_DATABASE_URL."
        )
    if not url.database or url.database == ":memory:":
        raise SettingsError("PRODUCT_GATEWAY_DATABASE_URL must name a file: sqlite:///var/gateway.db")
    folder = Path(url.database).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"The folder of the database, {folder}, cannot be made: {error.strerror}.") from None
    engine = create_engine(
        url,
        pool_size=THREADS + 1,  # and one for the writer
        max_overflow=2,
        pool_timeout=SECONDS_TO_WAIT_FOR_A_CONNECTION,
        connect_args={"timeout": SECONDS_TO_WAIT_FOR_A_LOCK, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says so
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once when another one wrote meanwhile.
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")
