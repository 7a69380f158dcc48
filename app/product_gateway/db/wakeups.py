"""Wake-ups: tell idle workers that a sync was queued, so that it does not wait for their next look at the queue.

Workers of the same process hear of it directly, those of other processes by PostgreSQL's NOTIFY. A wake-up may be lost
(SQLite has none between processes, a pooler in transaction mode delivers none): then the next look finds the sync.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context

from sqlalchemy import Connection, text

from product_gateway.db.database import Database
from product_gateway.db.engines import postgresql
from product_gateway.db.executor import autocommit
from product_gateway.errors import Unavailable

CHANNEL = "product_gateway_queued"
SECONDS_BETWEEN_NOTIFICATIONS = 0.02  # each is a transaction, and wakes the idle workers of all processes


class Wakeups:
    """The wake-ups of one process. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._listeners: set[Callable[[], object]] = set()

    def wake(self) -> None:
        """Call all listeners."""
        for each in tuple(self._listeners):
            each()

    @contextmanager
    def listening(self, listener: Callable[[], object]) -> Iterator[None]:
        """Call the listener, which must be thread-safe, for each wake-up."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)


class Notifier:
    """Wakes the workers of this process and, in the background, those of other processes."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database = database
        self._wakeups = wakeups
        self._reaches_others = database.engine.dialect.name == "postgresql"
        self._is_needed = False
        self._task: asyncio.Task[None] | None = None

    def queued(self) -> None:
        """Tell the workers that a sync was queued. Call it after the commit."""
        self._wakeups.wake()
        if self._reaches_others:
            self._is_needed = True
            if self._task is None:
                # An empty context: the notification has neither the deadline nor the span of a request.
                self._task = asyncio.get_running_loop().create_task(self._notify(), context=Context())

    async def aclose(self) -> None:
        """Stop sending notifications."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _notify(self) -> None:
        try:
            while self._is_needed:
                self._is_needed = False
                with suppress(Unavailable):  # the workers look for syncs anyway
                    await self._database.write(notify)
                await asyncio.sleep(SECONDS_BETWEEN_NOTIFICATIONS)
        finally:
            self._task = None


@autocommit
def notify(connection: Connection) -> None:
    """Wake the workers that listen to this database. Only for PostgreSQL."""
    connection.execute(text(f"NOTIFY {CHANNEL}"))


async def listen(database: Database, wake: Callable[[], None]) -> None:
    """Call `wake` once, and then for each notification. Return if the database sends none. Raise Unavailable."""
    if database.engine.dialect.name == "postgresql":
        async for _ in postgresql.notifications(database.engine, CHANNEL):
            wake()
