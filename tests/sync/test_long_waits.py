"""A sync that waits for Retry-After keeps its claim and can be cancelled."""

import asyncio
import time
from pathlib import Path

import pytest
from starlette.responses import Response

from product_gateway import settings
from product_gateway.db import merchants, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.syncs import SyncStatus
from product_gateway.settings import Settings
from tests.support.scripted_answers import Merchant, as_bytes, item, page_of
from tests.support.serving import serve
from tests.support.syncing import ENDED, PRODUCT, until, working


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    """Leases that are shorter than the wait."""
    return settings.load(
        data_dir=tmp_path,
        worker_poll_seconds=0.02,
        allow_private_addresses=True,
        lease_seconds=1,
        retry_wait_seconds=0.1,
    )


async def test_a_wait_longer_than_the_lease_keeps_the_claim(database: Database, made: Settings) -> None:
    """Heartbeats go on, so that no second worker takes the sync and asks at the same time."""
    merchant = Merchant()
    with serve(merchant) as url:
        busy = Response(status_code=429, headers={"Retry-After": "3"})
        merchant.answers = [busy, Response(as_bytes(page_of(item())))]
        await database.write(merchants.update_merchant, "shop", product_service_url=url)
        sync = await database.write(enqueue, "shop", PRODUCT)
        began = time.monotonic()
        async with working(made, database), working(made, database):
            done = await until(database, sync, *ENDED)
    assert time.monotonic() - began >= 3
    assert (done.status, done.attempt, len(merchant.asked)) == (SyncStatus.SUCCEEDED, 1, 2)


async def test_a_sync_that_waits_can_be_cancelled(database: Database, made: Settings) -> None:
    """At once for its merchant, and the worker stops without waiting to the end."""
    merchant = Merchant()
    with serve(merchant) as url:
        merchant.answers = [Response(status_code=503, headers={"Retry-After": "290"})]
        await database.write(merchants.update_merchant, "shop", product_service_url=url)
        sync = await database.write(enqueue, "shop", PRODUCT)
        async with working(made, database):
            async with asyncio.timeout(20):
                while not merchant.asked:  # noqa: ASYNC110 - it is asked in another thread
                    await asyncio.sleep(0.02)
            await database.write(syncs.cancel, "shop", PRODUCT)
            assert (await database.read(syncs.get, "shop", sync.id)).status is SyncStatus.CANCELLED
            began = time.monotonic()
            await database.write(enqueue, "shop", PRODUCT)
            async with asyncio.timeout(20):
                while len(merchant.asked) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert time.monotonic() - began < 15
    assert merchant.asked
