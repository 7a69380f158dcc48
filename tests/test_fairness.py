"""Fairness: what one merchant's slow service costs the others is the slot that its sync takes."""

import asyncio
import random
from pathlib import Path

import pytest

from moody_service import Mood, MoodyService, Shop
from product_gateway import settings
from product_gateway.db import Database, merchants, syncs
from product_gateway.model import EntityType, Platform, SyncStatus
from product_gateway.outbound import Outbound
from product_gateway.worker import Worker
from serving import serve

PRODUCT = EntityType.PRODUCT
PATIENCE = 30


@pytest.mark.parametrize("mood", [Mood.WELL, Mood.HANGING])
async def test_ten_quick_syncs_finish_beside_one_that_does_not_end(
    database: Database, tmp_path: Path, mood: Mood
) -> None:
    """Two slots, one of them taken for as long as the test runs: by a catalog without end, or by silence."""
    slow, *quick = [Shop(f"shop{n}", random.Random(n), steady=2000 if n == 0 else 60) for n in range(11)]
    slow.mood, slow.delay = mood, 0.5
    made = settings.load(
        data_dir=tmp_path, page_size=20, worker_poll_seconds=0.02, allow_private_addresses=True, worker_concurrency=2
    )
    with serve(MoodyService([slow, *quick])) as address:
        ids = {}
        for shop in (slow, *quick):
            database.call(merchants.add, shop.name, Platform.BYOP, f"{address}/{shop.name}")
            ids[shop.name] = database.call(syncs.enqueue, shop.name, PRODUCT).id
        async with Outbound(allow_private_addresses=True) as outbound, asyncio.timeout(PATIENCE):
            stop = asyncio.Event()
            running = asyncio.create_task(Worker(made, database, outbound).run(stop))
            try:
                for shop in quick:
                    while (await database.read(syncs.get, shop.name, ids[shop.name])).is_active:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                still = await database.read(syncs.get, slow.name, ids[slow.name])
            finally:
                slow.mood = Mood.WELL
                stop.set()
                await running
        for shop in quick:
            assert database.call(syncs.get, shop.name, ids[shop.name]).status is SyncStatus.SUCCEEDED
        assert (still.status, still.attempt) == (SyncStatus.IN_PROGRESS, 1)
        assert sum(slow.requests.values()) > 0
