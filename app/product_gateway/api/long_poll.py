"""Long polls: clients that wait for a sync to end, or for a generation (`Prefer: wait`, RFC 7240 §4.3).

They share one poll of the database.

A waiting client costs a future and a timer. While clients wait, one task polls the database every POLL_INTERVAL for
the syncs that have ended. A client whose time is up gets the current state from an extra poll. Polls are at least
MIN_POLL_INTERVAL apart. The load on the database therefore depends on the number of syncs, not of clients.
"""

import asyncio
import contextlib
import copy
from collections.abc import Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from product_gateway.db import changes, syncs
from product_gateway.db.database import Database
from product_gateway.errors import SyncNotFound
from product_gateway.model.syncs import EntityType, Sync
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.telemetry.metrics import LONG_POLLS, Metrics

MIN_POLL_INTERVAL = 0.1
POLL_INTERVAL = 0.5
LONGEST_PAUSE = 0.5  # after a failed poll: a client whose time is up must hear of the failure soon
MAX_WAITERS = 10_000
AWAY = "Long polls continue without the database"


@dataclass(eq=False, slots=True)
class _Waiter:
    """One waiting client. Once it has timed out, the next poll answers it in any case."""

    result: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    timed_out: bool = False


K = TypeVar("K")
V = TypeVar("V")


class Waiters(Generic[K, V]):
    """The clients of one process that wait for a value to be done, at most `most` at a time."""

    def __init__(self, database: Database, most: int = MAX_WAITERS, supervisor: Supervisor | None = None) -> None:
        self._database = database
        self._supervisor = supervisor or Supervisor(Metrics())
        self._most = most
        self._waiters: dict[K, set[_Waiter]] = {}
        self.count = 0
        self._has_timed_out = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None

    async def _find(
        self, waited_for: Sequence[K], in_any_state: Sequence[K]
    ) -> tuple[list[tuple[K, V, bool]], list[K]]:
        """Return what was found, with whether it is done, and the keys that are gone.

        What has a key of `waited_for` is returned only if it is done.
        """
        raise NotImplementedError

    @property
    def is_full(self) -> bool:
        """Whether no further client may wait."""
        return self.count >= self._most

    async def wait(self, key: K, value: V, seconds: float, disconnected: asyncio.Future[bool]) -> V:
        """Return the key's value when it is done, or its state then when the time is up.

        `disconnected` ends the wait early: with True, the client is gone and the result is `value` unchanged; with
        False, the result is the state of the next poll. Raise Unavailable if that poll fails, SyncNotFound if the
        key is gone.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter()

        def time_out() -> None:
            waiter.timed_out = True
            self._has_timed_out.set()

        def on_disconnect(disconnected: asyncio.Future[bool]) -> None:
            if disconnected.result():
                _answer([waiter], value)
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
            result: V = await waiter.result
            return result
        finally:
            disconnected.remove_done_callback(on_disconnect)
            timer.cancel()
            self.count -= 1
            self._waiters[key].remove(waiter)
            if not self._waiters[key]:
                del self._waiters[key]

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
        """Answer the clients whose wait is over. On an error, fail only those whose time is up, and raise."""
        timed_out: dict[K, list[_Waiter]] = {}
        for key, group in self._waiters.items():
            if late := [each for each in group if each.timed_out]:
                timed_out[key] = late
        others = [] if timed_out_only else [key for key in self._waiters if key not in timed_out]
        if not (timed_out or others):
            return
        try:
            found, gone = await self._find(others, list(timed_out))
        except Exception as error:
            for waiters in timed_out.values():
                _fail(waiters, error)
            raise
        for key, value, is_done in found:
            _answer(self._waiters.get(key, ()) if is_done else timed_out[key], value)
        for key in gone:
            _fail(self._waiters.get(key, ()), self._gone(key))

    def _gone(self, key: K) -> Exception:
        """Return the error of a client that waits for what is gone."""
        raise NotImplementedError


class SyncWaiters(Waiters[syncs.Key, Sync]):
    """Clients that wait for a sync to end."""

    async def wait_until_ended(self, sync: Sync, seconds: float, disconnected: asyncio.Future[bool]) -> Sync:
        """Return the sync when it has ended, or its state then when the time is up. See `wait`."""
        return await self.wait((sync.merchant, sync.id), sync, seconds, disconnected)

    def ended(self, sync: Sync) -> None:
        """Answer the clients that wait for a sync that this process has ended itself, without a poll."""
        _answer(self._waiters.get((sync.merchant, sync.id), ()), sync)

    async def _find(
        self, waited_for: Sequence[syncs.Key], in_any_state: Sequence[syncs.Key]
    ) -> tuple[list[tuple[syncs.Key, Sync, bool]], list[syncs.Key]]:
        found, gone = await self._database.read(syncs.ended_among, waited_for, in_any_state)
        return [((each.merchant, each.id), each, not each.is_active) for each in found], gone

    def _gone(self, key: syncs.Key) -> Exception:
        return SyncNotFound(key[1])


GenerationKey = tuple[str, EntityType, int]
"""A merchant, an entity type, and the generation that a client has."""


class GenerationWaiters(Waiters[GenerationKey, int]):
    """Clients that wait for a generation after the one that they have."""

    async def _find(
        self, waited_for: Sequence[GenerationKey], in_any_state: Sequence[GenerationKey]
    ) -> tuple[list[tuple[GenerationKey, int, bool]], list[GenerationKey]]:
        keys = [*waited_for, *in_any_state]
        published = await self._database.read(changes.published, list({each[:2] for each in keys}))
        now = [(key, published.get(key[:2], 0)) for key in keys]
        late = set(in_any_state)
        return [(key, value, value > key[2]) for key, value in now if value > key[2] or key in late], []


def _answer(waiters: Iterable[_Waiter], value: object) -> None:
    for each in waiters:
        if not each.result.done():
            each.result.set_result(value)


def _fail(waiters: Iterable[_Waiter], error: Exception) -> None:
    for each in waiters:
        if not each.result.done():
            own = copy.copy(error)  # raising an exception changes it, so each client needs its own
            own.__cause__ = error.__cause__
            each.result.set_exception(own)
