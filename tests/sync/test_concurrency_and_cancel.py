"""The concurrency limit per merchant and the cancellation of syncs, with real workers on both databases."""

import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from product_gateway import settings
from product_gateway.db import merchants, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.syncs import EntityType, SyncStatus
from product_gateway.settings import Settings
from tests.support.fake_list_service import FakeListService, items
from tests.support.serving import serve
from tests.support.syncing import PRODUCT, titles, until, working

COLLECTION = EntityType.COLLECTION


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    """Pages of 5, one sync of a merchant at a time."""
    return settings.load(
        data_dir=tmp_path,
        page_size=5,
        max_page_size=5,
        worker_poll_seconds=0.01,
        allow_private_addresses=True,
        syncs_per_merchant=1,
    )


@pytest.fixture
def shelf() -> FakeListService:
    """20 products and as many collections."""
    shelf = FakeListService()
    shelf.lists = {"/products": items(20), "/collections": items(20)}
    return shelf


@pytest.fixture
def served(shelf: FakeListService, database: Database) -> Iterator[Database]:
    """The merchants `shop` and `other` have the service."""
    with serve(shelf) as url:
        for name in ("shop", "other"):
            database.call(merchants.update_merchant, name, product_service_url=url)
        yield database


async def test_a_merchants_syncs_run_one_after_the_other(
    served: Database, made: Settings, shelf: FakeListService
) -> None:
    """Where the operator says so, with two workers too; the service never gets two requests at once."""
    shelf.delays = itertools.repeat(0.02)
    first = await served.write(enqueue, "shop", PRODUCT)
    second = await served.write(enqueue, "shop", COLLECTION)
    async with working(made, served), working(made, served):
        first = await until(served, first, SyncStatus.SUCCEEDED)
        second = await until(served, second, SyncStatus.SUCCEEDED)
    runs = sorted((each.started_at, each.finished_at) for each in (first, second) if each.started_at)
    assert runs[0][1] is not None
    assert runs[0][1] <= runs[1][0]
    assert shelf.most_at_once == 1


async def test_two_merchants_do_not_wait_for_each_other(
    served: Database, made: Settings, shelf: FakeListService
) -> None:
    """The limit is for each of them."""
    shelf.delays = itertools.repeat(0.1)
    both = [await served.write(enqueue, name, PRODUCT) for name in ("shop", "other")]
    async with working(made, served):
        for each in both:
            await until(served, each, SyncStatus.IN_PROGRESS)
        for each in both:
            await until(served, each, SyncStatus.SUCCEEDED)
    assert shelf.most_at_once == 2


async def test_a_cancelled_pull_stops_at_the_next_page_and_never_runs_again(
    served: Database, made: Settings, shelf: FakeListService, caplog: pytest.LogCaptureFixture
) -> None:
    """What was written is rolled back; the next sync is accepted at once and starts from the published catalog."""
    caplog.set_level(logging.INFO, "product_gateway")
    shelf.delays = itertools.repeat(0.05)
    cancelled = await served.write(enqueue, "shop", PRODUCT)
    async with working(made, served):
        await until(served, cancelled, SyncStatus.IN_PROGRESS, read=5)
        await served.write(syncs.cancel, "shop", PRODUCT)
        asked = len(shelf.asked)
        again = await served.write(enqueue, "shop", PRODUCT)
        again = await until(served, again, SyncStatus.SUCCEEDED)
    assert len(shelf.asked) <= asked + 1 + 4  # the page that was on its way, and the four of the second sync
    assert (again.attempt, again.counts.created) == (1, 20)  # nothing of the cancelled sync was there any more
    after = await served.read(syncs.get, "shop", cancelled.id)
    assert (after.status, after.attempt) == (SyncStatus.CANCELLED, 1)
    assert after.records_read < 20
    assert len(await titles(served)) == 20
    told = [each for each in caplog.records if "cancelled" in each.getMessage()]
    assert [(each.levelno, each.getMessage()) for each in told] == [
        (logging.INFO, "The sync was cancelled by the client.")
    ]


async def test_a_cancelled_sync_that_waits_never_runs(served: Database, made: Settings, shelf: FakeListService) -> None:
    """The product service gets no request for it."""
    waiting = await served.write(enqueue, "shop", PRODUCT)
    await served.write(syncs.cancel, "shop", PRODUCT)
    other = await served.write(enqueue, "shop", COLLECTION)
    async with working(made, served):
        await until(served, other, SyncStatus.SUCCEEDED)
    after = await served.read(syncs.get, "shop", waiting.id)
    assert (after.status, after.attempt, len(shelf.asked)) == (SyncStatus.CANCELLED, 0, 4)


@pytest.mark.parametrize("waiting", ["for a page", "to try again"])
async def test_a_cancel_is_noticed_by_the_next_heartbeat_during_a_slow_page(
    waiting: str, served: Database, made: Settings, shelf: FakeListService
) -> None:
    """The worker's only slot is free again then: the next sync of the merchant takes it."""
    made = made.model_copy(update={"worker_concurrency": 1})
    if waiting == "for a page":
        shelf.delays = iter([25.0])
    else:
        shelf.status, shelf.wait = 503, 60
        made = made.model_copy(update={"lease_seconds": 1})  # so the heart beats quicker, and so does this test
    cancelled = await served.write(enqueue, "shop", PRODUCT)
    async with working(made, served):
        await until(served, cancelled, SyncStatus.IN_PROGRESS)
        while not shelf.asked:
            await until(served, cancelled, SyncStatus.IN_PROGRESS)
        started = time.monotonic()
        await served.write(syncs.cancel, "shop", PRODUCT)
        again = await served.write(enqueue, "shop", PRODUCT)
        shelf.status = 200
        await until(served, again, SyncStatus.SUCCEEDED)
        assert time.monotonic() - started < 15  # a heartbeat comes after five seconds at most, the page after 25
    assert (await served.read(syncs.get, "shop", cancelled.id)).status is SyncStatus.CANCELLED
