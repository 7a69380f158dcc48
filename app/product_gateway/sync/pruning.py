"""Pruning: delete the syncs and messages that are older than the retention period, once an hour."""

import asyncio

from product_gateway.db import syncs, webhooks
from product_gateway.db.database import Database
from product_gateway.settings import Settings
from product_gateway.supervisor import Loop

SECONDS_BETWEEN_PRUNES = 3600.0
PRUNED_AT_ONCE = 200  # syncs of one transaction


async def prune_loop(settings: Settings, database: Database, loop: Loop) -> None:
    """Prune the sync table once an hour, in small transactions, until cancelled."""
    while True:
        days, cancelled_days = settings.retention_days, settings.cancelled_retention_days
        while await database.write(syncs.prune, days, PRUNED_AT_ONCE, cancelled_days):
            loop.progressed()
        while await database.write(webhooks.prune, days, PRUNED_AT_ONCE):
            loop.progressed()
        loop.progressed()
        with loop.idle():
            await asyncio.sleep(SECONDS_BETWEEN_PRUNES)
