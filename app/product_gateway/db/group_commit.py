"""One thread that writes to SQLite, with as many units of work in a commit as are waiting (group commit).

SQLite has one writer at a time. So it costs nothing to queue for one thread, and a durable commit
(`synchronous=FULL`) is paid once for all that came meanwhile.
"""

import queue
import threading
import time
from typing import Any

from sqlalchemy import Connection, Engine

from product_gateway.db.engines.sqlite import optimize
from product_gateway.db.errors import clone, translate_errors
from product_gateway.db.executor import WorkItem, ended_by

MOST_IN_ONE_COMMIT = 200
SECONDS_BETWEEN_OPTIMIZATIONS = 3600.0


class GroupCommit:
    """Takes units of work from any thread; of several, each has a savepoint, so that one's fault is its own."""

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

    def run(self, unit: WorkItem) -> None:
        """Its result comes when the commit that holds it is durable."""
        self._waiting.put(unit)

    def close(self, moment: float) -> bool:
        """Writes what is waiting, then ends the thread; False where that is not done by then."""
        self._waiting.put(None)
        return ended_by(self._thread, moment)

    def _run(self) -> None:
        while not self._closed and (unit := self._waiting.get()) is not None:
            if unit.begin():
                self._commit(unit)
            else:
                unit.end(None, None)
            if time.monotonic() >= self._optimize_at:
                self._optimize()
        if self._has_written:
            self._optimize()
        self._pool.dispose()  # see Threads

    def _optimize(self) -> None:
        optimize(self._engine)
        self._optimize_at = time.monotonic() + self._seconds_between_optimizations

    def _commit(self, first: WorkItem) -> None:
        batch = [first]
        outcomes: list[tuple[Any, Exception | None]] = []
        try:
            with translate_errors(), self._engine.begin() as connection:
                # Only now the database is ours: nobody who came while it was locked has to wait for another turn.
                batch += self._waiting_now()
                if len(batch) == 1:
                    outcomes = [(_done(connection, first) if first.begin() else None, None)]
                else:
                    outcomes = [_attempt(connection, unit) for unit in batch]
        except Exception as error:  # noqa: BLE001 - nothing was committed: everybody who waits must hear of it
            outcomes = [(None, clone(error)) for _ in batch]
        else:
            self._has_written = True
        for unit in batch:
            unit.end(*outcomes.pop(0))  # and nothing here holds the error, whose frames lead here

    def _waiting_now(self) -> list[WorkItem]:
        found: list[WorkItem] = []
        while len(found) < MOST_IN_ONE_COMMIT - 1 and not self._waiting.empty():
            unit = self._waiting.get()
            if unit is None:
                self._closed = True
                break
            found.append(unit)
        return found


def _done(connection: Connection, unit: WorkItem) -> Any:
    with translate_errors():
        unit.commit()  # the others of its commit will not wait for it to be given up
        return unit.work(connection)


def _attempt(connection: Connection, unit: WorkItem) -> tuple[Any, Exception | None]:
    if not unit.begin():
        return None, None
    savepoint = connection.begin_nested()
    try:
        result = _done(connection, unit)
    except Exception as error:  # noqa: BLE001 - it is handed to the one who asked
        savepoint.rollback()
        return None, error
    savepoint.commit()
    return result, None
