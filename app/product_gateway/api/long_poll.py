"""Long polls: clients that wait for a sync to end (`Prefer: wait`, RFC 7240 §4.3) share one poll of the database.

A waiting client costs a future and a timer. While clients wait, one task polls the database every POLL_INTERVAL for
the syncs that have ended. A client whose time is up gets the current state from an extra poll. Polls are at least
MIN_POLL_INTERVAL apart. The load on the database therefore depends on the number of syncs, not of clients.
"""

import asyncio
import contextlib
import copy
from collections.abc import Iterable
from contextvars import Context
from dataclasses import dataclass, field

from product_gateway.db import syncs
from product_gateway.db.database import Database
from product_gateway.errors import SyncNotFound
from product_gateway.model.syncs import Sync
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.telemetry.metrics import LONG_POLLS, Metrics

MIN_POLL_INTERVAL = 0.1
POLL_INTERVAL = 0.5
LONGEST_PAUSE = 0.5  # after a failed poll: a client whose time is up must hear of the failure soon
MAX_WAITERS = 10_000
AWAY = "Long polls continue without the database"


@dataclass(eq=False, slots=True)
class _Waiter:
    """One waiting client. Once it has timed out, the next poll answers it even if the sync is still active."""

    result: asyncio.Future[Sync] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    timed_out: bool = False


class SyncWaiters:
    """The waiting clients of one process, at most `most` at a time."""

    def __init__(self, database: Database, most: int = MAX_WAITERS, supervisor: Supervisor | None = None) -> None:
        self._database = database
        self._supervisor = supervisor or Supervisor(Metrics())
        self._most = most
        self._waiters: dict[syncs.Key, set[_Waiter]] = {}
        self.count = 0
        self._has_timed_out = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether no further client may wait."""
        return self.count >= self._most

    async def wait_until_ended(self, sync: Sync, seconds: float, disconnected: asyncio.Future[bool]) -> Sync:
        """Return the sync when it has ended, or its state then when the time is up.

        `disconnected` ends the wait early: with True, the client is gone and the result is `sync` unchanged; with
        False, the result is the state of the next poll. Raise Unavailable if that poll fails, SyncNotFound if the
        sync was removed.
        """
        loop = asyncio.get_running_loop()
        key = (sync.merchant, sync.id)
        waiter = _Waiter()

        def time_out() -> None:
            waiter.timed_out = True
            self._has_timed_out.set()

        def on_disconnect(disconnected: asyncio.Future[bool]) -> None:
            if disconnected.result():
                _answer([waiter], sync)
            else:
                time_out()

        self._waiters.setdefault(key, set()).add(waiter)
        self.count += 1
        # The poll itself takes time, so it starts early.
        timer = loop.call_later(seconds - MIN_POLL_INTERVAL, time_out)
        disconnected.add_done_callback(on_disconnect)
        if self._poller is None or self._poller.done():
            polling = self._supervisor.keep(
                LONG_POLLS, self._poll_while_clients_wait, away=AWAY, longest_pause=LONGEST_PAUSE
            )
            # An empty context: the poll has neither the deadline nor the log fields of this request.
            self._poller = loop.create_task(polling, context=Context())
        try:
            return await waiter.result
        finally:
            disconnected.remove_done_callback(on_disconnect)
            timer.cancel()
            self.count -= 1
            self._waiters[key].remove(waiter)
            if not self._waiters[key]:
                del self._waiters[key]

    def ended(self, sync: Sync) -> None:
        """Answer the clients that wait for a sync that this process has ended itself, without a poll."""
        _answer(self._waiters.get((sync.merchant, sync.id), ()), sync)

    async def aclose(self) -> None:
        """Stop polling."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)

    async def _poll_while_clients_wait(self, supervised: Loop) -> None:
        loop = asyncio.get_running_loop()
        next_poll = loop.time() + POLL_INTERVAL
        while self._waiters:
            with supervised.idle(), contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_poll):
                    await self._has_timed_out.wait()
            self._has_timed_out.clear()
            is_due = loop.time() >= next_poll
            await self._poll(timed_out_only=not is_due)
            supervised.progressed()
            if is_due:
                next_poll = loop.time() + POLL_INTERVAL
            await asyncio.sleep(MIN_POLL_INTERVAL)

    async def _poll(self, *, timed_out_only: bool) -> None:
        """Answer the clients whose sync has ended or whose time is up. On an error, fail only the latter and raise."""
        timed_out: dict[syncs.Key, list[_Waiter]] = {}
        for key, group in self._waiters.items():
            if late := [each for each in group if each.timed_out]:
                timed_out[key] = late
        others = [] if timed_out_only else [key for key in self._waiters if key not in timed_out]
        if not (timed_out or others):
            return
        try:
            found, gone = await self._database.read(syncs.ended_among, others, list(timed_out))
        except Exception as error:
            for waiters in timed_out.values():
                _fail(waiters, error)
            raise
        for sync in found:
            key = (sync.merchant, sync.id)
            _answer(timed_out[key] if sync.is_active else self._waiters.get(key, ()), sync)
        for key in gone:
            _fail(self._waiters.get(key, ()), SyncNotFound(key[1]))


def _answer(waiters: Iterable[_Waiter], sync: Sync) -> None:
    for each in waiters:
        if not each.result.done():
            each.result.set_result(sync)


def _fail(waiters: Iterable[_Waiter], error: Exception) -> None:
    for each in waiters:
        if not each.result.done():
            own = copy.copy(error)  # raising an exception changes it, so each client needs its own
            own.__cause__ = error.__cause__
            each.result.set_exception(own)
