"""Many transitions without HTTP: processes that act as clients and workers by the functions of `product_gateway.db`.

A process holds several claims at once, and acts on any of them at any time: it is a worker that is suspended and
resumed. Leases are short. Some processes are killed, and replaced.
"""

import asyncio
import contextlib
import multiprocessing
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from typing import Any

from sqlalchemy import Connection, text

from product_gateway.db import catalog_removal, catalog_write, claims, generations, merchants, reverts, syncs
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import EnqueueRequest, enqueue_many
from product_gateway.errors import (
    GenerationGone,
    LeaseLost,
    NoActiveSync,
    NotPublishable,
    PullFailed,
    SyncAlreadyActive,
    SyncNotFound,
    Unavailable,
)
from product_gateway.model.catalog import Page, Record
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import Claim, EntityType
from tests.model_checking import recorder
from tests.model_checking.conformance import Verdict, judge

PROCESSES = 3
MERCHANTS = ("first", "second", "third")
LEASE, LOST, AT_ONCE = 0.5, 4, 2
PAGES = 3
HELD = 6  # claims of a process
RECORDS = 6
EXPECTED = (GenerationGone, LeaseLost, NoActiveSync, NotPublishable, PullFailed, SyncAlreadyActive, SyncNotFound)
SECONDS_BETWEEN_LOOKS = 0.2
CHANGES_BETWEEN_KILLS = 500  # not seconds: a process has to compile its statements first


@dataclass
class Held:
    """A claim, and how far the worker is."""

    claim: Claim
    pages: int
    after: str | None = ""
    is_prepared: bool = False


class Actor:
    """Clients and workers of one process."""

    def __init__(self, database: Database, dice: random.Random) -> None:
        self._database = database
        self._dice = dice
        self._held: list[Held] = []

    def act(self) -> None:
        """Take one step. The errors that the functions document are expected."""
        actions: dict[Callable[[], Any], int] = {self._put: 3, self._claim: 8, self._write: 20, self._end: 6}
        actions |= {self._give_back: 2, self._client: 2, self._roll_back: 1, self._forget: 1}
        [action] = self._dice.choices(list(actions), list(actions.values()))
        with contextlib.suppress(*EXPECTED):
            action()

    def _put(self) -> None:
        publish = self._dice.choice(["AUTOMATIC", "AUTOMATIC", "MANUAL"])
        merchant, kind = self._of()
        self._database.call(enqueue_many, [EnqueueRequest(merchant, kind, publish=publish)])

    def _claim(self) -> None:
        if len(self._held) < HELD:
            claim = self._database.call(claims.claim, "actor", LEASE, LOST, AT_ONCE)
            if claim is not None:
                self._held.append(Held(claim, claim.pages_read, claim.cursor or ""))

    def _write(self) -> None:
        held = self._any_held()
        if held is None:
            return
        if self._dice.random() < 0.1:
            self._of_claim(held, claims.heartbeat, LEASE)
        elif not held.is_prepared:
            self._prepare(held)
        elif held.claim.restores is not None and held.after is not None:
            held.after = self._of_claim(held, reverts.restore, held.claim.restores, held.after, LEASE, 3)
        elif held.claim.restores is None and held.pages < PAGES:
            self._of_claim(held, catalog_write.write_page, self._page(held.pages + 1), LEASE)
            held.pages += 1

    def _prepare(self, held: Held) -> None:
        earlier = self._database.call(generations.unpublished_by_another, held.claim)
        held.is_prepared = earlier is None or self._of_claim(held, generations.prepare, earlier, LEASE, 3)

    def _page(self, number: int) -> Page:
        ids = self._dice.sample(range(RECORDS), 2)
        found = [Record(str(each), str(self._dice.randrange(2))) for each in ids]
        return Page(tuple(found), (), str(number) if number < PAGES else None, None)

    def _end(self) -> None:
        held = self._any_held()
        is_revert = held is not None and held.claim.restores is not None
        if held is None or not held.is_prepared or (held.after is not None if is_revert else held.pages < PAGES):
            return
        if not is_revert and self._database.call(claims.may_remove, held.claim):
            after: str | None = ""
            while after is not None:
                after = self._of_claim(held, catalog_removal.remove_missing, after, 2)
        self._of_claim(held, generations.succeed)
        self._held.remove(held)

    def _give_back(self) -> None:
        held = self._any_held()
        if held is None:
            return
        if self._dice.random() < 0.3:
            self._of_claim(held, claims.fail, "INVALID_PAGE", "No JSON.")
        else:
            self._of_claim(held, self._dice.choice([claims.hand_back, claims.release]))
        if self._dice.random() < 0.7:  # else, its answer was lost
            self._held.remove(held)

    def _client(self) -> None:
        merchant, kind = self._of()
        latest = self._database.call(syncs.latest, merchant, kind)
        chance = self._dice.random()
        if latest is None:
            return
        if chance < 0.15:
            self._database.call(syncs.cancel, merchant, kind)
        elif chance < 0.4:
            self._database.call(reverts.request, merchant, latest.id)
        else:
            end = generations.publish if chance < 0.8 else generations.discard
            self._database.call(end, merchant, latest.id)

    def _roll_back(self) -> None:
        for key in self._database.call(generations.left_behind):
            self._database.call(generations.roll_back, *key, 3)

    def _forget(self) -> None:
        held = self._any_held()
        if held is not None:
            self._held.remove(held)

    def _any_held(self) -> Held | None:
        return self._dice.choice(self._held) if self._held else None

    def _of(self) -> tuple[str, EntityType]:
        return self._dice.choice(MERCHANTS), self._dice.choice(list(EntityType))

    def _of_claim(self, held: Held, write: Callable[..., Any], *arguments: Any) -> Any:
        """Write for a claim. A worker that has lost it stops, or learns it later."""
        try:
            return self._database.call(write, held.claim, *arguments)
        except LeaseLost:
            if self._dice.random() < 0.5:
                self._held.remove(held)
            raise


def drive(url: str, transitions: int, seed: int) -> tuple[Verdict, float]:
    """Run processes on a migrated database until so much is recorded. Return the verdict and the seconds."""
    recorder.install(url)
    dice, began = random.Random(seed), time.monotonic()
    with open_database(url) as database, contextlib.ExitStack() as stack:
        for name in MERCHANTS:
            database.call(merchants.add, name, Platform.BYOP, "https://shop.example", None, None)
        running = [_started(stack, url, dice) for _ in range(PROCESSES)]
        next_kill = CHANGES_BETWEEN_KILLS
        while (recorded := asyncio.run(database.read(_count))) < transitions:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for each in running:
                if not each.is_alive():
                    raise AssertionError(f"a process has ended with {each.exitcode}")
            if recorded >= next_kill:
                next_kill = recorded + CHANGES_BETWEEN_KILLS
                which = dice.randrange(PROCESSES)
                running[which].kill()
                running[which].join()
                running[which] = _started(stack, url, dice)
        for each in running:
            each.kill()
            each.join()
        seconds = time.monotonic() - began
        return database.call(lambda connection: judge(recorder.recorded(connection))), seconds


def _count(connection: Connection) -> int:
    return connection.scalar(text("SELECT max(number) FROM transitions")) or 0


_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([__name__])  # a process begins at once, without imports


def _started(stack: contextlib.ExitStack, url: str, dice: random.Random) -> ForkServerProcess:
    process = _forks.Process(target=act, args=(url, dice.randrange(1 << 30)))
    process.start()
    stack.callback(process.kill)
    return process


def act(url: str, seed: int) -> None:
    """Act until killed."""
    with open_database(url) as database:
        actor = Actor(database, random.Random(seed))
        while True:
            with contextlib.suppress(Unavailable):
                actor.act()
