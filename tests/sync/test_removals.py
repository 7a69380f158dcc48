"""Missing records are requested by id before they are removed; records that come back stay."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from product_gateway import settings
from product_gateway.db import merchants
from product_gateway.db.database import Database
from product_gateway.http_client.client import HttpClient
from product_gateway.model.syncs import Counts, EntityType, SyncStatus
from product_gateway.settings import Settings
from product_gateway.sync.product_service import ProductService
from tests.support.fake_list_service import FakeListService, items, unfit
from tests.support.scripted_answers import Merchant, item, page_of
from tests.support.serving import serve
from tests.support.syncing import run, titles


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
    """Ten records in an old version."""
    shelf = FakeListService()
    shelf.products(items(10, "old"))
    return shelf


@pytest.fixture
async def stocked(shelf: FakeListService, database: Database, made: Settings) -> AsyncIterator[Database]:
    """The merchant `shop` has the service, and its catalog the ten records."""
    with serve(shelf) as url:
        await database.write(merchants.update_merchant, "shop", product_service_url=url)
        assert (await run(made, database)).counts == Counts(created=10)
        shelf.asked.clear()
        yield database


async def test_a_record_that_the_list_skipped_stays_and_is_updated(
    stocked: Database, made: Settings, shelf: FakeListService
) -> None:
    """A record must not vanish from a shop because another one was deleted while we read."""
    shelf.products(items(6))
    shelf.by_id = items(8)
    sync = await run(made, stocked)
    assert (sync.status, sync.counts) == (SyncStatus.SUCCEEDED, Counts(updated=8, deleted=2))
    assert sync.records_read == 8
    assert await titles(stocked) == {each["id"]: "new" for each in items(8)}
    assert shelf.ids == [{"r006", "r007", "r008", "r009"}, {"r008", "r009"}]


@pytest.mark.parametrize("beyond", [None, 400, 413, 414])
@pytest.mark.parametrize("most_ids", [2, 3, 25])
@pytest.mark.parametrize("nameless", [[], [{"title": "no id"}]], ids=["", "and-one-without-id"])
async def test_what_the_list_skipped_stays_where_a_service_finds_only_some_ids_at_once(
    stocked: Database, made: Settings, shelf: FakeListService, most_ids: int, beyond: int | None, nameless: list[Any]
) -> None:
    """Platforms page such answers, cut them or refuse them. Then silence about an id does not mean that it is gone."""
    made = made.model_copy(update={"max_rejected_percent": 50})
    shelf.products(items(60), nameless)
    await run(made, stocked)
    shelf.products(items(20), nameless)
    shelf.by_id = items(55)
    shelf.most_ids, shelf.beyond = most_ids, beyond
    sync = await run(made, stocked)
    assert sync.status is SyncStatus.SUCCEEDED, sync.failure_detail
    assert set(await titles(stocked)) == {each["id"] for each in items(55)}


async def test_what_the_list_skipped_and_does_not_fit_keeps_its_old_version(
    stocked: Database, made: Settings, shelf: FakeListService
) -> None:
    """As with every rejected record."""
    shelf.products(items(8))
    shelf.by_id = unfit(1, start=9)
    sync = await run(made, stocked)
    assert sync.counts == Counts(updated=8, rejected=1, deleted=1)
    assert (await titles(stocked))["r009"] == "old"


@pytest.mark.parametrize("by_id", [None, [], 400, 404, 414, 500])
async def test_the_list_decides_where_a_service_cannot_be_asked_by_id(
    stocked: Database, made: Settings, shelf: FakeListService, by_id: Any
) -> None:
    """It ignores `ids` and answers with its first page, has none of them, or refuses."""
    shelf.products(items(6))
    shelf.by_id = by_id
    assert (await run(made, stocked)).counts == Counts(updated=6, deleted=4)
    assert len(shelf.ids) == (2 if by_id in (400, 414) else 1)  # it may refuse that there are several


async def test_a_service_that_is_away_then_fails_the_sync(
    stocked: Database, made: Settings, shelf: FakeListService
) -> None:
    """It may still have them; the next sync can ask again."""
    shelf.products(items(6))
    shelf.by_id = 429
    sync = await run(made, stocked)
    assert (sync.failure_code, sync.counts) == ("PRODUCT_SERVICE_RATE_LIMITED", Counts(updated=6))
    assert str(sync.failure_detail).startswith("4 of /products by id could not be read in 1 attempt: ")
    assert len(await titles(stocked)) == 10


async def test_nothing_is_asked_where_nothing_is_missing(
    stocked: Database, made: Settings, shelf: FakeListService
) -> None:
    """The usual sync costs the merchant its pages and no request more."""
    await run(made, stocked)
    assert (shelf.ids, len(shelf.asked)) == ([], 1)


async def test_more_than_a_thousand_missing_records_are_not_requested_by_id(
    stocked: Database, made: Settings, shelf: FakeListService
) -> None:
    """More than a thousand are not skipped by accident; the guard against mass deletion looks at them."""
    made = made.model_copy(update={"page_size": 500})
    shelf.products(items(10, "old"), items(2100, start=100))
    await run(made, stocked)
    shelf.products(items(1200, start=100))
    assert (await run(made, stocked)).counts == Counts(unchanged=1200, deleted=910)
    assert len(shelf.ids) == 10  # of 910
    shelf.ids.clear()
    shelf.products([])
    made = made.model_copy(update={"max_deleted_percent": 100})
    assert (await run(made, stocked)).counts == Counts(deleted=1200)
    assert shelf.ids == []


@pytest.fixture(scope="module")
def merchant() -> Iterator[Merchant]:
    """A service that follows a script."""
    merchant = Merchant()
    with serve(merchant) as url:
        merchant.url = url
        yield merchant


async def asked(merchant: Merchant, ids: list[str]) -> list[str]:
    """The `ids` of the requests that are made."""
    async with HttpClient(allow_private_addresses=True) as outbound:
        service = ProductService(outbound, merchant.url, None, 2, attempts=1)
        async for _ in service.fetch_by_ids(EntityType.PRODUCT, ids):
            pass
    return [request.query_params["ids"] for request in merchant.asked]


async def test_ids_are_asked_for_in_parts_that_fit_into_an_address(merchant: Merchant) -> None:
    """Many servers refuse one of more than 8 KB."""
    merchant.says(page_of())
    for ids in ([f"r{number}" for number in range(250)], ["é" * 255, "ü" * 255, "a b&c=d"]):
        merchant.asked.clear()
        parts = await asked(merchant, ids)
        assert sorted(",".join(parts).split(",")) == sorted(ids)
        assert len(parts) == (3 if len(ids) == 250 else 1)
        assert all(len(str(request.url)) < 5000 for request in merchant.asked)
    merchant.asked.clear()
    assert len(await asked(merchant, [f"{number:03}" + "☃" * 250 for number in range(10)])) == 10


async def test_an_id_with_a_comma_is_not_asked_for(merchant: Merchant) -> None:
    """It would be taken for two."""
    merchant.says(page_of())
    assert await asked(merchant, ["a,b"]) == []
    assert await asked(merchant, ["a,b", "c"]) == ["c"]


async def test_only_what_was_asked_for_counts(merchant: Merchant) -> None:
    """A service that ignores `ids` sends its first page."""
    merchant.says(page_of(item("a"), item("b"), item(7), item("c", title=7), item("d", title=7)))
    async with HttpClient(allow_private_addresses=True) as outbound:
        service = ProductService(outbound, merchant.url, None, 2)
        ((page, gone),) = [each async for each in service.fetch_by_ids(EntityType.PRODUCT, ["b", "c", "x"], "a")]
    assert [record.id for record in page.records] == ["b"]
    assert [rejection.record_id for rejection in page.rejections] == ["c"]
    assert gone == frozenset(), "a service that sends more than it was asked for does not look at ids"
