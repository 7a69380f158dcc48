"""Clients that wait for syncs to end: one look at the database for all of them.

A client costs a future and a timer. While anybody waits, one task asks every half second which of the syncs have
ended; a client whose time is up is told by the next look, which is at hand. Looks never come closer than
`SECONDS_BETWEEN_LOOKS`, so what the database has to do depends on the time that passes and on how many different syncs
are waited for, not on how many clients wait.
"""

import asyncio
import contextlib
import copy
from collections.abc import Iterable
from contextvars import Context

from product_gateway.db import syncs
from product_gateway.db.database import Database
from product_gateway.errors import SyncNotFound
from product_gateway.model.syncs import Sync
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.telemetry.metrics import LONG_POLLS, Metrics

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_BETWEEN_LOOKS_AT_ALL = 0.5
LONGEST_PAUSE = 0.5  # after a look that failed: those whose time is up are to hear of it soon
MOST_WAITING = 10_000
NOT_LOOKED_AT = "Who waits for a sync goes on waiting without the database"

Key = syncs.Key
Future = asyncio.Future[Sync]


class SyncWaiters:
    """All clients of one process that wait; `most` at a time."""

    def __init__(self, database: Database, most: int = MOST_WAITING, supervisor: Supervisor | None = None) -> None:
        self._database = database
        self._supervisor = supervisor or Supervisor(Metrics())
        self._most = most
        self._waiting: dict[Key, set[Future]] = {}
        self._due: dict[Key, set[Future]] = {}  # those of them that the next look answers whatever it finds
        self.number = 0
        self._somebody_is_due = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether nobody else may wait."""
        return self.number >= self._most

    async def wait_until_ended(self, sync: Sync, seconds: float, hurry: asyncio.Future[bool]) -> Sync:
        """The sync when it has ended; as it is then, when the time is up; or soon after `hurry` is done.

        Where that is because the client is gone, it is the sync as it was. Raises Unavailable where the database is
        away at the end, SyncNotFound where the sync is gone.
        """
        loop = asyncio.get_running_loop()
        key = (sync.merchant, sync.id)
        answer: Future = loop.create_future()

        def hurried(hurry: asyncio.Future[bool]) -> None:
            if hurry.result() and not answer.done():
                answer.set_result(sync)
            else:
                self._is_due(key, answer)

        self._waiting.setdefault(key, set()).add(answer)
        self.number += 1
        # A look may take its time, and the answer, too: so it is begun before the time is up.
        timer = loop.call_later(seconds - SECONDS_BETWEEN_LOOKS, self._is_due, key, answer)
        hurry.add_done_callback(hurried)
        if self._looking is None or self._looking.done():
            # In a context of its own: it is not about this request, and has more time for the database.
            looking = self._supervisor.keep(
                LONG_POLLS, self._look_until_nobody_waits, away=NOT_LOOKED_AT, longest_pause=LONGEST_PAUSE
            )
            self._looking = loop.create_task(looking, context=Context())
        try:
            return await answer
        finally:
            hurry.remove_done_callback(hurried)
            timer.cancel()
            self.number -= 1
            for group in (self._waiting, self._due):
                _remove(group, key, answer)

    def ended(self, sync: Sync) -> None:
        """This process has ended the sync itself: who waits for it need not wait for a look."""
        _answer(self._waiting.get((sync.merchant, sync.id), ()), sync)

    async def aclose(self) -> None:
        """Nobody looks any more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _is_due(self, key: Key, answer: Future) -> None:
        if not answer.done():
            self._due.setdefault(key, set()).add(answer)
            self._somebody_is_due.set()

    async def _look_until_nobody_waits(self, supervised: Loop) -> None:
        loop = asyncio.get_running_loop()
        look_at_all = loop.time() + SECONDS_BETWEEN_LOOKS_AT_ALL
        while self._waiting:
            with supervised.idle(), contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(look_at_all):
                    await self._somebody_is_due.wait()
            due, self._due = self._due, {}
            self._somebody_is_due.clear()
            is_at_all = loop.time() >= look_at_all
            await self._look([each for each in self._waiting if each not in due] if is_at_all else [], due)
            supervised.progressed()
            if is_at_all:
                look_at_all = loop.time() + SECONDS_BETWEEN_LOOKS_AT_ALL
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    async def _look(self, others: list[Key], due: dict[Key, set[Future]]) -> None:
        """Raises what the database raises; those that are due hear of it, and the others go on waiting."""
        if not (others or due):
            return
        try:
            found, gone = await self._database.read(syncs.ended_among, others, list(due))
        except Exception as error:
            for answers in due.values():
                _fail(answers, error)
            raise
        for sync in found:
            key = (sync.merchant, sync.id)
            _answer(due[key] if sync.is_active else self._waiting.get(key, ()), sync)
        for key in gone:
            _fail(self._waiting.get(key, ()), SyncNotFound(key[1]))


def _answer(answers: Iterable[Future], sync: Sync) -> None:
    for each in answers:
        if not each.done():
            each.set_result(sync)


def _fail(answers: Iterable[Future], error: Exception) -> None:
    for each in answers:
        if not each.done():
            own = copy.copy(error)  # who raises one adds to it
            own.__cause__ = error.__cause__
            each.set_exception(own)


def _remove(group: dict[Key, set[Future]], key: Key, answer: Future) -> None:
    if (answers := group.get(key)) is not None:
        answers.discard(answer)
        if not answers:
            del group[key]
