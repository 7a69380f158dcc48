"""Executor: runs work items of an event loop on threads, each until its deadline.

A thread that is blocked by a database cannot be stopped. But its wait can be cancelled, which frees the thread:
PostgreSQL's connection is cut, SQLite's statement is interrupted.
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
from typing import Any, NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection, Engine

from product_gateway.db.errors import AWAY, NOT_KNOWN, is_lost, translate_errors
from product_gateway.errors import Unavailable

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_CHECKS = 0.05
SECONDS_BETWEEN_CANCELS = 0.25  # of an expired item
MIN_SECONDS_BEFORE_CANCEL = 1.0  # an item that waited for its thread in a crowd, and runs now, may finish
CANCELLABLE = "cancellable"  # the key of a connection's Cancellable in its `info`
BEGIN = "begin"  # an execution option: the Purpose of the transaction

F = TypeVar("F", bound=Callable[..., Any])

deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
"""The deadline of the current request, by its event loop's clock."""


autocommit_work: set[Callable[..., Any]] = set()


def autocommit(work: F) -> F:
    """Mark a function whose statements are each right by themselves: it needs no transaction around them."""
    autocommit_work.add(work)
    return work


class Purpose(NamedTuple):
    """What a transaction is for. With autocommit, each statement is a transaction."""

    writes: bool
    autocommit: bool = False


class Cancellable(Protocol):
    """A database connection on which a thread may be blocked."""

    was_cancelled: bool
    """Whether the connection must not be reused: the server may still be about to cancel a statement of it."""

    def cancel(self) -> None:
        """End the wait with an error. Thread-safe."""


_running = threading.local()


def connected(connection: Cancellable) -> None:
    """Register a new connection with the work item of this thread: its set-up may already block."""
    item: WorkItem | None = getattr(_running, "item", None)
    if item is not None:
        item.wait_on(connection)


class WorkItem:
    """A read or a write: run in a thread, and cancelled from any thread."""

    def __init__(self, work: Callable[[Connection], Any], in_flight: "InFlight", purpose: Purpose) -> None:
        self.work = work
        self.purpose = purpose
        self.deadline = math.inf  # by the event loop's clock
        self.is_wanted = True  # to be started
        self.may_be_committed = False
        self._in_flight = in_flight
        self._lock = threading.Lock()  # a connection cancelled under it still belongs to this item
        self._blocked_on: Cancellable | None = None
        self._blocked_since = 0.0  # by the monotonic clock
        self._is_cancelled = False

    # In any thread.

    def cancel(self, after: float = 0.0) -> None:
        """Do not start or commit it. If its thread has been blocked for `after` seconds, cancel the wait."""
        with self._lock:
            self._is_cancelled = True
            self.is_wanted = False
            if self._blocked_on is not None and time.monotonic() - self._blocked_since >= after:
                self._blocked_on.cancel()

    # In the thread that runs it.

    def run(self, engine: Engine) -> None:
        """Run it in a transaction and pass its outcome to the caller."""
        self.end(*self._outcome(engine))

    def wait_on(self, connection: Cancellable | None) -> None:
        """Record the connection that may block the thread from now on."""
        with self._lock:
            self._blocked_on = connection
            self._blocked_since = time.monotonic()

    def before_commit(self) -> None:
        """Record that it may be committed from now on. Raise Unavailable if it was cancelled."""
        with self._lock:
            if self._is_cancelled:
                raise Unavailable(AWAY)
            self.may_be_committed = self.purpose.writes

    def end(self, result: Any, fault: Exception | None) -> None:
        """Pass the outcome to the caller."""
        self._in_flight.end(self, result, fault)

    def _outcome(self, engine: Engine) -> tuple[Any, Exception | None]:
        if not self.is_wanted:
            return None, None
        _running.item = self
        try:
            with translate_errors():
                return self._in_transaction(engine), None
        except Exception as error:  # noqa: BLE001 - handed to the caller
            return None, error
        finally:
            _running.item = None
            self.wait_on(None)  # if the set-up of a connection failed

    def _in_transaction(self, engine: Engine) -> Any:
        with engine.connect() as connection:
            cancellable: Cancellable = connection.info[CANCELLABLE]
            self.wait_on(cancellable)
            try:
                if not self.is_wanted:
                    return None
                if self.purpose.autocommit:
                    self.before_commit()
                    connection.execution_options(**{BEGIN: self.purpose})
                with connection.begin():
                    result = self.work(connection)
                    self.before_commit()
                return result
            except Exception as error:
                if self.may_be_committed and is_lost(error):
                    raise Unavailable(NOT_KNOWN) from getattr(error, "orig", error)
                raise
            finally:
                self.wait_on(None)
                if cancellable.was_cancelled:
                    connection.invalidate()


class InFlight:
    """The unfinished work items, each with the future of its outcome.

    Items do not refer to their futures: the future holds the error, whose traceback holds the item. One periodic check
    of all deadlines costs less than a timer for each item.
    """

    def __init__(self) -> None:
        self._futures: dict[WorkItem, asyncio.Future[Any]] = {}
        self._checking: asyncio.AbstractEventLoop | None = None

    def start(self, item: WorkItem, deadline: float) -> asyncio.Future[Any]:
        """Return the future of the item's outcome. The item expires at the deadline."""
        future = self._futures[item] = asyncio.get_running_loop().create_future()
        self._set_deadline(item, deadline)
        return future

    def end(self, item: WorkItem, result: Any, fault: Exception | None) -> None:
        """Set the item's outcome. Thread-safe."""
        with suppress(RuntimeError):  # the event loop is closed
            self._futures[item].get_loop().call_soon_threadsafe(self._settle, item, result, fault)

    def set_deadlines(self, deadline: float) -> None:
        """Change the deadline of all items."""
        for item in self._futures:
            self._set_deadline(item, deadline)

    def is_awaited(self) -> bool:
        """Whether a caller waits for an outcome. Thread-safe."""
        return any(not future.done() for future in list(self._futures.values()))

    def cancel(self) -> None:
        """Cancel all items. Thread-safe."""
        for item in list(self._futures):
            item.cancel()

    def _settle(self, item: WorkItem, result: Any, fault: Exception | None) -> None:
        future = self._futures.pop(item)
        if future.done():
            return
        if fault is None:
            future.set_result(result)
        else:
            future.set_exception(fault)

    def _set_deadline(self, item: WorkItem, deadline: float) -> None:
        item.deadline = deadline
        loop = self._futures[item].get_loop()
        if deadline < math.inf and self._checking is not loop:
            self._checking = loop
            loop.call_later(SECONDS_BETWEEN_CHECKS, self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for item, future in list(self._futures.items()):
            if item.deadline > now or future.get_loop() is not loop:
                continue
            item.deadline = now + SECONDS_BETWEEN_CANCELS  # cancelled again until its thread is free
            try:
                item.cancel(MIN_SECONDS_BEFORE_CANCEL)
            except Exception:  # the other items must expire, too
                logger.exception("Work that the database did not answer in time could not be cut off.")
            if not future.done():
                fault = Unavailable(NOT_KNOWN if item.may_be_committed else AWAY)
                fault.__cause__ = TimeoutError("It gave no answer in time.")
                future.set_exception(fault)
        if self._futures:
            loop.call_later(SECONDS_BETWEEN_CHECKS, self._check, loop)
        else:
            self._checking = None


class ThreadPool:
    """A fixed number of threads that run work items. A blocked thread is a daemon, so it lets the process end."""

    def __init__(self, engine: Engine, count: int) -> None:
        self._engine = engine
        self._pool = engine.pool
        self._count = count
        self._threads: list[threading.Thread] = []
        self._waiting: queue.SimpleQueue[WorkItem | None] = queue.SimpleQueue()

    def run(self, item: WorkItem) -> None:
        """Queue the item. The first one starts the threads."""
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._run, name=f"database-{number}", daemon=True)
                for number in range(self._count)
            ]
            for thread in self._threads:
                thread.start()
        self._waiting.put(item)

    def close(self, moment: float) -> bool:
        """Run what is queued and end the threads; return False if that is not done by `moment`."""
        for _ in self._threads:
            self._waiting.put(None)
        return all(ended_by(thread, moment) for thread in self._threads)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            item.run(self._engine)
        # If the database was closed before this thread ended, its connection went back to an abandoned pool.
        self._pool.dispose()


def ended_by(thread: threading.Thread, moment: float) -> bool:
    """Wait for the thread until `moment` (monotonic clock); return whether it has ended."""
    thread.join(max(0.0, moment - time.monotonic()))
    return not thread.is_alive()
