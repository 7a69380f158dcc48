"""The database: how to reach it. The only knowledge of what differs between databases, with `columns` and `dialects`.

Functions of this package take a connection and are called through a Database, which runs them in a
transaction, on threads of its own:

    sync = await database.write(enqueue, "demo", EntityType.PRODUCT)
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from product_gateway.db.engines import postgresql, sqlite
from product_gateway.db.errors import AWAY, in_one_line, translate_errors
from product_gateway.db.executor import BEGIN, READ, WRITE, InFlight, ThreadPool, WorkItem, deadline
from product_gateway.db.group_commit import GroupCommit
from product_gateway.errors import SettingsError, Unavailable
from product_gateway.telemetry import tracing

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 8  # that read, and as many that write: a crowd of writes that wait must not keep others from reading
SECONDS_TO_WAIT = 5.0  # for a lock of SQLite's, and for a connection
SHARE_OF_THE_DEADLINE_TO_WAIT = 0.9  # so that there is an answer before it, by which nothing was done
SECONDS_TO_FINISH = 2.0  # of a close, before what is under way is given up
SECONDS_TO_GIVE_UP = 0.5
# It quotes nothing of the URL: where it is in doubt, any part may belong to a password.
IN_DOUBT = (
    "PRODUCT_GATEWAY_DATABASE_URL is not a valid URL of a database. It is not shown here, as it may hold a password. "
    "In a user name or password, write @ as %40, / as %2F, : as %3A, # as %23, ? as %3F, % as %25 and a space as %20. "
    "Examples: sqlite:///var/gateway.db, postgresql://user:password@host:5432/name, "
    "postgresql://user@%2Fvar%2Frun%2Fpostgresql/name"
)


class Database:
    """A database and the threads that use it. Every method may raise Unavailable.

    With a deadline, nothing takes longer than so many seconds: what the database has not answered by then is given
    up. A write that may have been committed all the same says so.
    """

    def __init__(self, engine: Engine, deadline: float | None = None) -> None:
        self.engine = engine
        self._deadline = deadline
        self._end: float | None = None  # of all that is asked of it, by the event loop's clock
        self._under_way = InFlight()
        self._readers = ThreadPool(engine.execution_options(**{BEGIN: READ}), THREADS)
        self._writing = engine.execution_options(**{BEGIN: WRITE})
        one_writer = engine.dialect.name == "sqlite"
        self._writers = GroupCommit(self._writing) if one_writer else ThreadPool(self._writing, THREADS)

    async def read(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work(connection, …)` in a transaction that sees one state of the database."""
        return await self._in_thread(self._readers, work, args, kwargs)

    async def read_autocommit(
        self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The same as `read`, for work with one statement: it sees one state by itself, and needs no transaction."""
        return await self._in_thread(self._readers, work, args, kwargs, once=True)

    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work(connection, …)` in a transaction, which is durable when this returns."""
        return await self._in_thread(self._writers, work, args, kwargs, writes=True)

    async def write_autocommit(
        self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The same as `write`, for work of which each statement is right by itself: PostgreSQL hears of no other."""
        return await self._in_thread(self._writers, work, args, kwargs, writes=True, once=True)

    def call(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same as `write`, for code without an event loop; it has no deadline."""
        with translate_errors(), self._writing.begin() as connection:
            return work(connection, *args, **kwargs)

    def start_deadline(self) -> None:
        """A request begins: all that it reads and writes from now on has one deadline together."""
        if self._deadline is not None:
            deadline.set(asyncio.get_running_loop().time() + self._deadline)

    def shorten_deadline(self, seconds: float) -> None:
        """The process is to end: what is under way has so many seconds, and what comes is over after twice as many."""
        self._deadline = 2 * seconds
        self._end = asyncio.get_running_loop().time() + self._deadline
        for unit in self._under_way.units:
            self._under_way.limit(unit, seconds)

    def close(self) -> None:
        """Finishes what is under way, or gives it up when that takes long; then lets go of the connections."""
        somebody_waits = not all(unit.is_over() for unit in list(self._under_way.units))
        for seconds in (SECONDS_TO_FINISH if somebody_waits else SECONDS_TO_GIVE_UP, SECONDS_TO_GIVE_UP):
            moment = time.monotonic() + seconds
            if all([self._readers.close(moment), self._writers.close(moment)]):
                break
            for unit in list(self._under_way.units):
                unit.cut()
        self.engine.dispose()

    async def _in_thread(
        self,
        threads: ThreadPool | GroupCommit,
        work: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        writes: bool = False,
        once: bool = False,
    ) -> T:
        with tracing.db_span(work):
            unit = self._unit(partial(_call, work, args, kwargs), writes=writes, once=once)
            threads.run(unit)
            result: T = await unit.future
        return result

    def _unit(self, work: Callable[[Connection], Any], *, writes: bool, once: bool) -> WorkItem:
        if self._deadline is None:
            return WorkItem(work, self._under_way, writes=writes, once=once)
        left, end = self._deadline, deadline.get() or self._end
        if end is not None:
            left = min(left, end - asyncio.get_running_loop().time())
            if left <= 0:
                raise Unavailable(AWAY) from TimeoutError("There is no time left to ask it.")
        unit = WorkItem(work, self._under_way, writes=writes, once=once)
        self._under_way.limit(unit, left)
        return unit


def _call(work: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], connection: Connection) -> T:
    return work(connection, *args, **kwargs)


def connect(url: str, *, deadline: float | None = None, may_create: bool = True) -> Database:
    """The database at a URL of SQLAlchemy's or libpq's. Contacts nothing yet. Raises SettingsError.

    With a deadline (seconds for one read or write) it is for those who cannot wait. A file of SQLite's that is not
    there is made if it may be.
    """
    found = postgresql.SCHEME.match(url)
    scheme = found[1] if found else ""
    wait = SECONDS_TO_WAIT if deadline is None else deadline * SHARE_OF_THE_DEADLINE_TO_WAIT
    if scheme in ("sqlite", "sqlite+pysqlite"):
        if not url.startswith(f"{scheme}:///") and url != f"{scheme}://":
            raise SettingsError(IN_DOUBT)
        # one connection for each thread, and one for the writer
        return Database(sqlite.engine(make_url(url), THREADS + 1, wait, may_create=may_create), deadline)
    if scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        try:
            parsed = postgresql.parsed(url)
        except ValueError:
            raise SettingsError(IN_DOUBT) from None
        return Database(postgresql.engine(parsed, 2 * THREADS, wait, deadline=deadline), deadline)
    if not scheme:
        raise SettingsError(IN_DOUBT)
    raise SettingsError(
        f"PRODUCT_GATEWAY_DATABASE_URL starts with {scheme}://; the gateway keeps its data in SQLite "
        "(sqlite:///var/gateway.db) or PostgreSQL (postgresql://user@host/name)."
    )


@contextmanager
def open_database(url: str, *, may_create: bool = True) -> Iterator[Database]:
    """The database, let go of at the end. Raises SettingsError, also where it cannot be used, with the reason."""
    database = connect(url, may_create=may_create)
    try:
        yield database
    except (Unavailable, SQLAlchemyError) as error:
        said = error.with_cause if isinstance(error, Unavailable) else f"{AWAY} {in_one_line(error)}"
        # for the operator, at a command or a start: so it says which database, though not its password
        where = postgresql.without_secrets(database.engine.url)
        raise SettingsError(f"{said} It is {where} (PRODUCT_GATEWAY_DATABASE_URL).") from error
    finally:
        database.close()


def is_embedded(database: Database) -> bool:
    """Whether the database is a file of ours, which we may migrate unasked."""
    return database.engine.dialect.name == "sqlite"
