"""Heartbeats: while a sync runs, they renew the lease of its claim."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from product_gateway.db import claims
from product_gateway.db.database import Database
from product_gateway.errors import LeaseLost
from product_gateway.model.syncs import Claim
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.telemetry import metrics

HEARTBEATS_PER_LEASE = 3
MAX_INTERVAL = 4.0  # seconds: a worker learns from a heartbeat that its sync was cancelled


@dataclass(eq=False)
class Heartbeat:
    """The heartbeats of one worker. `pop_retries` returns the status before each retry that is not recorded yet."""

    database: Database
    supervisor: Supervisor
    lease_seconds: float
    pop_retries: Callable[[Claim], list[str]]

    def __post_init__(self) -> None:
        self._interval = min(self.lease_seconds / HEARTBEATS_PER_LEASE, MAX_INTERVAL)

    @asynccontextmanager
    async def renewing(self, claim: Claim) -> AsyncIterator[None]:
        """Renew the lease while the block runs. When the lease is lost, cancel the block and raise LeaseLost.

        Any other failure to renew is logged and retried: every write checks the claim anyway.
        """
        try:
            async with asyncio.timeout(None) as block:
                work, away = partial(self._heartbeat_loop, claim), "The sync's lease was not renewed"
                keep = self.supervisor.keep(
                    metrics.HEARTBEATS, work, ends_with=(LeaseLost,), away=away, longest_pause=self._interval
                )
                renewals = asyncio.create_task(keep)
                renewals.add_done_callback(lambda task: None if task.cancelled() else block.reschedule(0))
                try:
                    yield
                finally:
                    renewals.cancel()
                    await asyncio.wait({renewals})
        except TimeoutError:
            if not block.expired():
                raise
            renewals.result()  # raises LeaseLost

    async def _heartbeat_loop(self, claim: Claim, loop: Loop) -> None:
        while True:
            if not loop.is_failing:  # after a failure, the supervisor has paused already
                with loop.idle():
                    await asyncio.sleep(self._interval)
            await self.database.write(claims.heartbeat, claim, self.lease_seconds, self.pop_retries(claim))
            loop.progressed()
