"""Claims syncs, runs them, records how they ended. Any number of workers may share a database."""

import asyncio
import contextlib
import logging
import os
import socket
import time

from product_gateway import logs, tracing
from product_gateway.db import Database, catalog, claims, syncs
from product_gateway.errors import LeaseLost, PullFailed, SyncNotFound, Unavailable
from product_gateway.metrics import Metrics
from product_gateway.model import Claim, EntityType, SyncStatus
from product_gateway.outbound import Outbound
from product_gateway.pull import Pull
from product_gateway.settings import Settings

logger = logging.getLogger(__name__)

IDS_FORGOTTEN_AT_ONCE = 5000
HEARTBEATS_PER_LEASE = 3
LONGEST_UNTIL_CANCELLED = 4.0  # seconds: a heartbeat is how a worker learns that its sync was cancelled
SECONDS_BETWEEN_PRUNES = 3600.0
PRUNED_AT_ONCE = 200
SECONDS_BETWEEN_TRIES = 0.5


class Worker:
    """Runs up to `worker_concurrency` syncs at a time."""

    def __init__(
        self, settings: Settings, database: Database, outbound: Outbound, metrics: Metrics | None = None
    ) -> None:
        self._settings = settings
        self._database = database
        self._metrics = metrics or Metrics()
        self._pull = Pull(settings, database, outbound, self._metrics)
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._away = False

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then what is running is handed back, for another worker to go on with."""
        pruning = asyncio.create_task(self._prune_now_and_then())
        try:
            await self._run_syncs(stop)
        finally:
            pruning.cancel()
            await asyncio.gather(pruning, return_exceptions=True)

    async def _run_syncs(self, stop: asyncio.Event) -> None:
        slots = asyncio.Semaphore(self._settings.worker_concurrency)
        running: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            await slots.acquire()
            claim = None if stop.is_set() else await self._claim()
            if claim is None:
                slots.release()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.worker_poll_seconds):
                        await stop.wait()
                continue
            task = asyncio.create_task(self._run_claim(claim))
            running.add(task)
            task.add_done_callback(running.discard)
            task.add_done_callback(lambda _: slots.release())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _claim(self) -> Claim | None:
        try:
            made = self._settings
            found = await self._database.read(claims.is_any_claimable, made.syncs_per_merchant)
            if self._away:
                logger.info("The database is back: syncs are looked for again.")
            self._away = False
            if found:
                return await self._take_up()
        except Unavailable as error:
            if not self._away:
                logger.warning("Syncs are not looked for until the database is back: %s", error.with_cause)
            self._away = True
        return None

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
        logs.about(sync_id=str(claim.sync_id), merchant=claim.merchant, entity_type=claim.entity_type.value)
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

    async def _run_to_its_end(self, claim: Claim) -> None:
        cut_off = False
        began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                heartbeat = group.create_task(self._keep(claim))
                await self._pull.run(claim)
                heartbeat.cancel()
            await self._database.write(catalog.succeed, claim)
            seconds = time.monotonic() - began
            self._metrics.ended(claim.entity_type, SyncStatus.SUCCEEDED, seconds=seconds)
            tracing.ended(SyncStatus.SUCCEEDED)
            logger.info("The sync SUCCEEDED after %.1f s.", seconds)
        except* LeaseLost as lost:
            await self._leave(claim, lost.exceptions[0])
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
        if cut_off:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # a TaskGroup that fails swallows this before Python 3.13
                raise asyncio.CancelledError
            await self._hand_back_when_possible(claim)

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
        while True:
            await asyncio.sleep(min(self._settings.lease_seconds / HEARTBEATS_PER_LEASE, LONGEST_UNTIL_CANCELLED))
            try:
                await self._database.write(
                    claims.heartbeat, claim, self._settings.lease_seconds, self._pull.take_repeated(claim)
                )
            except Unavailable as error:  # the next one may arrive in time; until then, every write is guarded
                logger.warning("The sync's lease was not renewed: %s", error.with_cause)

    async def _fail(self, claim: Claim, code: str, detail: str, began: float) -> None:
        detail = logs.masked(detail).replace("\0", "\ufffd")
        logger.warning("The sync FAILED, %s: %s", code, detail)
        tracing.ended(SyncStatus.FAILED, failed=code)
        try:
            await self._database.write(claims.fail, claim, code, detail, self._pull.take_repeated(claim))
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
            while await self._database.write(catalog.forget_seen, claim.merchant, IDS_FORGOTTEN_AT_ONCE):
                pass

    async def _prune_now_and_then(self) -> None:
        while True:
            try:
                while await self._database.write(syncs.prune, self._settings.retention_days, PRUNED_AT_ONCE):
                    pass
            except Unavailable as error:
                logger.warning("Pruning: %s", error.with_cause)
            await asyncio.sleep(SECONDS_BETWEEN_PRUNES)
