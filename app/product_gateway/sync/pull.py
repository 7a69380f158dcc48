"""A pull: writes every page of a merchant's list into the catalog, then removes the records that the list lacks.

A pull fails if its merchant may no longer sync, if too many records do not fit the contract, or if the list lacks too
much of the catalog.
"""

import contextlib
import time
from collections import defaultdict
from dataclasses import dataclass, field
from uuid import UUID

from product_gateway.auth.encryption import Secrets
from product_gateway.db import catalog_removal, catalog_write, claims, generations, merchants
from product_gateway.db.database import Database
from product_gateway.errors import PullFailed, SettingsError, TurnOver
from product_gateway.http_client.client import HttpClient
from product_gateway.http_client.tracebacks import release_locals
from product_gateway.model.catalog import AnyPage, LazyPage, Page
from product_gateway.model.merchants import Merchant, Platform
from product_gateway.model.syncs import MIN_SAMPLE, CatalogSize, Claim, EntityType
from product_gateway.settings import Settings
from product_gateway.sync import records
from product_gateway.sync.page_size import PageSizes
from product_gateway.sync.product_service import PAGES_WITHOUT_NEW_RECORDS, Prefetcher, ProductService
from product_gateway.telemetry.metrics import Metrics

RECORDS_PER_STEP = 2000  # of a removal, a revert or a roll back
MAX_IDS_VERIFIED = 1000  # missing records that are requested by id
TRANSIENT_CODES = ("PRODUCT_SERVICE_UNREACHABLE", "PRODUCT_SERVICE_RATE_LIMITED")


@dataclass(eq=False, slots=True)
class Turn:
    """A sync's turn in a slot of the worker. With `is_over`, the pull stops after the page that it is reading.

    Times are of the monotonic clock. `ended` is when the worker set `is_over`.
    """

    is_over: bool = False
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0


class Pull:
    """Runs pulls for claims, any number at the same time."""

    def __init__(self, settings: Settings, database: Database, outbound: HttpClient, metrics: Metrics) -> None:
        self._settings = settings
        self._database = database
        self._outbound = outbound
        self._metrics = metrics
        self._secrets = Secrets(settings)
        self._page_sizes = PageSizes(settings.page_size, settings.max_page_size)
        self._retries: defaultdict[UUID, list[str]] = defaultdict(list)  # by sync, since they were last recorded

    def pop_retries(self, claim: Claim) -> list[str]:
        """Return the status before each retry of the sync's requests since the last call. The caller records them."""
        return self._retries.pop(claim.sync_id, [])

    def _retried(self, claim: Claim, status: str) -> None:
        self._metrics.pull_retries.inc()
        self._retries[claim.sync_id].append(status)

    async def run(self, claim: Claim, turn: Turn) -> None:
        """Pull from the claim's cursor to the end. Raises PullFailed, LeaseLost or Unavailable.

        Raises TurnOver after a page, if the turn is over and more pages follow.
        """
        try:
            merchant = await self._merchant(claim)
            await self.run_from(self._product_service(merchant, claim), claim, turn, merchant.max_rejected_percent)
        except BaseException as error:
            release_locals(error)  # they hold pages and response bodies
            raise

    async def run_from(self, service: ProductService, claim: Claim, turn: Turn, max_rejected_percent: int) -> None:
        """Run the claim's pull against this product service. Raises what `run` raises."""
        await prepare(self._database, claim, self._settings.lease_seconds)
        if claim.pull_complete:  # the worker that read the last page may have been lost before this check
            require_few_rejected(claim.records_read, claim.rejected, max_rejected_percent)
        else:
            await self._read_pages(claim, max_rejected_percent, service, turn)
        if await self._database.read(claims.may_remove, claim):
            await self._remove_missing(claim, service)
        else:
            await self._remove_certainly_gone(claim, service)

    async def _read_pages(self, claim: Claim, most: int, service: ProductService, turn: Turn) -> None:
        """Write every page. While a page is written, the next one is fetched, unless the pull ends with this page."""
        read, rejected, number = claim.records_read, claim.rejected, claim.pages_read
        most_on_page = records.list_schema(claim.entity_type).most_records
        fetched = service.pages(claim.entity_type, claim.cursor, claim.pages_read)
        async with contextlib.aclosing(Prefetcher(fetched)) as pages:
            async for page in pages:
                unfit = len(page.rejections) if isinstance(page, Page) else 0  # not known for a lazy page
                read, number, last = read + page.size, number + 1, page.next_cursor is None
                pages_left = 0 if last else max(0, self._settings.max_pages - number)
                to_come = pages_left * most_on_page
                if not last and not turn.is_over and not are_too_many_rejected(read, rejected + unfit, most, to_come):
                    pages.fetch()
                written = await self._write(claim, page)
                rejected += written.rejected
                require_few_rejected(read, rejected, most, to_come)
                if not last:
                    require_new_records(claim.entity_type, number, written.pages_without_new)
                if turn.is_over and not last:
                    raise TurnOver("Other merchants wait.")
                service.skip_unchanged = written.same_bytes * 2 > page.size

    async def _write(self, claim: Claim, page: AnyPage) -> catalog_write.WriteResult:
        """Write a page. Decode a lazy page before its transaction starts, so that no other write waits for that."""
        known = None
        if isinstance(page, LazyPage):
            known = await self._database.read(catalog_write.find_digests, claim, list(page.digests))
            page = page.decode({each for each, digest in page.digests.items() if known.digests.get(each) == digest})
        lease, retries = self._settings.lease_seconds, self.pop_retries(claim)
        quota = CatalogSize(self._settings.max_catalog_records, self._settings.max_catalog_bytes)
        written = await self._database.write(catalog_write.write_page, claim, page, lease, retries, quota, known)
        self._metrics.read(claim.entity_type, page.size, written.rejected)
        return written

    async def _remove_missing(self, claim: Claim, service: ProductService) -> None:
        """Remove the records that the list lacks, except those that the service returns when asked by id."""
        missing = await self._database.read(catalog_removal.missing, claim, MAX_IDS_VERIFIED + 1)
        if not missing:
            return
        if len(missing) <= MAX_IDS_VERIFIED:
            await self._verify_missing(missing, claim, service)
        unseen, held, allowed = await self._database.read(catalog_removal.count_missing, claim)
        self._refuse_mass_deletion(claim, unseen, held, allowed=allowed)
        after: str | None = ""
        while after is not None:
            after = await self._database.write(catalog_removal.remove_missing, claim, after, RECORDS_PER_STEP)

    async def _remove_certainly_gone(self, claim: Claim, service: ProductService) -> None:
        """Remove the missing records that the service certainly no longer has, and record how many others stay.

        For lists with records without a usable id: each of those could be a missing record. Raises LeaseLost.
        """
        missing = await self._database.read(catalog_removal.missing, claim, MAX_IDS_VERIFIED)
        gone: list[str] = []
        if missing and (known := await self._database.read(catalog_removal.any_seen, claim)):
            gone = await self._verify_missing(missing, claim, service, known)
        unseen, held, allowed = await self._database.read(catalog_removal.count_missing, claim)
        self._refuse_mass_deletion(claim, len(gone), held, allowed=allowed)
        if gone:
            await self._database.write(catalog_removal.remove, claim, gone)
        await self._database.write(claims.record_not_removed, claim, unseen - len(gone))

    async def _verify_missing(
        self, ids: list[str], claim: Claim, service: ProductService, known: str | None = None
    ) -> list[str]:
        """Request missing records by id, write those that come, and return the ids that are certainly gone.

        A list that changes while it is read may lack records that still exist. If the service cannot be asked by id,
        its list decides. If it is unreachable, raise PullFailed.
        """
        gone: list[str] = []
        try:
            async with contextlib.aclosing(service.fetch_by_ids(claim.entity_type, ids, known)) as answers:
                async for answer in answers:
                    gone += answer.gone
                    if answer.page.size:
                        await self._write(claim, answer.page)
        except PullFailed as failed:
            if failed.code in TRANSIENT_CODES:
                raise
        return gone

    def _refuse_mass_deletion(self, claim: Claim, missing: int, held: int, *, allowed: bool) -> None:
        most = self._settings.max_deleted_percent
        if not (allowed or claim.is_staged) and held >= MIN_SAMPLE and missing * 100 > most * held:
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

    def _product_service(self, merchant: Merchant, claim: Claim) -> ProductService:
        stored = merchant.product_service_token
        try:
            token = None if stored is None else self._secrets.decrypt(stored)
        except SettingsError as error:
            raise PullFailed("TOKEN_UNREADABLE", error.detail) from None
        made, url = self._settings, merchant.product_service_url or ""  # a table constraint: BYOP has a URL
        return ProductService(
            *(self._outbound, url, token, self._page_sizes.begin(claim.merchant, claim.entity_type)),
            max_pages=made.max_pages,
            max_record_bytes=made.max_record_bytes,
            attempts=made.request_attempts,
            wait_initial=made.retry_wait_seconds,
            retried=lambda status: self._retried(claim, status),
        )


async def prepare(database: Database, claim: Claim, lease_seconds: float) -> None:
    """Roll back what an earlier sync of the entity type left unpublished. Raises LeaseLost."""
    earlier = await database.read(generations.unpublished_by_another, claim)
    while earlier and not await database.write(generations.prepare, claim, earlier, lease_seconds, RECORDS_PER_STEP):
        pass


def are_too_many_rejected(read: int, rejected: int, most_percent: int, to_come: int = 0) -> bool:
    """Return whether a pull has too many rejected records, even if all records to come fit the contract.

    `to_come` is an upper bound, and not derived from `totalNumber`, which merchants may get wrong.
    """
    return read >= MIN_SAMPLE and rejected * 100 > most_percent * (read + to_come)


def require_few_rejected(read: int, rejected: int, most_percent: int, to_come: int = 0) -> None:
    if are_too_many_rejected(read, rejected, most_percent, to_come):
        raise PullFailed(
            "TOO_MANY_REJECTED",
            f"{rejected} of {read} records do not fit the contract, and no more than {most_percent} % may. "
            "The sync's problems say what is wrong with them. Nothing was removed from the catalog.",
        )


def require_new_records(entity_type: EntityType, number: int, pages_without_new: int) -> None:
    if pages_without_new >= PAGES_WITHOUT_NEW_RECORDS:
        raise PullFailed(
            "INVALID_PAGING",
            f"Page {number} of {records.list_schema(entity_type).path} is the {pages_without_new}th in a row without a "
            "record that is new to this sync, and says that there are more. Each nextCursor must lead on to records "
            "that have not been sent yet. End the list with moreResults false.",
        )
