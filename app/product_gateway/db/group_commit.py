"""Group commit for SQLite: one thread writes, with all waiting work items in one transaction.

SQLite allows one writer at a time, so a queue costs nothing, and items share one durable commit (`synchronous=FULL`).
"""

import queue
import threading
import time
from typing import Any

from sqlalchemy import Connection, Engine

from product_gateway.db.engines.sqlite import optimize
from product_gateway.db.errors import clone, translate_errors
from product_gateway.db.executor import WorkItem, ended_by

MAX_ITEMS_PER_COMMIT = 200
SECONDS_BETWEEN_OPTIMIZATIONS = 3600.0


class GroupCommit:
    """The writer thread. Each of several items has a savepoint, so that its failure does not affect the others.

    An item with autocommit is not grouped: its batch of requests shares one commit already.
    """

    def __init__(self, engine: Engine, seconds_between_optimizations: float = SECONDS_BETWEEN_OPTIMIZATIONS) -> None:
        self._engine = engine
        self._pool = engine.pool
        self._waiting: queue.SimpleQueue[WorkItem | None] = queue.SimpleQueue()
        self._closed = False
        self._seconds_between_optimizations = seconds_between_optimizations
        self._optimize_at = time.monotonic() + seconds_between_optimizations
        self._has_written = False
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    def run(self, item: WorkItem) -> None:
        """Queue the item. Its result is set after the durable commit that contains it."""
        self._waiting.put(item)

    def close(self, moment: float) -> bool:
        """Write what is queued and end the thread; return False if that is not done by `moment`."""
        self._waiting.put(None)
        return ended_by(self._thread, moment)

    def _run(self) -> None:
        while not self._closed and (item := self._waiting.get()) is not None:
            if item.is_wanted and not item.purpose.autocommit:
                self._commit(item)
            else:
                item.run(self._engine)
                self._has_written = True
            if time.monotonic() >= self._optimize_at:
                self._optimize()
        if self._has_written:
            self._optimize()
        self._pool.dispose()  # see ThreadPool._run

    def _optimize(self) -> None:
        optimize(self._engine)
        self._optimize_at = time.monotonic() + self._seconds_between_optimizations

    def _commit(self, first: WorkItem) -> None:
        batch = [first]
        alone: list[WorkItem] = []
        outcomes: list[tuple[Any, Exception | None]] = []
        try:
            with translate_errors(), self._engine.begin() as connection:
                # Only now is the database locked for us: items that arrived while waiting for the lock join the batch.
                for item in self._take_waiting():
                    (alone if item.purpose.autocommit else batch).append(item)
                if len(batch) == 1:
                    outcomes = [(_run_item(connection, first) if first.is_wanted else None, None)]
                else:
                    outcomes = [_run_in_savepoint(connection, item) for item in batch]
        except Exception as error:  # noqa: BLE001 - nothing was committed: every item fails
            outcomes = [(None, clone(error)) for _ in batch]
        else:
            self._has_written = True
        for item in batch:
            item.end(*outcomes.pop(0))  # drop the outcome: an error's traceback refers to this frame
        for item in alone:
            item.run(self._engine)

    def _take_waiting(self) -> list[WorkItem]:
        found: list[WorkItem] = []
        while len(found) < MAX_ITEMS_PER_COMMIT - 1 and not self._waiting.empty():
            item = self._waiting.get()
            if item is None:
                self._closed = True
                break
            found.append(item)
        return found


def _run_item(connection: Connection, item: WorkItem) -> Any:
    with translate_errors():
        item.before_commit()  # here, as the commit of the batch does not wait for one item
        return item.work(connection)


def _run_in_savepoint(connection: Connection, item: WorkItem) -> tuple[Any, Exception | None]:
    if not item.is_wanted:
        return None, None
    savepoint = connection.begin_nested()
    try:
        result = _run_item(connection, item)
    except Exception as error:  # noqa: BLE001 - handed to the caller
        savepoint.rollback()
        return None, error
    savepoint.commit()
    return result, None
