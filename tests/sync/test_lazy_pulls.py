"""Pulls of mostly unchanged lists: pages are lazy, and the guards of a pull still work."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from product_gateway import settings
from product_gateway.db import claims, generations, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import PullFailed
from product_gateway.http_client.client import HttpClient, product_service_limits
from product_gateway.model.catalog import AnyPage, LazyPage
from product_gateway.model.syncs import Counts, EntityType, Sync
from product_gateway.settings import Settings
from product_gateway.sync.product_service import ProductService
from product_gateway.sync.pull import Pull, Turn
from product_gateway.telemetry.metrics import Metrics
from tests.support.fake_list_service import FakeListService, items, unfit
from tests.support.serving import serve
from tests.support.syncing import titles

TOKEN = "our-token-0123456789"


class Watched(ProductService):
    """A product service that keeps the lazy pages that it yields."""

    def __init__(self, outbound: HttpClient, url: str, page_size: int) -> None:
        super().__init__(outbound, url, TOKEN, page_size)
        self.lazy: list[LazyPage] = []

    async def pages(
        self, entity_type: EntityType, cursor: str | None, pages_read: int = 0
    ) -> AsyncGenerator[AnyPage, None]:
        async with aclosing(super().pages(entity_type, cursor, pages_read)) as pages:
            async for page in pages:
                if isinstance(page, LazyPage):
                    self.lazy.append(page)
                yield page


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    """Pages of five."""
    return settings.load(
        data_dir=tmp_path, page_size=5, max_page_size=5, worker_poll_seconds=0.01, allow_private_addresses=True
    )


Site = tuple[Database, FakeListService, str]


async def pull(made: Settings, site: Site) -> tuple[Sync, list[LazyPage]]:
    """Run a sync of the merchant `shop`, and return it with the lazy pages."""
    database, _, url = site
    sync = await database.write(enqueue, "shop", EntityType.PRODUCT)
    claim = await database.write(claims.claim, "here", made.lease_seconds, 5, 2, [])
    assert claim is not None
    async with HttpClient(**product_service_limits(made)) as outbound:
        service = Watched(outbound, url, made.page_size)
        try:
            await Pull(made, database, outbound, Metrics()).run_from(service, claim, Turn(), 10)
        except PullFailed as failed:
            await database.write(claims.fail, claim, failed.code, failed.detail)
        else:
            await database.write(generations.succeed, claim)
    return await database.read(syncs.get, "shop", sync.id), service.lazy


@pytest.fixture
async def stocked(database: Database, made: Settings) -> AsyncIterator[Site]:
    """The merchant `shop` has a service with thirty records, and its catalog has them too."""
    shelf = FakeListService()
    shelf.products(items(30))
    with serve(shelf) as url:
        sync, lazy = await pull(made, (database, shelf, url))
        assert (sync.counts, lazy) == (Counts(created=30), []), "an eager page is decoded while the last one is written"
        yield database, shelf, url


async def test_pages_after_an_unchanged_page_are_lazy(stocked: Site, made: Settings) -> None:
    """Of six pages, the last four: the second is prefetched while the first is compared."""
    database, shelf, _ = stocked
    shelf.products(items(28), items(2, "changed", start=28))
    sync, lazy = await pull(made, stocked)
    assert sync.counts == Counts(updated=2, unchanged=28)
    assert len(lazy) >= 4
    assert (await titles(database))["r029"] == "changed"


async def test_pages_after_a_changed_page_are_not_lazy(stocked: Site, made: Settings) -> None:
    """A service that sends other bytes each time is not slowed down."""
    _, shelf, _ = stocked
    shelf.products(items(30, "changed"))
    sync, lazy = await pull(made, stocked)
    assert (sync.counts, lazy) == (Counts(updated=30), [])


async def test_too_many_rejections_in_lazy_pages_fail_the_sync(stocked: Site, made: Settings) -> None:
    """The rejections of a lazy page are known when it is decoded."""
    _, shelf, _ = stocked
    shelf.products(items(25), unfit(5, start=25))
    sync, lazy = await pull(made, stocked)
    assert lazy
    assert (sync.failure_code, sync.counts) == ("TOO_MANY_REJECTED", Counts(unchanged=25, rejected=5))


async def test_the_token_is_redacted_in_the_rejections_of_a_lazy_page(stocked: Site, made: Settings) -> None:
    """API clients can read rejections."""
    database, shelf, _ = stocked
    shelf.products(items(29), [{"id": TOKEN, "title": 7}])
    sync, lazy = await pull(made, stocked)
    assert lazy
    told = str(await database.read(syncs.problems, "shop", sync.id))
    assert "***" in told
    assert TOKEN not in told
