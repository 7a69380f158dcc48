"""The worker: claims syncs, runs them and records how they ended. Any number of workers share a database."""

import asyncio
import contextlib
import logging
import os
import socket
import time
from functools import partial
from uuid import UUID

from product_gateway.db import catalog_removal, claims, events, generations, syncs, wakeups
from product_gateway.db.database import Database
from product_gateway.db.wakeups import Wakeups
from product_gateway.errors import LeaseLost, PullFailed, SyncNotFound, TurnOver, Unavailable
from product_gateway.http_client.client import HttpClient
from product_gateway.model.syncs import Claim, EntityType, SyncStatus
from product_gateway.settings import Settings
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.sync import revert
from product_gateway.sync.freshness import freshness_loop
from product_gateway.sync.heartbeat import Heartbeat
from product_gateway.sync.pruning import prune_loop, roll_back_loop
from product_gateway.sync.pull import Pull, Turn
from product_gateway.telemetry import logs, metrics, tracing
from product_gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

SEEN_IDS_DELETED_AT_ONCE = 5000
SECONDS_BETWEEN_HAND_BACKS = 0.5
POLLS_UNTIL_A_MERCHANT_WAITS = 2  # a worker with a free slot claims a sync within one poll
SECONDS_UNTIL_ANOTHER_TURN_ENDS = 10.0  # where the first turn does not reach the end of its page


class Worker:
    """A worker that runs up to `worker_concurrency` syncs at a time."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        outbound: HttpClient,
        metrics: Metrics,
        supervisor: Supervisor,
        wakeups: Wakeups | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._metrics = metrics
        self._supervisor = supervisor
        self._wakeups = wakeups or Wakeups()
        self._woken = asyncio.Event()
        self._pull = Pull(settings, database, outbound, metrics)
        self._heartbeat = Heartbeat(database, supervisor, settings.lease_seconds, self._pull.pop_retries)
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._place = claims.Place()
        self._running: set[asyncio.Task[None]] = set()
        self._turns: dict[UUID, Turn] = {}  # of the running syncs

    async def run(self, stop: asyncio.Event) -> None:
        """Run syncs until `stop` is set. Then hand back the running ones, for another worker to continue."""
        keep = self._supervisor.keep
        prune = partial(prune_loop, self._settings, self._database)
        roll_back = partial(roll_back_loop, self._database)
        pruning = asyncio.create_task(keep(metrics.PRUNING, prune, away="Pruning waits until the database is back"))
        away = "Stale catalogs are not looked for until the database is back"
        checking = asyncio.create_task(keep(metrics.FRESHNESS, partial(freshness_loop, self._database), away=away))
        away = "Failed syncs are not rolled back until the database is back"
        rolling_back = asyncio.create_task(keep(metrics.ROLL_BACK, roll_back, away=away))
        away = "Workers are not woken until the database is back"
        listening = asyncio.create_task(keep(metrics.WAKEUPS, self._listen, away=away, is_needed=False))
        stopping: asyncio.Task[object] = asyncio.create_task(stop.wait())
        try:
            away = "Syncs are not looked for until the database is back"
            with self._wakeups.listening(partial(asyncio.get_running_loop().call_soon_threadsafe, self._woken.set)):
                await keep(metrics.CLAIMS, partial(self._claim_loop, stopping), stop=stop, away=away)
        finally:
            tasks = (pruning, checking, rolling_back, listening, stopping, *self._running)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, loop: Loop) -> None:
        def wake() -> None:
            loop.progressed()
            self._woken.set()

        with loop.idle():
            await wakeups.listen(self._database, wake)

    async def _claim_loop(self, stopping: asyncio.Task[object], loop: Loop) -> None:
        while not stopping.done():
            claim, awaited = None, {stopping}
            self._woken.clear()
            if has_slot := len(self._running) < self._settings.worker_concurrency:
                claim = await self._claim_next()
            else:
                await self._end_turns()
                awaited = {stopping, *self._running}
            loop.progressed()
            if claim is not None:
                task = asyncio.create_task(self._run_claim(claim))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
                continue
            woken = asyncio.create_task(self._woken.wait())
            if has_slot:
                awaited.add(woken)
            with loop.idle():
                wait = self._settings.worker_poll_seconds
                await asyncio.wait(awaited, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            woken.cancel()

    async def _claim_next(self) -> Claim | None:
        per_merchant = self._settings.syncs_per_merchant
        if not await self._database.read(claims.has_claimable, per_merchant):
            return None
        expired: list[EntityType] = []
        lease, max_lost = self._settings.lease_seconds, self._settings.max_lost_workers
        rules = (lease, max_lost, per_merchant)
        claim = await self._database.write(claims.claim, self._owner, *rules, expired, self._place)
        for entity_type in expired:
            self._metrics.ended(entity_type, SyncStatus.FAILED, claims.WORKER_LOST)
        if claim is not None:
            self._metrics.claimed(taken_over=claim.taken_over)
        return claim

    async def _end_turns(self) -> None:
        """End one turn for each merchant that waits and has no slot.

        The second syncs of a merchant come first, then the syncs that have run longest. A merchant counts as waiting
        after `POLLS_UNTIL_A_MERCHANT_WAITS`. A turn that ended a moment ago counts for one waiting merchant.
        """
        made = self._settings
        demand = await self._database.read(
            claims.demand, POLLS_UNTIL_A_MERCHANT_WAITS * made.worker_poll_seconds, made.worker_concurrency
        )
        now = time.monotonic()
        turns = sorted(self._turns.items(), key=lambda item: (item[0] not in demand.second_syncs, item[1].began))
        wanted = len(demand.waiting)
        for _, turn in turns:
            if not demand.waiting:
                turn.is_over = False
            elif turn.is_over:
                wanted -= now - turn.ended < SECONDS_UNTIL_ANOTHER_TURN_ENDS
        for sync_id, turn in turns:
            may_end = sync_id in demand.second_syncs or now - turn.began >= made.sync_turn_seconds
            if wanted > 0 and may_end and not turn.is_over:
                turn.is_over, turn.ended = True, now
                wanted -= 1

    async def _run_claim(self, claim: Claim) -> None:
        # These values appear in every log line of this task.
        logs.bind(sync_id=str(claim.sync_id), merchant=claim.merchant, entity_type=claim.entity_type.value)
        with tracing.sync(claim.attempt, claim.traceparent):
            logger.info("The sync begins, attempt %d.", claim.attempt)
            try:
                with self._metrics.syncs_running.track_inprogress():
                    await self._run_sync(claim)
                await self._delete_seen_ids(claim)
            except asyncio.CancelledError:
                with contextlib.suppress(LeaseLost, Unavailable):
                    await self._hand_back(claim)
                raise
            except Exception:
                self._metrics.loop_failures.labels(metrics.SYNCS).inc()
                logger.exception("The end of the sync could not be recorded. It is retried when its lease expires.")

    async def _run_sync(self, claim: Claim) -> None:
        turn = self._turns[claim.sync_id] = Turn()
        try:
            await self._pull_and_finish(claim, turn)
        except LeaseLost as lost:
            await self._abandon(claim, lost)
        except Unavailable as error:
            logger.warning("The sync stops here: %s", error.with_cause)
            await self._hand_back_when_possible(claim)
        except PullFailed as failed:
            await self._fail(claim, failed.code, failed.detail, turn)
        except Exception:
            logger.exception("The sync met an unexpected error.")
            detail = "The gateway failed to run this sync. Its operator can see why."
            await self._fail(claim, "INTERNAL_ERROR", detail, turn)

    async def _pull_and_finish(self, claim: Claim, turn: Turn) -> None:
        """Pull, then record that the sync succeeded, or release it if its turn is over."""
        try:
            async with self._heartbeat.renewing(claim):
                await self._pull_in_time(claim, turn)
        except TurnOver:
            await self._database.write(claims.release, claim)
            tracing.note(outcome=events.RELEASED)
            logger.info("The sync is released: other merchants wait.")
        else:
            await self._database.write(generations.succeed, claim)
            seconds = time.monotonic() - turn.began
            self._metrics.ended(claim.entity_type, SyncStatus.SUCCEEDED, seconds=seconds)
            tracing.note(outcome=SyncStatus.SUCCEEDED)
            logger.info("The sync SUCCEEDED after %.1f s.", seconds)
        finally:
            if self._turns.get(claim.sync_id) is turn:  # this worker may have claimed the sync again
                del self._turns[claim.sync_id]

    async def _pull_in_time(self, claim: Claim, turn: Turn) -> None:
        longest = self._settings.max_sync_seconds
        try:
            async with asyncio.timeout(longest - claim.seconds_since_start) as limit:
                if claim.restores is None:
                    await self._pull.run(claim, turn)
                else:
                    await revert.run(self._database, claim, claim.restores, self._settings.lease_seconds)
        except TimeoutError:
            if not limit.expired():
                raise
            raise PullFailed(
                "SYNC_TOO_LONG",
                f"The sync was not complete {longest:g} s after it began, the longest time that a sync may take. The "
                "catalog stays as it was. Let the product service answer faster or with larger pages, then start the "
                "sync again.",
            ) from None

    async def _hand_back_when_possible(self, claim: Claim) -> None:
        """Hand the sync back as soon as the database answers, at the latest when the lease expires.

        An attempt whose answer was lost may have worked: then the next attempt raises LeaseLost.
        """
        with contextlib.suppress(TimeoutError, LeaseLost):
            async with asyncio.timeout(self._settings.lease_seconds):
                while True:
                    await asyncio.sleep(SECONDS_BETWEEN_HAND_BACKS)
                    with contextlib.suppress(Unavailable):
                        await self._hand_back(claim)
                        return

    async def _hand_back(self, claim: Claim) -> None:
        await self._database.write(claims.hand_back, claim)
        tracing.note(outcome="HANDED_BACK")
        logger.info("The sync is handed back.")

    async def _fail(self, claim: Claim, code: str, detail: str, turn: Turn) -> None:
        detail = logs.redact(detail).replace("\0", "\ufffd")
        logger.warning("The sync FAILED, %s: %s", code, detail)
        tracing.note(failed=code, outcome=SyncStatus.FAILED)
        try:
            await self._database.write(claims.fail, claim, code, detail, self._pull.pop_retries(claim))
        except LeaseLost as lost:
            await self._abandon(claim, lost)
        except Unavailable:
            return  # once the lease has expired, another worker meets the same failure
        else:
            self._metrics.ended(claim.entity_type, SyncStatus.FAILED, code, time.monotonic() - turn.began)

    async def _abandon(self, claim: Claim, reason: LeaseLost) -> None:
        """Write nothing more, and count the lost lease unless the sync was cancelled or its merchant removed."""
        tracing.note(outcome="LEFT")
        with contextlib.suppress(SyncNotFound, Unavailable):
            sync = await self._database.read(syncs.get, claim.merchant, claim.sync_id)
            if sync.status is SyncStatus.CANCELLED:
                found = await self._database.read(events.of_sync, claim.merchant, claim.sync_id)
                logger.info("The sync was cancelled %s.", found[-1].detail or "by the client")
                return
            self._metrics.lease_losses.inc()
        logger.warning("%s", reason)

    async def _delete_seen_ids(self, claim: Claim) -> None:
        with contextlib.suppress(Unavailable):
            while await self._database.write(catalog_removal.delete_seen, claim.merchant, SEEN_IDS_DELETED_AT_ONCE):
                pass
