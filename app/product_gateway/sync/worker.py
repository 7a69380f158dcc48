"""Claims syncs, runs them, records how they ended. Any number of workers may share a database."""

import asyncio
import contextlib
import logging
import os
import socket
import time
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from product_gateway.db import catalog, claims, events, syncs
from product_gateway.db.database import Database
from product_gateway.errors import LeaseLost, PullFailed, SyncNotFound, TurnOver, Unavailable
from product_gateway.http_client.client import HttpClient
from product_gateway.model.syncs import Claim, EntityType, SyncStatus
from product_gateway.settings import Settings
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.sync.pull import Pull, Turn
from product_gateway.telemetry import logs, metrics, tracing
from product_gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

IDS_FORGOTTEN_AT_ONCE = 5000
HEARTBEATS_PER_LEASE = 3
LONGEST_UNTIL_CANCELLED = 4.0  # seconds: a heartbeat is how a worker learns that its sync was cancelled
SECONDS_BETWEEN_PRUNES = 3600.0
PRUNED_AT_ONCE = 200
SECONDS_BETWEEN_TRIES = 0.5
POLLS_UNTIL_A_MERCHANT_WAITS = 2  # a worker with a free slot takes a sync up within one
SECONDS_UNTIL_ANOTHER_TURN_ENDS = 10.0  # where the first one does not come to the end of its page
NOT_LOOKED_FOR = "Syncs are not looked for until the database is back"
NOT_RENEWED = "The sync's lease was not renewed"
NOT_PRUNED = "Pruning waits until the database is back"


@dataclass(eq=False, slots=True)
class Share:
    """A slot that a sync holds since `began`, and when its turn was `ended` (monotonic clock)."""

    began: float
    ended: float = 0.0
    turn: Turn = field(default_factory=Turn)


class Worker:
    """Runs up to `worker_concurrency` syncs at a time."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        outbound: HttpClient,
        metrics: Metrics | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._metrics = metrics or Metrics()
        self._supervisor = supervisor or Supervisor(self._metrics)
        self._pull = Pull(settings, database, outbound, self._metrics)
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._running: set[asyncio.Task[None]] = set()
        self._shares: dict[UUID, Share] = {}  # by sync

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then what is running is handed back, for another worker to go on with."""
        keep = self._supervisor.keep
        pruning = asyncio.create_task(keep(metrics.PRUNING, self._prune_now_and_then, away=NOT_PRUNED))
        stopping: asyncio.Task[object] = asyncio.create_task(stop.wait())
        try:
            await keep(metrics.CLAIMS, partial(self._run_syncs, stopping), stop=stop, away=NOT_LOOKED_FOR)
        finally:
            for task in (pruning, stopping, *self._running):
                task.cancel()
            await asyncio.gather(pruning, stopping, *self._running, return_exceptions=True)

    async def _run_syncs(self, stopping: asyncio.Task[object], loop: Loop) -> None:
        while not stopping.done():
            if len(self._running) >= self._settings.worker_concurrency:
                await self._share_slots()
                loop.progressed()
                with loop.idle():
                    wait = self._settings.worker_poll_seconds
                    await asyncio.wait({stopping, *self._running}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                continue
            claim = await self._claim()
            loop.progressed()
            if claim is None:
                with loop.idle():
                    await asyncio.wait({stopping}, timeout=self._settings.worker_poll_seconds)
                continue
            task = asyncio.create_task(self._run_claim(claim))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _claim(self) -> Claim | None:
        if await self._database.read(claims.has_claimable, self._settings.syncs_per_merchant):
            return await self._take_up()
        return None

    async def _share_slots(self) -> None:
        """End turns for the merchants that wait without a slot: first of second syncs, then of those that ran longest.

        A merchant waits where no worker has had a free slot for a while. A turn that was ended a moment ago counts.
        """
        made = self._settings
        demand = await self._database.read(
            claims.demand, POLLS_UNTIL_A_MERCHANT_WAITS * made.worker_poll_seconds, made.worker_concurrency
        )
        now = time.monotonic()
        shares = sorted(self._shares.items(), key=lambda each: (each[0] not in demand.second_syncs, each[1].began))
        wanted = len(demand.waiting)
        for _, share in shares:
            if not demand.waiting:
                share.turn.is_over = False
            elif share.turn.is_over:
                wanted -= now - share.ended < SECONDS_UNTIL_ANOTHER_TURN_ENDS
        for sync_id, share in shares:
            is_due = sync_id in demand.second_syncs or now - share.began >= made.sync_turn_seconds
            if wanted > 0 and is_due and not share.turn.is_over:
                share.turn.is_over, share.ended = True, now
                wanted -= 1

    async def _take_up(self) -> Claim | None:
        made = self._settings
        given_up: list[EntityType] = []
        claim = await self._database.write(
            claims.claim, self._owner, made.lease_seconds, made.max_lost_workers, made.syncs_per_merchant, given_up
        )
        for entity_type in given_up:
            self._metrics.ended(entity_type, SyncStatus.FAILED, claims.WORKER_LOST)
        if claim is not None:
            self._metrics.claimed(taken_over=claim.taken_over)
        return claim

    async def _run_claim(self, claim: Claim) -> None:
        # For all that is logged on its behalf: it runs in a task of its own.
        logs.bind(sync_id=str(claim.sync_id), merchant=claim.merchant, entity_type=claim.entity_type.value)
        with tracing.sync(claim.attempt):
            logger.info("The sync begins, attempt %d.", claim.attempt)
            try:
                with self._metrics.running():
                    await self._run_to_its_end(claim)
                await self._forget(claim)
            except asyncio.CancelledError:
                with contextlib.suppress(LeaseLost, Unavailable):
                    await self._hand_back(claim)
                raise
            except Exception:
                self._metrics.loop_failed(metrics.SYNCS)
                logger.exception(
                    "The sync's end could not be recorded. Another attempt follows when its lease is over."
                )

    async def _run_to_its_end(self, claim: Claim) -> None:
        cut_off = released = False
        began = time.monotonic()
        share = self._shares[claim.sync_id] = Share(began)
        try:
            async with asyncio.TaskGroup() as group:
                heartbeat = group.create_task(self._keep(claim))
                await self._pull_in_time(claim, share.turn)
                heartbeat.cancel()
            await self._database.write(catalog.succeed, claim)
            seconds = time.monotonic() - began
            self._metrics.ended(claim.entity_type, SyncStatus.SUCCEEDED, seconds=seconds)
            tracing.ended(SyncStatus.SUCCEEDED)
            logger.info("The sync SUCCEEDED after %.1f s.", seconds)
        except* LeaseLost as lost:
            await self._leave(claim, lost.exceptions[0])
        except* TurnOver:
            released = True
        except* Unavailable as away:
            cut_off = True
            for each in away.exceptions:
                if isinstance(each, Unavailable):  # a group of one: the heartbeat goes on without the database
                    logger.warning("The sync stops here: %s", each.with_cause)
        except* PullFailed as failed:
            for reason in failed.exceptions:
                if isinstance(reason, PullFailed):  # a group of one: a pull fails once
                    await self._fail(claim, reason.code, reason.detail, began)
        except* Exception as unexpected:
            logger.error("The sync met an error that nobody expected.", exc_info=unexpected)
            detail = "The gateway failed to run this sync. Its operator can see why."
            await self._fail(claim, "INTERNAL_ERROR", detail, began)
        finally:
            if self._shares.get(claim.sync_id) is share:
                del self._shares[claim.sync_id]
        if released:
            cut_off = not await self._release(claim)
        if cut_off:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # a TaskGroup that fails swallows this before Python 3.13
                raise asyncio.CancelledError
            await self._hand_back_when_possible(claim)

    async def _pull_in_time(self, claim: Claim, turn: Turn) -> None:
        longest = self._settings.max_sync_seconds
        try:
            async with asyncio.timeout(longest - claim.seconds_since_start) as limit:
                await self._pull.run(claim, turn)
        except TimeoutError:
            if not limit.expired():
                raise
            raise PullFailed(
                "SYNC_TOO_LONG",
                f"The sync was not complete {longest:g} s after it had begun, which is the longest that one may take. "
                "What was read stays in the catalog. Let the product service answer faster or with larger pages, then "
                "start the sync again.",
            ) from None

    async def _release(self, claim: Claim) -> bool:
        """Return False where the database is away."""
        try:
            await self._database.write(claims.release, claim)
        except LeaseLost as lost:
            await self._leave(claim, lost)
        except Unavailable as away:
            logger.warning("The sync stops here: %s", away.with_cause)
            return False
        else:
            tracing.ended(events.RELEASED)
            logger.info("The sync is released: other merchants wait.")
        return True

    async def _hand_back_when_possible(self, claim: Claim) -> None:
        """Until the lease has run out: a sync that lost its database goes on as soon as it is there again.

        A try whose answer was lost may have worked; the next one then meets a claim that no longer holds.
        """
        with contextlib.suppress(TimeoutError, LeaseLost):
            async with asyncio.timeout(self._settings.lease_seconds):
                while True:
                    await asyncio.sleep(SECONDS_BETWEEN_TRIES)
                    with contextlib.suppress(Unavailable):
                        await self._hand_back(claim)
                        return

    async def _hand_back(self, claim: Claim) -> None:
        await self._database.write(claims.hand_back, claim)
        tracing.ended("HANDED_BACK")
        logger.info("The sync is handed back.")

    async def _keep(self, claim: Claim) -> None:
        """Renew the lease until cancelled. Raises LeaseLost.

        After any other failure, the next heartbeat may arrive in time; until then, every write is guarded.
        """
        renew = partial(self._renew_now_and_then, claim)
        await self._supervisor.keep(
            metrics.HEARTBEATS, renew, ends_with=(LeaseLost,), away=NOT_RENEWED, longest_pause=self._heartbeat_seconds
        )

    async def _renew_now_and_then(self, claim: Claim, loop: Loop) -> None:
        while True:
            if not loop.is_failing:  # after a failure, its pause was the wait
                with loop.idle():
                    await asyncio.sleep(self._heartbeat_seconds)
            await self._database.write(
                claims.heartbeat, claim, self._settings.lease_seconds, self._pull.pop_retry_count(claim)
            )
            loop.progressed()

    @property
    def _heartbeat_seconds(self) -> float:
        return min(self._settings.lease_seconds / HEARTBEATS_PER_LEASE, LONGEST_UNTIL_CANCELLED)

    async def _fail(self, claim: Claim, code: str, detail: str, began: float) -> None:
        detail = logs.redact(detail).replace("\0", "\ufffd")
        logger.warning("The sync FAILED, %s: %s", code, detail)
        tracing.ended(SyncStatus.FAILED, failed=code)
        try:
            await self._database.write(claims.fail, claim, code, detail, self._pull.pop_retry_count(claim))
        except LeaseLost as lost:
            await self._leave(claim, lost)
        except Unavailable:  # when the lease has run out, another worker finds the same fault
            return
        else:
            self._metrics.ended(claim.entity_type, SyncStatus.FAILED, code, time.monotonic() - began)

    async def _leave(self, claim: Claim, reason: Exception) -> None:
        """A client that cancels takes the lease away too, and so does an operator who removes the merchant."""
        logger.warning("%s", reason)
        tracing.ended("LEFT")
        with contextlib.suppress(SyncNotFound, Unavailable):
            now = await self._database.read(syncs.get, claim.merchant, claim.sync_id)
            if now.status is not SyncStatus.CANCELLED:
                self._metrics.lost_lease()

    async def _forget(self, claim: Claim) -> None:
        with contextlib.suppress(Unavailable):
            while await self._database.write(catalog.delete_seen, claim.merchant, IDS_FORGOTTEN_AT_ONCE):
                pass

    async def _prune_now_and_then(self, loop: Loop) -> None:
        while True:
            days, cancelled_days = self._settings.retention_days, self._settings.cancelled_retention_days
            while await self._database.write(syncs.prune, days, PRUNED_AT_ONCE, cancelled_days):
                loop.progressed()
            loop.progressed()
            with loop.idle():
                await asyncio.sleep(SECONDS_BETWEEN_PRUNES)
