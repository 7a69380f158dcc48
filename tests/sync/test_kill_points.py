"""kill -9 at any point of a sync: the next worker continues, and no record is missing, doubled or fetched again."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import orjson
from sqlalchemy import Connection, select

from product_gateway.auth import encryption
from product_gateway.db import catalog, catalog_write, claims, generations, merchants, syncs, tables
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.catalog import Page, Record
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType, Sync, SyncStatus
from tests.support.deployment import Deployment, Process
from tests.support.flaky_service import MoodyService, Shop
from tests.support.serving import serve

RECORDS = int(os.environ.get("KILL_RECORDS") or 2000)
KILLS = int(os.environ.get("KILLS") or 3)
PAGE_SIZE = 50 if RECORDS <= 10_000 else 250
GONE = RECORDS // 10  # records of the catalog that the source no longer has
PATIENCE = 60 + RECORDS / 200  # seconds
PRODUCT = EntityType.PRODUCT
SETTINGS = {
    "lease_seconds": "1",
    "page_size": str(PAGE_SIZE),
    "max_page_size": str(PAGE_SIZE),
    "max_lost_workers": "100",
    "log_level": "WARNING",
}


def prepare(database: Database, deployment: Deployment, address: str, shop: Shop) -> Sync:
    """The merchant, a catalog with records that are to go, and a sync in the queue."""
    token = encryption.Secrets(deployment.settings()).encrypt("the-merchants-token")
    database.call(merchants.add, shop.name, Platform.BYOP, f"{address}/{shop.name}", token)
    database.call(enqueue, shop.name, PRODUCT)
    claim = database.call(claims.claim, "tester", 60.0, 5, 2)
    assert claim is not None
    gone = tuple(Record(f"{n:05d}-gone", "{}") for n in range(GONE))
    database.call(catalog_write.write_page, claim, Page(gone, (), None, None), 60.0)
    database.call(generations.succeed, claim)
    return database.call(enqueue, shop.name, PRODUCT)


def owner(connection: Connection, sync: Sync) -> str:
    """The process that runs the sync."""
    found = connection.execute(select(tables.syncs.c.lease_owner).where(tables.syncs.c.id == sync.id)).scalar_one()
    return str(found)


def watch(database: Database, sync: Sync, attempt: int, pages: int) -> Sync:
    """Wait until the sync has read this number of pages in this or a later attempt, or has ended. Return it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        now = database.call(syncs.get, sync.merchant, sync.id)
        if (now.attempt >= attempt and now.records_read >= pages * PAGE_SIZE) or not now.is_active:
            return now
        assert time.monotonic() < deadline, f"the sync does not go on: {now}"
        time.sleep(0.005)


def test_a_worker_killed_at_any_point_costs_two_pages_at_the_most(database_url: str, tmp_path: Path) -> None:
    """At the first page, at the last page and during the removal of records."""
    dice = random.Random(1)
    shop = Shop("shop", dice, steady=RECORDS)
    shop.delay = 0.01
    least = -(-RECORDS // PAGE_SIZE)
    points = sorted(dice.sample(range(least + 1), KILLS))
    deployment = Deployment(tmp_path, database_url, **SETTINGS)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(serve(MoodyService([shop])))
        database = stack.enter_context(open_database(database_url))
        sync = prepare(database, deployment, address, shop)
        workers = {str(each.pid): each for each in (Process(deployment, ("worker",)) for _ in range(KILLS + 1))}
        for each in workers.values():
            stack.callback(each.end)
        kills = 0
        for point in points:
            watch(database, sync, kills + 1, point)
            time.sleep(dice.uniform(0, 0.05))
            running = workers.get(database.call(owner, sync).rpartition(":")[2])
            if running is not None:
                running.send(signal.SIGKILL)
                running.wait()
                kills += 1
        done = watch(database, sync, 1, RECORDS)  # more pages than there are: to its end
        asked = sum(shop.requests.values()) - shop.asked_by_id  # which is about what the list lacks
        print(f"{RECORDS} records in {least} pages, killed at {points[:kills]}: {asked} pages asked for; {done}")
        assert kills >= KILLS - 1, "the last point may come too late"
        assert (done.status, done.attempt) == (SyncStatus.SUCCEEDED, kills + 1)
        assert least <= asked <= least + 2 * kills
        assert (done.counts.created, done.counts.deleted, done.records_read) == (RECORDS, GONE, RECORDS)
        listing = database.call(catalog.page, shop.name, PRODUCT, "", RECORDS + 1)
        assert [orjson.loads(each.document) for each in listing.records] == shop.records(PRODUCT)
        assert database.call(catalog.state, shop.name, PRODUCT).num_records == RECORDS
