"""Run syncs with a real worker in the test process, and read the resulting catalog."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

from product_gateway.db import catalog, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.http_client.client import HttpClient, product_service_limits
from product_gateway.model.syncs import EntityType, Sync, SyncStatus
from product_gateway.settings import Settings
from product_gateway.supervisor import Supervisor
from product_gateway.sync.worker import Worker
from product_gateway.telemetry.metrics import Metrics

PATIENCE = 20
PRODUCT = EntityType.PRODUCT
ENDED = (SyncStatus.SUCCEEDED, SyncStatus.FAILED, SyncStatus.CANCELLED)


@asynccontextmanager
async def working(made: Settings, database: Database) -> AsyncIterator[asyncio.Event]:
    """Run a worker until the block ends or the event is set."""
    stop, metrics = asyncio.Event(), Metrics()
    async with HttpClient(**product_service_limits(made)) as outbound:
        running = asyncio.create_task(Worker(made, database, outbound, metrics, Supervisor(metrics)).run(stop))
        try:
            yield stop
        finally:
            stop.set()
            await asyncio.wait_for(running, PATIENCE)


async def until(database: Database, sync: Sync, *statuses: SyncStatus, read: int = 0) -> Sync:
    """Wait until the sync has one of the statuses and has read `read` records, and return it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            now = await database.read(syncs.get, sync.merchant, sync.id)
            if now.status in statuses and now.records_read >= read:
                return now
            await asyncio.sleep(0.01)


async def run(made: Settings, database: Database, entity_type: EntityType = PRODUCT) -> Sync:
    """Run a whole sync of the merchant `shop`."""
    return await finish(made, database, await database.write(enqueue, "shop", entity_type))


async def finish(made: Settings, database: Database, sync: Sync) -> Sync:
    """Return the sync after a worker has ended it."""
    async with working(made, database):
        return await until(database, sync, *ENDED)


async def titles(database: Database) -> dict[str, str]:
    """Return the products of the catalog, as id -> title."""
    listing = await database.read(catalog.page, "shop", PRODUCT, "", 1000)
    state = await database.read(catalog.state, "shop", PRODUCT)
    assert state.num_records == len(listing.records)
    return {record.id: orjson.loads(record.document)["title"] for record in listing.records}
