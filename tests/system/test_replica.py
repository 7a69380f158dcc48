"""A replica that follows the feed equals the catalog, byte for byte, after any sequence of syncs.

REPLICA_STEPS is the number of syncs on each database; `make replica` runs 10,000.
"""

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

from sqlalchemy import literal, update

from product_gateway.auth import encryption
from product_gateway.db import (
    catalog,
    catalog_removal,
    catalog_write,
    claims,
    generations,
    merchants,
    reverts,
    syncs,
    tables,
    types,
)
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import GenerationGone
from product_gateway.model.catalog import Page, Record
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import Claim, Publication, SyncStatus
from tests.support.deployment import Deployment, within
from tests.support.flaky_service import MoodyService, Shop
from tests.support.pulls import LEASE, PRODUCT, RULES, pull, started, write
from tests.support.replica import Replica, listed
from tests.support.serving import serve

STEPS = int(os.environ.get("REPLICA_STEPS") or 200)
STEPS_PER_KILL = 50 if STEPS <= 1000 else 100
RECORDS = 40
PATIENCE = 60
SETTINGS = {
    "lease_seconds": "1",
    "page_size": "10",
    "max_page_size": "10",
    "max_lost_workers": "100",
    "log_level": "WARNING",
}
ENDS = {
    "succeeds": 50,
    "fails": 12,
    "is cancelled": 12,
    "is handed back": 6,
    "is reverted": 12,
    "is staged": 10,
    "is old": 1,
}


class Source:
    """A merchant's products, some of which change for each sync; each document is written in a form of its own."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._documents: dict[str, str] = {}

    def pages(self) -> list[Page]:
        """Change some records, and return the list of all in pages."""
        for number in self._dice.sample(range(RECORDS), self._dice.choice([0, 1, 3, RECORDS // 2])):
            record_id = f"p{number:03}"
            if record_id in self._documents and self._dice.random() < 0.4:
                del self._documents[record_id]
            else:
                self._documents[record_id] = self._document(record_id)
        records = [Record(*each) for each in sorted(self._documents.items())]
        size = self._dice.choice([7, 20, RECORDS])
        starts = range(0, max(1, len(records)), size)
        return [
            Page(tuple(records[at : at + size]), (), None if at + size >= len(records) else str(at), None)
            for at in starts
        ]

    def _document(self, record_id: str) -> str:
        """Return JSON with an order of members, spaces, escapes and numbers that another encoder would not choose."""
        title = self._dice.choice(['"Tee \\u00e9"', '"Tee é 🧦"', '"\\"product\\":{\\/}"'])
        number = self._dice.choice(["1.50", "1e2", "-0.0", str(self._dice.randrange(9))])
        members = [f'"id":"{record_id}"', f'"title" : {title}', f'"listPrice":{number}']
        self._dice.shuffle(members)
        return "{" + self._dice.choice([", ", ",", ",  "]).join(members) + "}"


class Syncs:
    """Random syncs of one merchant. `ends` counts how they ended."""

    def __init__(self, database: Database, deployment: Deployment, shop: Shop, dice: random.Random) -> None:
        self.ends: Counter[str] = Counter()
        self._database = database
        self._deployment = deployment
        self._shop = shop
        self._dice = dice
        self._source = Source(dice)

    def step(self) -> None:
        """Run one."""
        end = self._dice.choices(list(ENDS), list(ENDS.values()))[0]
        self.ends[end] += 1
        if end == "is reverted":
            self._revert()
        elif end == "is old":
            self._prune()
        elif end == "is staged":
            self._review()
        elif end == "succeeds":
            self._allow_removal()
            pull(self._database, *self._source.pages())
        else:
            self._stop(end)

    def kill_workers(self) -> None:
        """A real worker runs a sync and is killed at any point. In most cases, another one finishes it."""
        call, shop = self._database.call, self._shop
        for _ in range(3):
            shop.change()
        self._allow_removal()
        sync = call(enqueue, "shop", PRODUCT)
        for _ in range(self._dice.choice([1, 1, 2])):
            with self._deployment.process("worker") as worker:
                within(PATIENCE, lambda: call(syncs.get, "shop", sync.id).status is not SyncStatus.QUEUED)
                time.sleep(self._dice.uniform(0, 0.4))
                worker.send(signal.SIGKILL)
                worker.wait()
            self.ends["kill -9"] += 1
        if self._dice.random() < 0.3 and call(syncs.get, "shop", sync.id).is_active:
            call(syncs.cancel, "shop", PRODUCT)
            return
        with self._deployment.process("worker"):
            within(PATIENCE, lambda: not call(syncs.get, "shop", sync.id).is_active)
        assert call(syncs.get, "shop", sync.id).status is SyncStatus.SUCCEEDED

    def _stop(self, end: str) -> None:
        """Write some pages of a sync, in some cases remove some records too, and end it in another way."""
        call, claim = self._database.call, started(self._database)
        pages = self._source.pages()
        write(self._database, claim, *pages[: self._dice.randint(0, len(pages))])
        if call(claims.may_remove, claim) and self._dice.random() < 0.5:
            call(catalog_removal.remove_missing, claim, "", RECORDS // 2)
        if end == "fails":
            call(claims.fail, claim, "INVALID_PAGE", "No JSON.")
        elif end == "is cancelled":
            call(syncs.cancel, "shop", PRODUCT)
        else:
            call(claims.hand_back, claim)
            call(catalog_write.write_page, again := self._claim(), Page((), (), None, None), LEASE)
            pull(self._database, *self._source.pages(), claim=again)
        if self._dice.random() < 0.3:
            self._roll_back(steps=self._dice.randint(1, 9))

    def _roll_back(self, steps: int) -> None:
        for key in self._database.call(generations.left_behind):
            for _ in range(steps):
                self._database.call(generations.roll_back, *key, 5)

    def _review(self) -> None:
        claim = started(self._database, publish="MANUAL")
        pull(self._database, *self._source.pages(), claim=claim)
        end = self._dice.choice([generations.publish, generations.publish, generations.discard, None])
        if end is not None:
            self._database.call(end, "shop", claim.sync_id)

    def _revert(self) -> None:
        done = self._database.call(syncs.history, "shop", None, None, None, 20)[0]
        published = [each for each in done if each.publication is Publication.PUBLISHED]
        if not published:
            return
        with contextlib.suppress(GenerationGone):
            self._database.call(reverts.request, "shop", self._dice.choice(published).id)
            claim = self._claim()
            write(self._database, claim)
            assert claim.restores is not None
            after: str | None = ""
            while after is not None:
                after = self._database.call(reverts.restore, claim, claim.restores, after, LEASE, RECORDS // 3)
                if after is not None and self._dice.random() < 0.05:
                    self._database.call(claims.fail, claim, "INTERNAL_ERROR", "Stopped.")
                    return
            self._database.call(generations.succeed, claim)

    def _prune(self) -> None:
        """All generations but the present one become old, and some of the history goes."""
        long_ago = update(tables.catalog_generations).values(published_at=types.now(literal(-864000)))
        self._database.call(lambda connection: connection.execute(long_ago))
        for _ in range(self._dice.randint(1, 40)):
            self._database.call(generations.prune, 1.0, 10)

    def _claim(self) -> Claim:
        claim = self._database.call(claims.claim, "tester", LEASE, *RULES)
        assert claim is not None
        return claim

    def _allow_removal(self) -> None:
        self._database.call(catalog_removal.allow_mass_deletion, "shop", PRODUCT)


def test_a_replica_that_follows_the_cursor_equals_the_list_of_products(database_url: str, tmp_path: Path) -> None:
    """After creates, updates, deletes, failures, cancels, reverts, reviews, pruned history and killed workers."""
    dice = random.Random(int(os.environ.get("REPLICA_SEED") or 1))
    deployment = Deployment(tmp_path, database_url, **SETTINGS)
    shop = Shop("shop", dice, steady=RECORDS)
    shop.delay = 0.02
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(serve(MoodyService([shop])))
        database = stack.enter_context(open_database(database_url))
        token = encryption.Secrets(deployment.settings()).encrypt("the-merchants-token")
        database.call(merchants.add, "shop", Platform.BYOP, f"{address}/shop", token)
        url = stack.enter_context(deployment.serving())
        client = stack.enter_context(deployment.client(url, "shop"))
        replica, made = Replica(client), Syncs(database, deployment, shop, dice)
        started_at = time.monotonic()
        for step in range(1, STEPS + 1):
            if step % STEPS_PER_KILL == 0:
                made.kill_workers()
            else:
                made.step()
            if dice.random() < 0.5 or step == STEPS:
                replica.follow(dice.choice([1, 5, 30, 500]) if STEPS < 1000 else dice.choice([5, 30, 500]))
                generation, records = listed(client, dice.choice([15, 500]))
                assert replica.generation == generation
                assert [document for _, document in sorted(replica.records.items())] == records, f"step {step}"
                assert [json.loads(each)["id"] for each in records] == sorted(replica.records)
                state = database.call(catalog.state, "shop", PRODUCT)
                assert (state.generation, state.num_records) == (generation, len(records))
            if step % 1000 == 0 or step == STEPS:
                seconds = time.monotonic() - started_at
                print(
                    f"{step} syncs in {seconds:.0f} s: {replica.generation} generations, {replica.changes} changes, "
                    f"{replica.windows} times equal, {replica.restarts} starts again after 410; {dict(made.ends)}",
                    flush=True,
                )
    assert replica.windows > STEPS / 3
    assert made.ends["kill -9"] >= STEPS // STEPS_PER_KILL
