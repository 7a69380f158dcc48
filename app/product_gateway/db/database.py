"""The database: connects by URL and runs functions in transactions, on its own threads.

Functions of this package take a connection:

    sync = await database.write(enqueue, "demo", EntityType.PRODUCT)
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from product_gateway.db.engines import postgresql, sqlite
from product_gateway.db.errors import AWAY, in_one_line, translate_errors
from product_gateway.db.executor import BEGIN, InFlight, Purpose, ThreadPool, WorkItem, autocommit_work, deadline
from product_gateway.db.group_commit import GroupCommit
from product_gateway.errors import SettingsError, Unavailable
from product_gateway.telemetry import tracing

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 8  # for reads, and as many for writes: waiting writes must not block reads
SECONDS_TO_WAIT = 5.0  # for SQLite's lock, and for a pooled connection
SHARE_OF_THE_DEADLINE_TO_WAIT = 0.9  # a wait ends before the deadline, so it is known that nothing was done
SECONDS_TO_FINISH = 2.0  # for work in flight at a close
SECONDS_TO_GIVE_UP = 0.5
# Quotes nothing: in an ambiguous URL, any part may belong to a password.
INVALID_URL = (
    "PRODUCT_GATEWAY_DATABASE_URL is not a valid URL of a database. It is not shown here, as it may hold a password. "
    "In a user name or password, write @ as %40, / as %2F, : as %3A, # as %23, ? as %3F, % as %25 and a space as %20. "
    "Examples: sqlite:///var/gateway.db, postgresql://user:password@host:5432/name, "
    "postgresql://user@%2Fvar%2Frun%2Fpostgresql/name"
)


class Database:
    """A database and the threads that use it. Every method may raise Unavailable.

    With a deadline, every call ends within this many seconds. An expired write that may have been committed says so.
    """

    def __init__(self, engine: Engine, deadline: float | None = None) -> None:
        self.engine = engine
        self._timeout = deadline
        self._last_deadline = math.inf  # of all calls while the process stops, by the event loop's clock
        self._in_flight = InFlight()
        self._readers = ThreadPool(engine.execution_options(**{BEGIN: Purpose(writes=False)}), THREADS)
        self._writing = engine.execution_options(**{BEGIN: Purpose(writes=True)})
        one_writer = engine.dialect.name == "sqlite"
        self._writers = GroupCommit(self._writing) if one_writer else ThreadPool(self._writing, THREADS)

    async def read(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, …)` in a transaction that sees one snapshot. Work marked `autocommit` needs none."""
        purpose = Purpose(writes=False, autocommit=work in autocommit_work)
        return await self._run(self._readers, purpose, work, lambda connection: work(connection, *args, **kwargs))

    async def write(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, …)` in a transaction, as `read` does. It is durable when this returns."""
        purpose = Purpose(writes=True, autocommit=work in autocommit_work)
        return await self._run(self._writers, purpose, work, lambda connection: work(connection, *args, **kwargs))

    def call(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a write in the calling thread, for code without an event loop. It has no deadline."""
        with translate_errors(), self._writing.begin() as connection:
            return work(connection, *args, **kwargs)

    def start_deadline(self) -> None:
        """Start one deadline for all calls of the current request."""
        if self._timeout is not None:
            deadline.set(asyncio.get_running_loop().time() + self._timeout)

    def shorten_deadline(self, seconds: float) -> None:
        """Give calls in flight this many seconds; new calls end after twice the time. For a process that stops."""
        now = asyncio.get_running_loop().time()
        self._timeout = 2 * seconds
        self._last_deadline = now + self._timeout
        self._in_flight.set_deadlines(now + seconds)

    def close(self) -> None:
        """Finish the calls in flight, cancel those that take too long, and close all connections."""
        for seconds in (SECONDS_TO_FINISH if self._in_flight.is_awaited() else SECONDS_TO_GIVE_UP, SECONDS_TO_GIVE_UP):
            moment = time.monotonic() + seconds
            if all([self._readers.close(moment), self._writers.close(moment)]):
                break
            self._in_flight.cancel()
        self.engine.dispose()

    async def _run(
        self,
        threads: ThreadPool | GroupCommit,
        purpose: Purpose,
        work: Callable[..., T],
        call: Callable[[Connection], T],
    ) -> T:
        with tracing.db_span(work):
            item = WorkItem(call, self._in_flight, purpose)
            future = self._in_flight.start(item, self._next_deadline())
            try:
                threads.run(item)
                result: T = await future
            except asyncio.CancelledError:
                item.is_wanted = False
                raise
            finally:
                del future  # breaks a reference cycle: the future holds the error, whose traceback holds this frame
        return result

    def _next_deadline(self) -> float:
        """Return the deadline of the next call, by the event loop's clock. Raise Unavailable if there is no time."""
        if self._timeout is None:
            return math.inf
        now = asyncio.get_running_loop().time()
        end = deadline.get() or self._last_deadline
        if end <= now:
            raise Unavailable(AWAY) from TimeoutError("There is no time left to ask it.")
        return min(now + self._timeout, end)


def connect(url: str, *, deadline: float | None = None, may_create: bool = True) -> Database:
    """Return the database at a URL of SQLAlchemy or libpq, without connecting. Raises SettingsError.

    `deadline` is in seconds for one call. `may_create` allows SQLite to create a missing file.
    """
    found = postgresql.SCHEME.match(url)
    scheme = found[1] if found else ""
    wait = SECONDS_TO_WAIT if deadline is None else deadline * SHARE_OF_THE_DEADLINE_TO_WAIT
    if scheme in ("sqlite", "sqlite+pysqlite"):
        if not url.startswith(f"{scheme}:///") and url != f"{scheme}://":
            raise SettingsError(INVALID_URL)
        # one connection for each reader, and one for the writer
        return Database(sqlite.engine(make_url(url), THREADS + 1, wait, may_create=may_create), deadline)
    if scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        try:
            parsed = postgresql.parsed(url)
        except ValueError:
            raise SettingsError(INVALID_URL) from None
        return Database(postgresql.engine(parsed, 2 * THREADS, wait, deadline=deadline), deadline)
    if not scheme:
        raise SettingsError(INVALID_URL)
    raise SettingsError(
        f"PRODUCT_GATEWAY_DATABASE_URL starts with {scheme}://; the gateway keeps its data in SQLite "
        "(sqlite:///var/gateway.db) or PostgreSQL (postgresql://user@host/name)."
    )


@contextmanager
def open_database(url: str, *, may_create: bool = True) -> Iterator[Database]:
    """Yield the database and close it at the end. Raises SettingsError, also if the database cannot be used."""
    database = connect(url, may_create=may_create)
    try:
        yield database
    except (Unavailable, SQLAlchemyError) as error:
        said = error.with_cause if isinstance(error, Unavailable) else f"{AWAY} {in_one_line(error)}"
        # for the operator: names the database, without its password
        where = postgresql.without_secrets(database.engine.url)
        raise SettingsError(f"{said} It is {where} (PRODUCT_GATEWAY_DATABASE_URL).") from error
    finally:
        database.close()


def is_embedded(database: Database) -> bool:
    """Whether the database is a SQLite file, which is migrated automatically."""
    return database.engine.dialect.name == "sqlite"
