"""Heartbeats: a lost lease ends the block that they accompany, and a cancellation from outside stays one."""

import asyncio

import pytest

from product_gateway.db import claims, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import LeaseLost
from product_gateway.model.syncs import Claim, EntityType
from product_gateway.supervisor import Supervisor
from product_gateway.sync.heartbeat import Heartbeat
from product_gateway.telemetry.metrics import Metrics

LEASE = 0.6  # seconds, so a heartbeat is due every 0.2 s
PATIENCE = 20


async def test_a_lost_lease_cancels_the_block(database: Database) -> None:
    """The worker must not read on for a sync that was cancelled."""
    heartbeat, claim = Heartbeat(database, Supervisor(Metrics()), LEASE, lambda _: []), await claimed(database)

    async def work() -> None:
        async with asyncio.timeout(PATIENCE), heartbeat.renewing(claim):
            await database.write(syncs.cancel, "shop", EntityType.PRODUCT)
            await asyncio.Event().wait()

    with pytest.raises(LeaseLost):
        await work()


async def test_a_cancellation_from_outside_is_not_swallowed(database: Database) -> None:
    """A worker that is stopped hands the sync back; it does not abandon it."""
    heartbeat, claim = Heartbeat(database, Supervisor(Metrics()), LEASE, lambda _: []), await claimed(database)
    started = asyncio.Event()

    async def work() -> None:
        async with heartbeat.renewing(claim):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def claimed(database: Database) -> Claim:
    """Enqueue and claim a sync of the merchant `shop`."""
    await database.write(enqueue, "shop", EntityType.PRODUCT)
    claim = await database.write(claims.claim, "worker", 60, 3, 2)
    assert claim is not None
    return claim
