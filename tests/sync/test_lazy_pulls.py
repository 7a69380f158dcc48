"""Pulls of mostly unchanged lists: pages are lazy, and the guards of a pull still work."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from product_gateway import settings
from product_gateway.auth.encryption import Secrets
from product_gateway.db import merchants, syncs
from product_gateway.db.database import Database
from product_gateway.model.catalog import AnyPage, LazyPage
from product_gateway.model.syncs import Counts
from product_gateway.settings import Settings
from product_gateway.sync import records
from tests.support.fake_list_service import FakeListService, items, unfit
from tests.support.serving import serve
from tests.support.syncing import run, titles

Unread = list[LazyPage]


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    """Pages of five."""
    return settings.load(data_dir=tmp_path, page_size=5, worker_poll_seconds=0.01, allow_private_addresses=True)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Unread:
    """Record the lazy pages from now on."""
    found: Unread = []
    real = records.ListSchema.lazy_page

    def noted(self: records.ListSchema, *arguments: Any) -> AnyPage:
        page = real(self, *arguments)
        if isinstance(page, LazyPage):
            found.append(page)
        return page

    monkeypatch.setattr(records.ListSchema, "lazy_page", noted)
    return found


@pytest.fixture
async def stocked(database: Database, made: Settings) -> AsyncIterator[tuple[Database, FakeListService]]:
    """The merchant `shop` has a service with thirty records, and its catalog has them too."""
    shelf = FakeListService()
    shelf.products(items(30))
    with serve(shelf) as url:
        await database.write(merchants.update_merchant, "shop", product_service_url=url)
        assert (await run(made, database)).counts == Counts(created=30)
        yield database, shelf


async def test_a_first_sync_has_no_lazy_pages(unread: Unread, stocked: tuple[Database, FakeListService]) -> None:
    """An eager page is decoded while the previous one is written."""
    assert stocked, "it has run its first sync, watched from its beginning"
    assert unread == []


async def test_pages_after_an_unchanged_page_are_lazy(
    stocked: tuple[Database, FakeListService], made: Settings, unread: Unread
) -> None:
    """Of six pages, the last four: the second is prefetched while the first is compared."""
    database, shelf = stocked
    shelf.products(items(28), items(2, "changed", start=28))
    assert (await run(made, database)).counts == Counts(updated=2, unchanged=28)
    assert len(unread) >= 4
    assert (await titles(database))["r029"] == "changed"


async def test_pages_after_a_changed_page_are_not_lazy(
    stocked: tuple[Database, FakeListService], made: Settings, unread: Unread
) -> None:
    """A service that sends other bytes each time is not slowed down."""
    database, shelf = stocked
    shelf.products(items(30, "changed"))
    assert (await run(made, database)).counts == Counts(updated=30)
    assert unread == []


async def test_too_many_rejections_in_lazy_pages_fail_the_sync(
    stocked: tuple[Database, FakeListService], made: Settings, unread: Unread
) -> None:
    """The rejections of a lazy page are known when it is decoded."""
    database, shelf = stocked
    shelf.products(items(25), unfit(5, start=25))
    sync = await run(made, database)
    assert unread
    assert (sync.failure_code, sync.counts) == ("TOO_MANY_REJECTED", Counts(unchanged=25, rejected=5))


async def test_the_token_is_redacted_in_the_rejections_of_a_lazy_page(
    stocked: tuple[Database, FakeListService], made: Settings, unread: Unread
) -> None:
    """API clients can read rejections."""
    database, shelf = stocked
    token = "our-token-0123456789"
    await database.write(merchants.update_merchant, "shop", product_service_token=Secrets(made).encrypt(token))
    shelf.products(items(29), [{"id": token, "title": 7}])
    sync = await run(made, database)
    assert unread
    told = str(await database.read(syncs.problems, "shop", sync.id))
    assert "***" in told
    assert token not in told
