"""A revert: restores an earlier generation of the catalog, in small transactions."""

from product_gateway.db import reverts
from product_gateway.db.database import Database
from product_gateway.model.syncs import Claim
from product_gateway.sync.pull import RECORDS_PER_STEP, prepare


async def run(database: Database, claim: Claim, generation: int, lease_seconds: float) -> None:
    """Restore the generation, from the claim's cursor on. Raises PullFailed, LeaseLost or Unavailable."""
    await prepare(database, claim, lease_seconds)
    after: str | None = claim.cursor or ""
    while after is not None:
        after = await database.write(reverts.restore, claim, generation, after, lease_seconds, RECORDS_PER_STEP)
