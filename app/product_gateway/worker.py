"""Claims syncs, runs them, records how they ended. Any number of workers may share a database."""

import asyncio
import contextlib
import logging
import os
import socket
import time

from product_gateway import logs, tracing
from product_gateway.db import Database, catalog, claims, merchants, syncs
from product_gateway.errors import LeaseLost, PullFailed, SettingsError, SyncNotFound, Unavailable
from product_gateway.keys import Secrets
from product_gateway.metrics import Metrics
from product_gateway.model import Claim, EntityType, Merchant, Page, Platform, SyncStatus
from product_gateway.outbound import Outbound
from product_gateway.product_service import ProductService
from product_gateway.settings import Settings

logger = logging.getLogger(__name__)

RECORDS_LOOKED_AT_PER_REMOVAL = 2000
MOST_ASKED_ABOUT = 1000  # records that a list lacks
AWAY = ("PRODUCT_SERVICE_UNREACHABLE", "PRODUCT_SERVICE_RATE_LIMITED")
IDS_FORGOTTEN_AT_ONCE = 5000
HEARTBEATS_PER_LEASE = 3
LONGEST_UNTIL_CANCELLED = 4.0  # seconds: a heartbeat is how a worker learns that its sync was cancelled
FEWEST_TO_JUDGE = 20  # records: with fewer, a share says nothing
FEWEST_TO_JUDGE_BEFORE_THE_END = 100
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
        self._outbound = outbound
        self._metrics = metrics or Metrics()
        self._secrets = Secrets(settings)
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
                    await asyncio.wait_for(stop.wait(), self._settings.worker_poll_seconds)
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
                await self._pull(claim)
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
                await self._database.write(claims.heartbeat, claim, self._settings.lease_seconds)
            except Unavailable as error:  # the next one may arrive in time; until then, every write is guarded
                logger.warning("The sync's lease was not renewed: %s", error.with_cause)

    async def _pull(self, claim: Claim) -> None:
        merchant = await self._merchant(claim)
        service = self._product_service(merchant)
        if claim.pull_complete:  # the worker that read the last page may have been lost before it judged
            _refuse_too_many_rejected(merchant, claim.records_read, claim.rejected, FEWEST_TO_JUDGE)
        else:
            await self._read_pages(claim, merchant, service)
        if await self._database.read(claims.may_remove, claim):
            await self._ask_for_missing(claim, service)
            await self._refuse_mass_deletion(claim)
            after: str | None = ""
            while after is not None:
                after = await self._database.write(catalog.remove_missing, claim, after, RECORDS_LOOKED_AT_PER_REMOVAL)

    async def _read_pages(self, claim: Claim, merchant: Merchant, service: ProductService) -> None:
        read, rejected = claim.records_read, claim.rejected
        async with contextlib.aclosing(service.pages(claim.entity_type, claim.cursor, claim.pages_read)) as pages:
            async for page in pages:
                await self._write(claim, page)
                read, rejected = read + page.size, rejected + len(page.rejections)
                enough = FEWEST_TO_JUDGE if page.next_cursor is None else FEWEST_TO_JUDGE_BEFORE_THE_END
                _refuse_too_many_rejected(merchant, read, rejected, enough)

    async def _write(self, claim: Claim, page: Page) -> None:
        await self._database.write(catalog.write_page, claim, page, self._settings.lease_seconds)
        self._metrics.read(claim.entity_type, page.size, len(page.rejections))

    async def _ask_for_missing(self, claim: Claim, service: ProductService) -> None:
        """A list that changes while it is read may leave out what is still there: what is asked for by id comes back.

        Where a service cannot be asked so, its list counts; where it is away, the sync fails.
        """
        ids = await self._database.read(catalog.missing, claim, MOST_ASKED_ABOUT + 1)
        if len(ids) > MOST_ASKED_ABOUT:
            return
        try:
            async with contextlib.aclosing(service.still_there(claim.entity_type, ids)) as pages:
                async for page in pages:
                    await self._write(claim, page)
        except PullFailed as failed:
            if failed.code in AWAY:
                raise

    async def _refuse_mass_deletion(self, claim: Claim) -> None:
        missing, held, allowed = await self._database.read(catalog.size_of_removal, claim)
        most = self._settings.max_deleted_percent
        if not allowed and held >= FEWEST_TO_JUDGE and missing * 100 > most * held:
            raise PullFailed(
                "MASS_DELETION",
                f"The product service no longer has {missing} of the {held} records in the catalog, and a sync may "
                f"remove {most} % at the most. Nothing was removed. If they are really gone, the operator can allow it "
                f"once: product-gateway merchant allow-mass-deletion {claim.merchant} {claim.entity_type}",
            )

    async def _merchant(self, claim: Claim) -> Merchant:
        merchant = await self._database.read(merchants.find, claim.merchant)
        if merchant is None or merchant.platform is not Platform.BYOP:
            raise PullFailed("NOT_BRING_YOUR_OWN_PLATFORM", "The merchant no longer brings its own platform.")
        if merchant.disabled:
            raise PullFailed("MERCHANT_DISABLED", "The merchant was disabled before its sync ran.")
        return merchant

    def _product_service(self, merchant: Merchant) -> ProductService:
        stored = merchant.product_service_token
        try:
            token = None if stored is None else self._secrets.decrypt(stored)
        except SettingsError as error:
            raise PullFailed("TOKEN_UNREADABLE", error.detail) from None
        url = merchant.product_service_url or ""  # a table constraint: BYOP has one
        made = self._settings
        return ProductService(
            self._outbound,
            url,
            token,
            made.page_size,
            max_pages=made.max_pages,
            max_record_bytes=made.max_record_bytes,
            attempts=made.request_attempts,
            wait_initial=made.retry_wait_seconds,
            retried=self._metrics.retried,
        )

    async def _fail(self, claim: Claim, code: str, detail: str, began: float) -> None:
        detail = logs.masked(detail).replace("\0", "\ufffd")
        logger.warning("The sync FAILED, %s: %s", code, detail)
        tracing.ended(SyncStatus.FAILED, failed=code)
        try:
            await self._database.write(claims.fail, claim, code, detail)
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


def _refuse_too_many_rejected(merchant: Merchant, read: int, rejected: int, enough: int) -> None:
    if read >= enough and rejected * 100 > merchant.max_rejected_percent * read:
        raise PullFailed(
            "TOO_MANY_REJECTED",
            f"{rejected} of {read} records do not fit the contract, and no more than {merchant.max_rejected_percent} % "
            "may. The sync's problems say what is wrong with them. Nothing was removed from the catalog.",
        )
