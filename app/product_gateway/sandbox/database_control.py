"""Direct access to the gateway's database, for what no API request can cause or show."""

import asyncio
import contextlib
from uuid import UUID

from product_gateway.db import catalog, claims, syncs
from product_gateway.db.database import Database
from product_gateway.errors import LeaseLost, SyncNotFound
from product_gateway.model.syncs import Claim, EntityType, Sync
from product_gateway.sandbox.scenarios import Run

POLL_SECONDS = 0.02
TAKEOVER_TIMEOUT = 20.0  # seconds


class DatabaseControl:
    """Reads and changes syncs. Uses threads, because the event loops of gateway and product service share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count_records(self, merchant: str, entity_type: EntityType) -> int:
        state = await asyncio.to_thread(self._database.call, catalog.state, merchant, entity_type)
        return state.num_records

    async def wait_until_ended(self, run: Run) -> None:
        """Poll until the sync has ended."""
        sync = await self._sync(run)
        while sync.is_active:
            await asyncio.sleep(POLL_SECONDS)
            sync = await self._sync(run)

    async def expire_lease(self, run: Run) -> None:
        """Let the sync's lease expire, as if its worker had died, until another claim has the sync."""
        try:
            sync = await self._sync(run)
        except (SyncNotFound, ValueError):  # a request to the product service without a sync
            return
        # Each claim increments both the attempt and the token.
        claim = Claim(run.merchant, sync.id, run.entity_type, sync.attempt, sync.attempt, None, 0, 0, 0, False)
        with contextlib.suppress(LeaseLost, TimeoutError):
            async with asyncio.timeout(TAKEOVER_TIMEOUT):
                while True:  # the worker's heartbeats renew the lease
                    await asyncio.to_thread(self._database.call, claims.heartbeat, claim, 0)
                    await asyncio.sleep(POLL_SECONDS)

    async def _sync(self, run: Run) -> Sync:
        return await asyncio.to_thread(self._database.call, syncs.get, run.merchant, UUID(run.sync_id))
