"""What the sandbox sees and does in the database, behind the gateway's back."""

import asyncio
from uuid import UUID

from product_gateway.db import catalog, claims, syncs
from product_gateway.db.database import Database
from product_gateway.errors import LeaseLost, SyncNotFound
from product_gateway.model.syncs import Claim, EntityType
from product_gateway.sandbox.scenarios import Run

SECONDS_BETWEEN_LOOKS = 0.02
SECONDS_UNTIL_SOMEBODY_TAKES_OVER = 20.0


class DatabaseControl:
    """Waits, where it waits, on threads: gateway and product service have event loops of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def records(self, merchant: str, entity_type: EntityType) -> int:
        """How many the catalog has."""
        state = await asyncio.to_thread(self._database.call, catalog.state, merchant, entity_type)
        return state.num_records

    async def end(self, run: Run) -> None:
        """Waits until the sync has ended."""
        active = True
        while active:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            sync = await asyncio.to_thread(self._database.call, syncs.get, run.merchant, UUID(run.sync_id))
            active = sync.is_active

    async def lose(self, run: Run) -> None:
        """The sync's lease runs out, as that of a worker that died, until another claim has the sync."""
        try:
            sync = await asyncio.to_thread(self._database.call, syncs.get, run.merchant, UUID(run.sync_id))
        except (SyncNotFound, ValueError):  # of an id: somebody asks the service without a sync
            return
        # Attempts and tokens are counted together.
        claim = Claim(run.merchant, sync.id, run.entity_type, sync.attempt, sync.attempt, None, 0, 0, 0, False)
        try:
            async with asyncio.timeout(SECONDS_UNTIL_SOMEBODY_TAKES_OVER):
                while True:  # the worker that has it renews it now and then
                    await asyncio.to_thread(self._database.call, claims.heartbeat, claim, 0)
                    await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        except (LeaseLost, TimeoutError):
            return
