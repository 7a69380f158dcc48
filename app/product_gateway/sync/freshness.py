"""Freshness: enqueue a webhook message for each catalog that became stale."""

import asyncio

from product_gateway.db import freshness
from product_gateway.db.database import Database
from product_gateway.supervisor import Loop

SECONDS_BETWEEN_CHECKS = 30.0
CATALOGS_AT_ONCE = 200  # of one transaction


async def freshness_loop(database: Database, loop: Loop, *, seconds: float = SECONDS_BETWEEN_CHECKS) -> None:
    """Look for catalogs that became stale or fresh, in small transactions, until cancelled."""
    while True:
        while await database.read(freshness.has_due):
            loop.progressed()
            if not await database.write(freshness.mark, CATALOGS_AT_ONCE):
                break  # another worker marks them
        loop.progressed()
        with loop.idle():
            await asyncio.sleep(seconds)
