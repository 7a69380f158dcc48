"""A sync that writes nothing: what it would create, update, delete, leave as it is and reject."""

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from product_gateway.check_service.recording_client import Service
from product_gateway.check_service.results import CheckResults, DryRunResult
from product_gateway.db import catalog, merchants, migrate
from product_gateway.db.database import Database, is_embedded
from product_gateway.errors import PullFailed, SettingsError
from product_gateway.model.catalog import Page, Record
from product_gateway.model.merchants import Merchant
from product_gateway.model.syncs import MIN_SAMPLE, Counts, EntityType
from product_gateway.sync import pull
from product_gateway.sync.product_service import ProductService

REJECTED_AT_MOST = 10  # percent, as merchants have it by default
CATALOG_PAGE = 500
SAMPLES = 3


class Baseline:
    """The catalog that a sync would meet: a merchant's, or an empty one. Only reads."""

    def __init__(self, database: Database | None = None, merchant: Merchant | None = None) -> None:
        self._database = database
        self._merchant = merchant

    @property
    def name(self) -> str:
        """What the counts are compared with, in words."""
        return f"the catalog of {self._merchant.name}" if self._merchant else "an empty catalog"

    @property
    def rejected_at_most(self) -> int:
        """Percent of the records."""
        return self._merchant.max_rejected_percent if self._merchant else REJECTED_AT_MOST

    async def find(self, entity_type: EntityType, ids: Iterable[str]) -> dict[str, Record]:
        """Those of the records that it has."""
        if self._database is None or self._merchant is None:
            return {}
        found = await self._database.read(catalog.find, self._merchant.name, entity_type, list(ids))
        return {each.id: each for each in found}

    async def ids(self, entity_type: EntityType) -> list[str]:
        """All that it has."""
        ids: list[str] = []
        after: str | None = ""
        while after is not None and self._database is not None and self._merchant is not None:
            page = await self._database.read(catalog.page, self._merchant.name, entity_type, after, CATALOG_PAGE)
            ids += [each.id for each in page.records]
            after = page.next_after
        return ids


async def stock_of(database: Database, name: str) -> Baseline:
    """The merchant's catalog. Raises SettingsError where the database has no such merchant, or is not up to date."""
    if is_embedded(database):
        _require_file(str(database.engine.url.database))
    await database.read(migrate.require_fit)
    merchant = await database.read(merchants.find, name)
    if merchant is None:
        raise SettingsError(
            f"The database has no merchant {name}. `product-gateway merchant list` shows its merchants."
        )
    return Baseline(database, merchant)


def _require_file(path: str) -> None:
    if not Path(path).is_file():  # a look into it would make it
        raise SettingsError(f"There is no database {path}. Leave out --merchant to compare with an empty catalog.")


class DryRun:
    """A sync of one list, as the worker would run it, but for what it writes. `fit` are the ids that it read."""

    def __init__(self, service: Service, entity_type: EntityType, stock: Baseline, page_size: int) -> None:
        self._service = service
        self._of = entity_type
        self._stock = stock
        self._made = service.settings
        self._reader = ProductService(
            service.recorder,
            service.url,
            service.token,
            page_size,
            max_pages=self._made.max_pages,
            max_record_bytes=self._made.max_record_bytes,
            attempts=self._made.request_attempts,
            wait_initial=self._made.retry_wait_seconds,
        )
        self.fit: list[str] = []
        self._seen: set[str] = set()
        self._sent: set[bytes] = set()
        self._unidentified = 0
        self._not_removed = 0
        self._counts = Counts()
        self._read = 0
        self._samples: dict[str, tuple[str, ...]] = {}

    async def run(self, sheet: CheckResults, max_pages: int) -> None:
        """Reads at most `max_pages`, and puts what a sync would do into the sheet."""
        complete, code = False, None
        try:
            complete = await self._pull(max_pages)
            if complete:
                pull.require_few_rejected(self._read, self._counts.rejected, self._stock.rejected_at_most)
                await self._remove()
        except PullFailed as failed:
            code = failed.code
            last = self._service.recorder.exchanges[-1]
            curl = last.curl if last.status != 200 or code in ("INVALID_PAGE", "INVALID_PAGING") else None
            sheet.failed("dry-run", self._of, f"It would end FAILED with {code}: {failed.detail}", curl)
        sheet.passed(self._of, "dry-run")
        counts = (self._counts, self._not_removed)
        sheet.rehearsals.append(DryRunResult(self._of, self._stock.name, *counts, self._samples, complete, code))

    async def _pull(self, max_pages: int) -> bool:
        number = without_new = 0
        async with contextlib.aclosing(self._reader.pages(self._of, None)) as pages:
            async for page in pages:
                number += 1
                self._read += page.size
                new = await self._compare(page if isinstance(page, Page) else page.decode(()))
                without_new = 0 if new else without_new + 1
                if page.next_cursor is not None:
                    pull.require_new_records(self._of, number, without_new)
                    if number == max_pages:
                        return False
        return True

    async def _compare(self, page: Page) -> int:
        """Compare a page with the catalog. Return how many of its records are new to the dry run."""
        before = len(self._seen) + len(self._sent)
        self.fit += [each.id for each in page.records]
        held = await self._stock.find(self._of, [each.id for each in page.records])
        for record in page.records:
            if record.id not in self._seen:
                known = held.get(record.id)
                self._add("created" if known is None else "unchanged" if known == record else "updated", record.id)
        for rejection in page.rejections:
            self._add("rejected", rejection.record_id or "without a valid id")
        self._seen |= {each.id for each in page.records}
        self._seen |= {each.record_id for each in page.rejections if each.record_id is not None}
        without_id = [each.payload_digest for each in page.rejections if each.record_id is None]
        self._sent |= set(without_id)
        self._unidentified += len(without_id)
        return len(self._seen) + len(self._sent) - before

    async def _remove(self) -> None:
        """What the list lacks and the service does not have by id either, as the worker asks before it removes."""
        ids = await self._stock.ids(self._of)
        missing = [each for each in ids if each not in self._seen]
        certain = await self._look_up(missing)
        gone = [each for each in missing if each not in self._seen]
        if self._unidentified:
            self._not_removed = len(gone) - len(certain)
            gone = [each for each in gone if each in certain]
        for each in gone:
            self._add("deleted", each)
        most = self._made.max_deleted_percent
        if len(ids) >= MIN_SAMPLE and len(gone) * 100 > most * len(ids):
            raise PullFailed(
                "MASS_DELETION",
                f"{len(gone)} of the {len(ids)} records in the catalog are gone, and a sync may remove {most} % at the "
                "most, unless the operator allows it: product-gateway merchant allow-mass-deletion",
            )

    async def _look_up(self, missing: list[str]) -> set[str]:
        """Ask for what the list lacks, as the worker does. Return the ids that are certainly gone."""
        certain: set[str] = set()
        known = min((each for each in self._seen if "," not in each), default=None) if self._unidentified else None
        if self._unidentified:
            missing = missing[: pull.MAX_IDS_VERIFIED] if known else []
        if missing and len(missing) <= pull.MAX_IDS_VERIFIED:
            try:
                async with contextlib.aclosing(self._reader.look_up(self._of, missing, known)) as answers:
                    async for answer in answers:
                        certain |= answer.gone
                        await self._compare(answer.page)
            except PullFailed as failed:
                if failed.code in pull.TRANSIENT_CODES:
                    raise
        return certain

    def _add(self, what: str, record_id: str) -> None:
        self._counts = replace(self._counts, **{what: getattr(self._counts, what) + 1})
        kept = self._samples.get(what, ())
        if len(kept) < SAMPLES:
            self._samples[what] = (*kept, record_id)
