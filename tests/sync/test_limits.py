"""The limits of a sync, with a real worker on both databases: mass deletion, rejected records, quota."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from product_gateway import settings
from product_gateway.db import catalog, catalog_removal, catalog_write, claims, merchants, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.catalog import Page, Record, Rejection
from product_gateway.model.syncs import Counts, Sync, SyncStatus
from product_gateway.openapi import bodies
from product_gateway.settings import Settings
from product_gateway.sync import pull
from tests.support.fake_list_service import FakeListService, items, unfit
from tests.support.product_service_faults.misbehaviour import page_of
from tests.support.serving import serve
from tests.support.syncing import PRODUCT, finish, run, titles


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    """Pages of 50."""
    return settings.load(
        data_dir=tmp_path,
        page_size=50,
        max_page_size=50,
        worker_poll_seconds=0.01,
        allow_private_addresses=True,
        request_attempts=1,
    )


@pytest.fixture
def shelf() -> FakeListService:
    """What the merchant's service has: nothing yet."""
    return FakeListService()


@pytest.fixture
def served(shelf: FakeListService, database: Database) -> Iterator[Database]:
    """The merchant `shop` has the service."""
    with serve(shelf) as url:
        database.call(merchants.update_merchant, "shop", product_service_url=url)
        yield database


async def stocked(made: Settings, database: Database, shelf: FakeListService, number: int) -> None:
    """Fill the catalog with this number of records, in an old version, by a good sync."""
    shelf.products(items(number, "old"))
    assert (await run(made, database)).counts == Counts(created=number)


@pytest.mark.parametrize(
    ("limit", "record_limit"), [({"max_catalog_records": 120}, 120), ({"max_catalog_bytes": 120 * 52}, None)]
)
async def test_a_catalog_grows_no_further_than_its_quota(
    served: Database, made: Settings, shelf: FakeListService, limit: dict[str, int], record_limit: int | None
) -> None:
    """One merchant must not fill the disk of all; what is within the limit is kept and goes on to be updated."""
    shelf.products(items(120, "old"))
    limited = made.model_copy(update=limit)
    assert (await run(limited, served)).status is SyncStatus.SUCCEEDED, "the quota itself is allowed"
    size = served.call(catalog.sizes, "shop")[PRODUCT].bytes
    if record_limit is None:
        limited = made.model_copy(update={"max_catalog_bytes": size})
    shelf.products(items(121, "old"))
    sync = await run(limited, served)
    assert outcome(sync) == (SyncStatus.FAILED, "CATALOG_FULL", 0)
    assert "121 records of PRODUCT" in (sync.failure_detail or "")
    assert "ask the gateway's operator" in (sync.failure_detail or "")
    assert served.call(catalog.state, "shop", PRODUCT).num_records == 120
    assert served.call(catalog.sizes, "shop")[PRODUCT].bytes == size
    shelf.products(items(120, "new"))  # as many, and as many bytes
    assert (await run(limited, served)).counts == Counts(updated=120)
    shelf.products(items(120, "much longer"))
    sync = await run(limited, served)
    assert sync.failure_code == (None if record_limit else "CATALOG_FULL")
    lower = made.model_copy(update={"max_catalog_records": 1, "max_catalog_bytes": 1024})
    shelf.products(items(120, "x"))
    assert (await run(lower, served)).status is SyncStatus.SUCCEEDED, "what gets smaller is never too much"
    shelf.products(items(70, "new"))
    assert (await run(limited, served)).status is SyncStatus.SUCCEEDED
    assert len(await titles(served)) == 70
    shelf.products(items(121, "new"))
    assert (await run(made, served)).status is SyncStatus.SUCCEEDED, "a larger limit is all that it takes"


def outcome(sync: Sync) -> tuple[SyncStatus, str | None, int]:
    """Return how the sync ended, and how many records it deleted."""
    return sync.status, sync.failure_code, sync.counts.deleted


@pytest.mark.parametrize("left", [0, 9])
async def test_a_pull_that_lacks_more_than_half_of_the_catalog_deletes_nothing(
    served: Database, made: Settings, shelf: FakeListService, left: int
) -> None:
    """An empty list is more likely a fault than a clearance. The catalog stays as it was before the sync."""
    await stocked(made, served, shelf, 20)
    shelf.products(items(left))
    sync = await run(made, served)
    assert outcome(sync) == (SyncStatus.FAILED, "MASS_DELETION", 0)
    assert sync.failure_detail is not None
    assert f"no longer has {20 - left} of the 20 records" in sync.failure_detail
    assert "product-gateway merchant allow-mass-deletion shop PRODUCT" in sync.failure_detail
    assert list((await titles(served)).values()) == ["old"] * 20


@pytest.mark.parametrize(("number", "left"), [(20, 10), (19, 0), (1, 0)])
async def test_half_of_the_catalog_or_all_of_a_small_one_may_be_removed(
    served: Database, made: Settings, shelf: FakeListService, number: int, left: int
) -> None:
    """Of fewer than 20 records, a share says nothing."""
    await stocked(made, served, shelf, number)
    shelf.products(items(left))
    assert outcome(await run(made, served)) == (SyncStatus.SUCCEEDED, None, number - left)
    assert len(await titles(served)) == left


async def test_the_share_is_the_operators_to_set(served: Database, made: Settings, shelf: FakeListService) -> None:
    """From nothing at all to everything."""
    await stocked(made, served, shelf, 20)
    shelf.products(items(19))
    strict, loose = (made.model_copy(update={"max_deleted_percent": most}) for most in (0, 100))
    assert outcome(await run(strict, served)) == (SyncStatus.FAILED, "MASS_DELETION", 0)
    shelf.products([])
    assert outcome(await run(loose, served)) == (SyncStatus.SUCCEEDED, None, 20)


async def test_a_mass_deletion_is_allowed_once(served: Database, made: Settings, shelf: FakeListService) -> None:
    """A sync that fails does not use it up; the one after the next success is guarded again."""
    await stocked(made, served, shelf, 20)
    await served.write(catalog_removal.allow_mass_deletion, "shop", PRODUCT)
    shelf.products([])
    shelf.status = 500
    assert (await run(made, served)).failure_code == "PRODUCT_SERVICE_ERROR"
    shelf.status = 200
    assert outcome(await run(made, served)) == (SyncStatus.SUCCEEDED, None, 20)
    await stocked(made, served, shelf, 20)
    shelf.products([])
    assert outcome(await run(made, served)) == (SyncStatus.FAILED, "MASS_DELETION", 0)
    assert len(await titles(served)) == 20


@pytest.mark.parametrize(
    ("number", "rejected", "code"),
    [(20, 2, None), (20, 3, "TOO_MANY_REJECTED"), (19, 18, None), (20, 20, "TOO_MANY_REJECTED")],
)
async def test_more_than_a_tenth_rejected_fails_the_sync_and_changes_nothing(
    served: Database, made: Settings, shelf: FakeListService, number: int, rejected: int, code: str | None
) -> None:
    """From 20 records up. Each rejected one keeps its old version, and what is gone goes only with success."""
    await stocked(made, served, shelf, 30)
    shelf.products(unfit(rejected), items(number - rejected, start=rejected))
    sync = await run(made, served)
    assert sync.failure_code == code
    assert sync.counts.rejected == rejected
    kept = ["old"] * 30 if code else ["old"] * rejected + ["new"] * (number - rejected)
    assert list((await titles(served)).values()) == kept
    if code:
        assert f"{rejected} of {number} records do not fit" in str(sync.failure_detail)
    (problem,) = await served.read(syncs.problems, "shop", sync.id)
    assert (problem.code, problem.count, len(problem.samples)) == ("WRONG_TYPE", rejected, min(5, rejected))


@pytest.mark.parametrize(("rejected", "code"), [(20, None), (21, "TOO_MANY_REJECTED"), (50, "TOO_MANY_REJECTED")])
@pytest.mark.parametrize("page_size", [10, 200])
@pytest.mark.parametrize("order", ["first", "last", "spread"])
async def test_the_verdict_on_rejected_records_depends_neither_on_their_order_nor_on_the_page_size(
    served: Database,
    made: Settings,
    shelf: FakeListService,
    rejected: int,
    code: str | None,
    page_size: int,
    order: str,
) -> None:
    """A merchant must not lose a sync because its oldest records, which come first, are the worst."""
    records = unfit(rejected) + items(200 - rejected, start=rejected)
    if order == "last":
        records.reverse()
    if order == "spread":
        random.Random(rejected).shuffle(records)
    shelf.products(records)
    sync = await run(made.model_copy(update={"page_size": page_size}), served)
    assert sync.failure_code == code
    assert sync.counts == Counts(created=200 - rejected, rejected=rejected)


async def test_a_pull_stops_as_soon_as_the_limit_cannot_be_met_any_more(
    served: Database, made: Settings, shelf: FakeListService
) -> None:
    """Where none may be rejected, the first one decides; else it is decided once MAX_PAGES leaves too few records."""
    await served.write(merchants.update_merchant, "shop", max_rejected_percent=0)
    shelf.products(items(60), unfit(1, start=60), items(139, start=61))
    assert (await run(made, served)).failure_code == "TOO_MANY_REJECTED"
    assert len(shelf.asked) == 2


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 50), st.integers(0, 100), st.integers(0, 5))
def test_a_pull_that_is_stopped_early_would_have_failed_at_its_end(
    fits: list[bool], page_size: int, most: int, more_pages: int
) -> None:
    """For any remaining records, so the verdict is the same for any order."""
    pages = [fits[start : start + page_size] for start in range(0, len(fits), page_size)]
    read = rejected = 0
    at_the_end = pull.are_too_many_rejected(len(fits), fits.count(False), most)
    for number, page in enumerate(pages, start=1):
        read, rejected = read + len(page), rejected + page.count(False)
        to_come = (len(pages) - number + more_pages) * page_size
        if pull.are_too_many_rejected(read, rejected, most, to_come):
            assert at_the_end


@pytest.mark.parametrize("total", [1, 20, 10**9])
async def test_the_total_that_a_merchant_names_decides_nothing(
    served: Database, made: Settings, shelf: FakeListService, total: int
) -> None:
    """It may be wrong: 10 of 100 do not fit, which is allowed, and the first page has them all."""
    shelf.total = total
    shelf.products(unfit(10), items(90, start=10))
    assert (await run(made.model_copy(update={"page_size": 10}), served)).status is SyncStatus.SUCCEEDED


@pytest.mark.parametrize(("most", "code"), [(0, "TOO_MANY_REJECTED"), (100, None)])
async def test_each_merchant_has_a_share_of_its_own(
    served: Database, made: Settings, shelf: FakeListService, most: int, code: str | None
) -> None:
    """Some systems are known to be full of old drafts."""
    await served.write(merchants.update_merchant, "shop", max_rejected_percent=most)
    shelf.products(unfit(1) if most == 0 else unfit(40), items(20, start=100))
    assert (await run(made, served)).failure_code == code


NAMELESS: list[Any] = [{"title": "no id"}, {"id": 7, "title": "x"}, None, "r001"]


@pytest.mark.parametrize("nameless", NAMELESS)
async def test_beside_a_record_without_an_id_what_the_service_does_not_have_by_id_is_removed(
    served: Database, made: Settings, shelf: FakeListService, nameless: Any
) -> None:
    """One such record must not stop all removals for ever. What the service still has stays, and is up to date."""
    await stocked(made, served, shelf, 6)
    shelf.products(items(2), [nameless])
    shelf.by_id = items(3)
    sync = await run(made, served)
    assert outcome(sync) == (SyncStatus.SUCCEEDED, None, 3)
    assert list((await titles(served)).values()) == ["new", "new", "new"]
    assert bodies.sync_body(sync)["warnings"] == []
    assert (await served.read(catalog.state, "shop", PRODUCT)).num_records == 3


@pytest.mark.parametrize("nameless", NAMELESS)
@pytest.mark.parametrize("by_id", [None, [], 400, 500])
async def test_a_record_without_an_id_keeps_what_the_service_does_not_deny_to_have(
    served: Database, made: Settings, shelf: FakeListService, nameless: Any, by_id: Any
) -> None:
    """It could be any of those that the pull seems to lack. The result says so.

    The service ignores `ids`, knows no record by id, or refuses.
    """
    await stocked(made, served, shelf, 4)
    shelf.products(items(2), [nameless])
    shelf.by_id = by_id
    sync = await run(made, served)
    assert outcome(sync) == (SyncStatus.SUCCEEDED, None, 0)
    assert list((await titles(served)).values()) == ["new", "new", "old", "old"]
    (warning,) = bodies.sync_body(sync)["warnings"]
    assert warning["code"] == "RECORDS_NOT_REMOVED"
    assert (
        "2 records that the product service's list lacks stayed in the catalog: the list has 1 record"
        in warning["detail"]
    )
    shelf.products(items(2))
    sync = await run(made, served)
    assert outcome(sync) == (SyncStatus.SUCCEEDED, None, 2)
    assert bodies.sync_body(sync)["warnings"] == []


async def test_an_id_whose_record_comes_without_it_stays(
    served: Database, made: Settings, shelf: FakeListService
) -> None:
    """Asked for by id, the service may send the record with the same broken id as in its list."""
    await stocked(made, served, shelf, 3)

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        ids = Request(scope).query_params.get("ids", "r000,r001,r002").split(",")
        page = page_of([{"title": each} if each == "r002" else {"id": each, "title": "new"} for each in ids])
        await JSONResponse(page)(scope, receive, send)

    with serve(broken) as url:
        await served.write(merchants.update_merchant, "shop", product_service_url=url)
        assert outcome(await run(made, served)) == (SyncStatus.SUCCEEDED, None, 0)


async def test_removals_beside_a_record_without_an_id_are_guarded_too(
    served: Database, made: Settings, shelf: FakeListService
) -> None:
    """A service whose database is half empty denies to have records by id as well."""
    await stocked(made, served, shelf, 30)
    shelf.products(items(2), [{"title": "no id"}])
    shelf.by_id = items(2)
    assert outcome(await run(made, served)) == (SyncStatus.FAILED, "MASS_DELETION", 0)
    assert len(await titles(served)) == 30


async def test_more_records_than_can_be_asked_about_are_removed_in_several_syncs(
    served: Database, made: Settings, shelf: FakeListService
) -> None:
    """Each sync asks about a thousand, and says how many are left."""
    made = made.model_copy(update={"page_size": 500})
    await stocked(made, served, shelf, 3000)
    shelf.products(items(1800), [{"title": "no id"}])
    shelf.by_id = items(1800)
    sync = await run(made, served)
    assert (sync.counts.deleted, sync.not_removed) == (1000, 200)
    sync = await run(made, served)
    assert (sync.counts.deleted, sync.not_removed) == (200, 0)


class Endless:
    """A product service with the same five records on every page, and always another cursor."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the page."""
        if scope["type"] == "http":
            self.asked += 1
            await JSONResponse(page_of(items(5), f"more-{self.asked}"))(scope, receive, send)


@pytest.mark.parametrize("before", [0, 1, 7, 11])
async def test_a_list_that_only_repeats_records_ends_the_sync_whichever_worker_reads_it(
    served: Database, made: Settings, before: int
) -> None:
    """Its cursors are all new. The pages of the worker before, which was stopped, count too."""
    sync = await served.write(enqueue, "shop", PRODUCT)
    claim = await served.write(claims.claim, "stopped", 30.0, 5, 2)
    assert claim is not None
    records = tuple(Record(each["id"], "{}") for each in items(5))
    for number in range(before):
        await served.write(catalog_write.write_page, claim, Page(records, (), f"before-{number}", None), 30.0)
    await served.write(claims.hand_back, claim)
    service = Endless()
    with serve(service) as url:
        await served.write(merchants.update_merchant, "shop", product_service_url=url)
        sync = await finish(made, served, sync)
    assert sync.failure_code == "INVALID_PAGING"
    assert f"Page {max(11, before + 1)} of /products is the " in str(sync.failure_detail)
    assert service.asked <= max(11 - before, 1) + 1  # the next page is fetched while one is written


async def test_a_worker_that_takes_over_a_complete_pull_checks_its_rejections(
    served: Database, made: Settings, shelf: FakeListService
) -> None:
    """The one that read the last page may have been lost before it did."""
    await stocked(made, served, shelf, 20)
    await served.write(enqueue, "shop", PRODUCT)
    claim = await served.write(claims.claim, "lost", 30.0, 5, 2)
    assert claim is not None
    rejections = tuple(Rejection("WRONG_TYPE", f"r{each:03}", "/title", "no") for each in range(20))
    await served.write(catalog_write.write_page, claim, Page((), rejections, None, None), 30.0)
    await served.write(claims.hand_back, claim)
    asked = len(shelf.asked)
    sync = await served.read(syncs.get, "shop", claim.sync_id)
    assert (await finish(made, served, sync)).failure_code == "TOO_MANY_REJECTED"
    assert len(shelf.asked) == asked
    assert len(await titles(served)) == 20
