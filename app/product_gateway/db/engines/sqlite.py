"""SQLite: one file with durable commits; detects when the file is moved or deleted."""

import os
import sqlite3
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from product_gateway.db.executor import BEGIN, CANCELLABLE, Purpose, connected
from product_gateway.errors import SettingsError

OLDEST = (3, 35, 0)  # the first with RETURNING
ANALYSIS_LIMIT = 400  # rows of each index that ANALYZE reads; SQLite recommends 100 to 1000
# Before 3.46, PRAGMA optimize sees only tables that the same connection has queried.
OPTIMIZE = "PRAGMA optimize=0x10002" if sqlite3.sqlite_version_info >= (3, 46) else "ANALYZE"
FILE = "file"  # the key of the file's identity in a connection's `info`


class CancellableStatement:
    """The current statement of a connection."""

    was_cancelled = False  # an interrupt ends one statement; the connection remains usable

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def cancel(self) -> None:
        """Interrupt the statement. This does not end a wait for a lock, which is short."""
        with suppress(sqlite3.Error):  # the connection is closed
            self._connection.interrupt()


def engine(url: URL, connections: int, seconds_to_wait: float, *, may_create: bool) -> Engine:
    """Return an engine that connects at first use; without `may_create`, only to an existing file.

    Raises SettingsError.
    """
    if sqlite3.sqlite_version_info < OLDEST:
        raise SettingsError(
            f"This Python has SQLite {sqlite3.sqlite_version}; 3.35 or newer is needed. Use another Python, or "
            "PostgreSQL by PRODUCT_GATEWAY_DATABASE_URL."
        )
    if not url.database or url.database == ":memory:":
        raise SettingsError("PRODUCT_GATEWAY_DATABASE_URL must name a file: sqlite:///var/gateway.db")
    if may_create:
        folder = Path(url.database).parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"The folder of the database, {folder}, cannot be made: {error.strerror}.") from None
    made = create_engine(
        url,
        pool_size=connections,
        max_overflow=2,
        pool_timeout=seconds_to_wait,
        connect_args={"timeout": seconds_to_wait, "check_same_thread": False},
    )
    _File(Path(url.database), may_create=may_create).watch(made)
    event.listen(made, "connect", partial(_prepare, seconds_to_wait=seconds_to_wait))
    event.listen(made, "begin", _begin)
    return made


class _File:
    """The database's file. A connection to a file that was moved would go on writing to it, unseen by others."""

    def __init__(self, path: Path, *, may_create: bool) -> None:
        self._path = path.absolute()
        self._may_create = may_create

    def watch(self, engine: Engine) -> None:
        event.listen(engine, "do_connect", self._require)
        event.listen(engine, "connect", self._remember)
        event.listen(engine, "checkout", self._compare)

    def _require(self, _dialect: Any, _record: Any, arguments: list[Any], more: dict[str, Any]) -> None:
        # SQLite would create an empty file, in the way of the one that the operator restores.
        if self._may_create:
            return
        if self._identity() is None:
            raise sqlite3.OperationalError("its file is not there; `serve`, `migrate` and `merchant add` make one.")
        arguments[:] = [f"{self._path.as_uri()}?mode=rw"]  # also if the file goes at this very moment
        more["uri"] = True

    def _remember(self, _connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[FILE] = self._identity()
        self._may_create = False

    def _compare(self, _connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
        if record.info[FILE] != self._identity():
            raise InvalidatePoolError("its file was taken away")  # SQLAlchemy then connects to the new file

    def _identity(self) -> tuple[int, int] | None:
        """Return device and inode. The same path may later lead to another file."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 - runs at each use; Path.stat takes three times as long
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _prepare(connection: Any, record: ConnectionPoolEntry, seconds_to_wait: float) -> None:
    cancellable = record.info[CANCELLABLE] = CancellableStatement(connection)
    connected(cancellable)
    connection.isolation_level = None  # _begin starts the transactions
    _use_wal(connection, seconds_to_wait)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", f"analysis_limit={ANALYSIS_LIMIT}"):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _use_wal(connection: Any, seconds_to_wait: float) -> None:
    """Use a write-ahead log. SQLite does not wait if another process is about to do the same, so that this must."""
    last_try = time.monotonic() + seconds_to_wait
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > last_try:
                raise
            connection.execute("BEGIN IMMEDIATE")  # waits
            connection.execute("ROLLBACK")
        else:
            return


def _begin(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads before it writes fails at once if another one wrote meanwhile.
    purpose = connection.get_execution_options().get(BEGIN, Purpose(writes=False))
    if not purpose.autocommit:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if purpose.writes else "BEGIN DEFERRED")


def optimize(engine: Engine) -> None:
    """Renew the query planner's statistics. Takes milliseconds, for any size (ANALYSIS_LIMIT).

    Do nothing where the database is locked or away: no plan depends on these statistics.
    """
    with suppress(DBAPIError, InvalidatePoolError, PoolTimeout), engine.begin() as connection:
        connection.exec_driver_sql(OPTIMIZE)
