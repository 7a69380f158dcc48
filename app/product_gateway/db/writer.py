"""One thread that writes to SQLite, with as many units of work in a commit as are waiting (group commit).

SQLite has one writer at a time. So it costs nothing to queue for one thread, and a durable commit
(`synchronous=FULL`) is paid once for all that came meanwhile.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sqlalchemy import Connection, Engine

MOST_IN_ONE_COMMIT = 200

Unit = tuple[Callable[[Connection], Any], "Future[Any]"]


class GroupCommit:
    """Takes units of work from any thread; each has a savepoint of its own, so that one's fault is its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Connection], Any]) -> "Future[Any]":
        """The result comes when the commit that holds it is durable."""
        future: Future[Any] = Future()
        self._waiting.put((work, future))
        return future

    def close(self) -> None:
        """Writes what is waiting, then ends the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            units = [self._waiting.get()]
            while len(units) < MOST_IN_ONE_COMMIT and units[-1] is not None and not self._waiting.empty():
                units.append(self._waiting.get())
            batch = [unit for unit in units if unit is not None and unit[1].set_running_or_notify_cancel()]
            if batch:
                self._commit(batch)
            if units[-1] is None:
                return

    def _commit(self, batch: list[Unit]) -> None:
        outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            with self._engine.begin() as connection:
                for work, future in batch:
                    outcomes.append((future, *_attempt(connection, work)))
        except Exception as error:  # noqa: BLE001 - nothing was committed: everybody who waits must hear of it
            outcomes = [(future, None, error) for _, future in batch]
        for future, result, fault in outcomes:
            if fault is None:
                future.set_result(result)
            else:
                future.set_exception(fault)


def _attempt(connection: Connection, work: Callable[[Connection], Any]) -> tuple[Any, BaseException | None]:
    savepoint = connection.begin_nested()
    try:
        result = work(connection)
    except Exception as error:  # noqa: BLE001 - it is handed to the one who asked
        savepoint.rollback()
        return None, error
    savepoint.commit()
    return result, None
