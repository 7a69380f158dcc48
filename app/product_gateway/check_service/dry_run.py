"""A dry run: the worker's own pull of one list, into a temporary copy of the catalog."""

import contextlib
import tempfile
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from product_gateway.check_service.recording_client import Service
from product_gateway.check_service.results import DryRunResult, ListResults
from product_gateway.db import catalog, catalog_write, claims, generations, merchants, migrate, syncs
from product_gateway.db.database import Database, connect, is_embedded
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import PullFailed, SettingsError, TurnOver
from product_gateway.model.catalog import AnyPage, Page, Record
from product_gateway.model.merchants import Merchant, Platform
from product_gateway.model.syncs import Claim, EntityType
from product_gateway.sync.product_service import ProductService
from product_gateway.sync.pull import Pull, Turn
from product_gateway.telemetry.metrics import Metrics

DEFAULT_MAX_REJECTED_PERCENT = 10  # that of a new merchant
LEASE_SECONDS = 60.0  # no other worker exists that could take the sync over
CATALOG_PAGE = 500
SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Catalog:
    """A merchant's catalog in a database. Without them, an empty catalog."""

    database: Database | None = None
    merchant: Merchant | None = None

    @property
    def name(self) -> str:
        return self.merchant.name if self.merchant else "check-service"

    async def find(self, entity_type: EntityType, ids: Iterable[str]) -> tuple[Record, ...]:
        """Return the records that the catalog has of these ids."""
        if self.database is None or self.merchant is None:
            return ()
        return tuple(await self.database.read(catalog.find, self.merchant.name, entity_type, list(ids)))

    async def pages(self, entity_type: EntityType) -> AsyncGenerator[tuple[Record, ...], None]:
        """Yield all records, a page at a time."""
        after: str | None = ""
        while after is not None and self.database is not None and self.merchant is not None:
            page = await self.database.read(catalog.page, self.merchant.name, entity_type, after, CATALOG_PAGE)
            yield await self.find(entity_type, [each.id for each in page.records])
            after = page.next_after


def catalog_of(database: Database, name: str) -> Catalog:
    """Return the merchant's catalog. Raise SettingsError for an unknown merchant and for an outdated database."""
    path = database.engine.url.database
    if is_embedded(database) and not Path(str(path)).is_file():  # connecting would create it
        raise SettingsError(f"There is no database {path}. Leave out --merchant to compare with an empty catalog.")
    database.call(migrate.require_fit)
    merchant = database.call(merchants.find, name)
    if merchant is None:
        raise SettingsError(
            f"The database has no merchant {name}. `product-gateway merchant list` shows its merchants."
        )
    return Catalog(database, merchant)


class _BoundedProductService(ProductService):
    """A product service that ends the pull's turn after `max_pages` pages and keeps the ids that it lists."""

    def __init__(self, *arguments: Any, turn: Turn, pages_left: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._turn = turn
        self._pages_left = pages_left
        self.ids: list[str] = []

    async def pages(
        self, entity_type: EntityType, cursor: str | None, pages_read: int = 0
    ) -> AsyncGenerator[AnyPage, None]:
        async with contextlib.aclosing(super().pages(entity_type, cursor, pages_read)) as pages:
            async for page in pages:
                self._pages_left -= 1
                self._turn.is_over = self._pages_left <= 0
                self.ids += [each.id for each in page.records] if isinstance(page, Page) else page.digests
                yield page


async def run(service: Service, results: ListResults, baseline: Catalog, *, max_pages: int) -> list[str]:
    """Pull at most `max_pages` pages into a copy of the baseline. Add what a sync would do to the results.

    Return the ids of the records that the sync would keep, in the order of the list.
    """
    entity_type = results.subject
    with (
        tempfile.TemporaryDirectory(prefix="product-gateway-dry-run-") as folder,
        contextlib.closing(connect(f"sqlite:///{folder}/copy.db")) as database,
    ):
        copy = await _copy(baseline, entity_type, database)
        claim = await _start_sync(database, baseline.name, entity_type)
        settings = service.settings.model_copy(update={"data_dir": Path(folder), "secret_key_file": None})
        turn = Turn()
        product_service = _BoundedProductService(
            *(service, service.url, service.token, settings.page_size),
            max_pages=settings.max_pages,
            max_record_bytes=settings.max_record_bytes,
            attempts=settings.request_attempts,
            wait_initial=settings.retry_wait_seconds,
            turn=turn,
            pages_left=max_pages,
        )
        complete, code = False, None
        against, most = "an empty catalog", DEFAULT_MAX_REJECTED_PERCENT
        if baseline.merchant is not None:
            against, most = f"the catalog of {baseline.merchant.name}", baseline.merchant.max_rejected_percent
        try:
            with contextlib.suppress(TurnOver):
                pull = Pull(settings, database, service, Metrics())
                await pull.run_from(product_service, claim, turn, most)
                complete = True
        except PullFailed as failed:
            code = failed.code
            last = service.exchanges[-1]
            shows_it = last.status != 200 or code in ("INVALID_PAGE", "INVALID_PAGING")
            detail = f"It would end FAILED with {code}: {failed.detail}"
            results.failed("dry-run", detail, last if shows_it else None)
        results.passed("dry-run")
        sync = await database.read(syncs.get, claim.merchant, claim.sync_id)
        problems = await database.read(syncs.problems, claim.merchant, claim.sync_id)
        await database.write(generations.succeed, claim)  # readers of the copy see what is published
        samples = await _changed(baseline, copy, entity_type)
        samples["rejected"] = [each.record_id or "without a valid id" for group in problems for each in group.samples]
        some = {what: tuple(ids[:SAMPLES]) for what, ids in samples.items()}
        result = DryRunResult(entity_type, against, sync.counts, sync.not_removed, some, complete, code)
        results.all.dry_runs.append(result)
        return product_service.ids


async def _copy(baseline: Catalog, entity_type: EntityType, database: Database) -> Catalog:
    """Create the tables and copy the merchant and its records of the entity type. Return the new catalog."""
    await database.write(migrate.create)
    merchant = await database.write(merchants.add, baseline.name, Platform.BYOP, "https://service.invalid")
    claim = await _start_sync(database, baseline.name, entity_type)
    async for records in baseline.pages(entity_type):
        page = Page(records, rejections=(), next_cursor=None, total=None)
        await database.write(catalog_write.write_page, claim, page, LEASE_SECONDS)
    await database.write(generations.succeed, claim)
    return Catalog(database, merchant)


async def _start_sync(database: Database, merchant: str, entity_type: EntityType) -> Claim:
    await database.write(enqueue, merchant, entity_type)
    claim = await database.write(claims.claim, "check-service", LEASE_SECONDS, 1, len(EntityType))
    if claim is None:
        raise AssertionError("The only sync of the temporary database cannot be claimed.")
    return claim


async def _changed(baseline: Catalog, copy: Catalog, entity_type: EntityType) -> dict[str, list[str]]:
    """Return the ids of the records that the sync created, updated and deleted in the copy."""
    changed: dict[str, list[str]] = {"created": [], "updated": [], "deleted": []}
    async for records in baseline.pages(entity_type):
        now = {each.id: each for each in await copy.find(entity_type, [each.id for each in records])}
        changed["deleted"] += [each.id for each in records if each.id not in now]
        changed["updated"] += [each.id for each in records if now.get(each.id, each) != each]
    async for records in copy.pages(entity_type):
        before = {each.id for each in await baseline.find(entity_type, [each.id for each in records])}
        changed["created"] += [each.id for each in records if each.id not in before]
    return changed
