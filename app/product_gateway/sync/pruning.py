"""Clean-up in the background: old syncs, messages and generations once an hour, and what failed syncs wrote."""

import asyncio

from product_gateway.db import generations, syncs, webhooks
from product_gateway.db.database import Database
from product_gateway.settings import Settings
from product_gateway.supervisor import Loop

SECONDS_BETWEEN_PRUNES = 3600.0
PRUNED_AT_ONCE = 200  # syncs of one transaction
VERSIONS_AT_ONCE = 2000  # of records, in one transaction
SECONDS_BETWEEN_ROLL_BACKS = 5.0


async def prune_loop(settings: Settings, database: Database, loop: Loop) -> None:
    """Prune the sync table and the history of the catalog once an hour, in small transactions, until cancelled."""
    while True:
        days, cancelled_days = settings.retention_days, settings.cancelled_retention_days
        while await database.write(syncs.prune, days, PRUNED_AT_ONCE, cancelled_days):
            loop.progressed()
        while await database.write(webhooks.prune, days, PRUNED_AT_ONCE):
            loop.progressed()
        while await database.write(generations.prune, settings.catalog_history_days, VERSIONS_AT_ONCE):
            loop.progressed()
        loop.progressed()
        with loop.idle():
            await asyncio.sleep(SECONDS_BETWEEN_PRUNES)


async def roll_back_loop(database: Database, loop: Loop) -> None:
    """Roll back what syncs wrote that failed, were cancelled or discarded: readers are faster then. Until cancelled."""
    while True:
        for key in await database.read(generations.left_behind):
            while not await database.write(generations.roll_back, *key, VERSIONS_AT_ONCE):
                loop.progressed()
        loop.progressed()
        with loop.idle():
            await asyncio.sleep(SECONDS_BETWEEN_ROLL_BACKS)
