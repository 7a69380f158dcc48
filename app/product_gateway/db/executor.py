"""A unit of work on its way from the event loop to a thread and back: in time, or given up.

A thread that waits for a database which hangs cannot be stopped. But what it waits on can be cut, and then it is free
again: PostgreSQL's connection, or SQLite's statement.
"""

import asyncio
import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Protocol

from sqlalchemy import Connection, Engine

from product_gateway.db.errors import AWAY, NOT_KNOWN, is_lost, translate_errors
from product_gateway.errors import Unavailable

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 0.05
SECONDS_BETWEEN_CUTS = 0.25  # of a unit that is given up
LEAST_SECONDS_TO_WAIT = 1.0  # before a line is cut: whoever had to wait in a crowd, and is served now, is let finish
LINE = "line"  # where a connection's `info` has its Line
BEGIN = "begin"  # an engine's option: what its transactions are for
READ, WRITE = "read", "write"
ONCE = "once"  # each statement is a transaction of its own: nothing has to begin it
WRITE_ONCE = "write once"  # the same for what writes

deadline: ContextVar[float | None] = ContextVar("until", default=None)
"""When the time of the request is up that this is about, by its event loop's clock."""


class Cancellable(Protocol):
    """What a thread waits on while it waits for the database."""

    was_cut: bool
    """Whether the connection must not be used again: the server may still be about to cancel a statement of it."""

    def cut(self) -> None:
        """The wait ends, with an error. To be called from any thread."""


class _Current(threading.local):
    unit: "WorkItem | None" = None


_current = _Current()


def connected(line: Cancellable) -> None:
    """A new connection: the first words on it may already hang."""
    if _current.unit is not None:
        _current.unit.wait_on(line)


class WorkItem:
    """A read or a write. It is made and waited for in an event loop, and runs in a thread."""

    def __init__(
        self, work: Callable[[Connection], Any], under_way: "InFlight", *, writes: bool, once: bool = False
    ) -> None:
        self.work = work
        self._options = {BEGIN: WRITE_ONCE if writes else ONCE} if once else {}
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()  # let go of when it is over
        self.due = math.inf  # when it is given up, by its event loop's clock
        self._under_way = under_way
        self._writes = writes
        self._lock = threading.Lock()  # what is cut under it still belongs to this unit
        self._line: Cancellable | None = None
        self._since = 0.0  # by the monotonic clock
        self._is_given_up = False
        self._may_be_done = False
        under_way.units.add(self)

    # In the event loop.

    def give_up(self, why: str) -> None:
        """Who waits for it hears that it is Unavailable. To be repeated until the thread is free."""
        self.cut(LEAST_SECONDS_TO_WAIT)
        if not self.is_over():
            fault = Unavailable(NOT_KNOWN if self._may_be_done else AWAY)
            fault.__cause__ = TimeoutError(why)
            self.future.set_exception(fault)

    def _settle(self, result: Any, fault: Exception | None) -> None:
        self._under_way.units.discard(self)
        future = self.future
        del self.future  # it holds the error, whose frames hold us: only a search for garbage would find that
        if future.done():
            return
        if fault is None:
            future.set_result(result)
        else:
            future.set_exception(fault)

    # In any thread.

    def is_over(self) -> bool:
        """Whether the one who waits for it has heard of it, or waits no more."""
        future: asyncio.Future[Any] | None = getattr(self, "future", None)
        return future is None or future.done()

    def cut(self, after: float = 0.0) -> None:
        """It is not begun any more, and not committed; what its thread has waited on for so many seconds is cut."""
        with self._lock:
            self._is_given_up = True
            if self._line is not None and time.monotonic() - self._since >= after:
                self._line.cut()

    # In the thread that runs it.

    def run(self, engine: Engine) -> None:
        """From its begin to its end, unless nobody waits for it any more."""
        self.end(*self._outcome(engine))

    def begin(self) -> bool:
        """False where nobody waits any more: then it must not be done."""
        with self._lock:
            return not (self._is_given_up or self.future.cancelled())

    def wait_on(self, line: Cancellable | None) -> None:
        """The thread waits on this line from now on, or on none."""
        with self._lock:
            self._line = line
            self._since = time.monotonic()

    def commit(self) -> None:
        """It is about to be committed. Raises Unavailable where it was given up."""
        with self._lock:
            if self._is_given_up:
                raise Unavailable(AWAY)
            self._may_be_done = self._writes

    def end(self, result: Any, fault: Exception | None) -> None:
        """Says how it went to the one who waits."""
        with suppress(RuntimeError):  # the event loop is closed: nobody waits
            self.loop.call_soon_threadsafe(self._settle, result, fault)

    def _outcome(self, engine: Engine) -> tuple[Any, Exception | None]:
        if not self.begin():
            return None, None
        _current.unit = self
        try:
            with translate_errors():
                return self._in_transaction(engine), None
        except Exception as error:  # noqa: BLE001 - it is handed to the one who asked
            return None, error
        finally:
            _current.unit = None
            self.wait_on(None)  # where the set-up of a connection failed

    def _in_transaction(self, engine: Engine) -> Any:
        with engine.connect() as connection:
            line: Cancellable = connection.info[LINE]
            self.wait_on(line)
            try:
                if not self.begin():
                    return None
                if self._options:  # each statement commits
                    self.commit()
                with connection.execution_options(**self._options).begin():
                    result = self.work(connection)
                    self.commit()
                return result
            except Exception as error:
                if self._may_be_done and is_lost(error):
                    raise Unavailable(NOT_KNOWN) from getattr(error, "orig", error)
                raise
            finally:
                self.wait_on(None)
                if line.was_cut:
                    connection.invalidate()


class InFlight:
    """The units that threads are not done with. One look at all of them costs less than a timer for each."""

    def __init__(self) -> None:
        self.units: set[WorkItem] = set()
        self._watching: asyncio.AbstractEventLoop | None = None

    def limit(self, unit: WorkItem, seconds: float) -> None:
        """It is given up after so many seconds."""
        unit.due = unit.loop.time() + seconds
        if self._watching is not unit.loop:
            self._watching = unit.loop
            unit.loop.call_later(SECONDS_BETWEEN_LOOKS, self._look, unit.loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for unit in [each for each in self.units if each.due <= now and each.loop is loop]:
            unit.due = now + SECONDS_BETWEEN_CUTS
            try:
                unit.give_up("It gave no answer in time.")
            except Exception:  # the other units must be given up, too
                logger.exception("Work that the database did not answer in time could not be cut off.")
        if self.units:
            loop.call_later(SECONDS_BETWEEN_LOOKS, self._look, loop)
        else:
            self._watching = None


class ThreadPool:
    """So many threads that run units. They are daemons: no thread that is stuck keeps the process from ending."""

    def __init__(self, engine: Engine, count: int) -> None:
        self._engine = engine
        self._pool = engine.pool
        self._count = count
        self._threads: list[threading.Thread] = []
        self._waiting: queue.SimpleQueue[WorkItem | None] = queue.SimpleQueue()

    def run(self, unit: WorkItem) -> None:
        """In turn."""
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._run, name=f"database-{number}", daemon=True)
                for number in range(self._count)
            ]
            for thread in self._threads:
                thread.start()
        self._waiting.put(unit)

    def close(self, moment: float) -> bool:
        """Ends the threads when they have run what waits; False where some are not done with it by then."""
        for _ in self._threads:
            self._waiting.put(None)
        return all(ended_by(thread, moment) for thread in self._threads)

    def _run(self) -> None:
        while (unit := self._waiting.get()) is not None:
            unit.run(self._engine)
        # Where the database was closed without this thread, its connection is in a pool that nobody closes again.
        self._pool.dispose()


def ended_by(thread: threading.Thread, moment: float) -> bool:
    """Whether it has, by the monotonic clock."""
    thread.join(max(0.0, moment - time.monotonic()))
    return not thread.is_alive()
