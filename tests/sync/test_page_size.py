"""Pages grow while a product service sends them quickly and completely, and shrink where it cannot."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from product_gateway import settings
from product_gateway.db import merchants
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import PullFailed
from product_gateway.http_client.client import HttpClient
from product_gateway.model.syncs import EntityType, SyncStatus
from product_gateway.sync.page_size import QUICK_BYTES, QUICK_SECONDS, SLOW_BYTES, SLOW_SECONDS, PageSize, PageSizes
from product_gateway.sync.product_service import ProductService
from tests.support.scripted_answers import item, page_of, pull
from tests.support.serving import serve
from tests.support.syncing import until, working

PRODUCT = EntityType.PRODUCT


class Shelf:
    """A product service with `records` products. It caps its pages at `cap`, and answers `status` to a larger page."""

    def __init__(self) -> None:
        self.records = 100
        self.cap = 1000
        self.largest = 1000
        self.status = 413
        self.asked: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI: one page of the list."""
        if scope["type"] != "http":
            return
        asked = Request(scope).query_params
        size, start = int(asked["page_size"]), int(asked.get("cursor", 0))
        self.asked.append(size)
        answer = Response(status_code=self.status)
        if size <= self.largest:
            end = min(self.records, start + min(size, self.cap))
            more = str(end) if end < self.records else None
            answer = JSONResponse(page_of(*(item(f"p{n:04}") for n in range(start, end)), next_cursor=more))
        await answer(scope, receive, send)


@pytest.fixture
def shelf() -> Shelf:
    """A product service without limits of its own."""
    return Shelf()


@pytest.fixture
def address(shelf: Shelf) -> Iterator[str]:
    """Where it is served."""
    with serve(shelf) as url:
        yield url


@pytest.fixture
async def outbound() -> AsyncIterator[HttpClient]:
    """A client that may call this machine."""
    async with HttpClient(allow_private_addresses=True) as client:
        yield client


async def pulled(outbound: HttpClient, address: str, size: PageSize, attempts: int = 1) -> int:
    """Pull once, and return how many records came."""
    service = ProductService(outbound, address, None, size, attempts=attempts, wait_initial=0.001)
    return sum(page.size for page in await pull(service))


async def test_pages_grow_up_to_the_maximum(shelf: Shelf, address: str, outbound: HttpClient) -> None:
    """They double, and the next pull starts with the size that was reached."""
    sizes = PageSizes(5, 30)
    assert await pulled(outbound, address, sizes.begin("shop", PRODUCT)) == 100
    assert shelf.asked == [5, 10, 20, 30, 30, 30]
    shelf.asked.clear()
    assert await pulled(outbound, address, sizes.begin("shop", PRODUCT)) == 100
    assert shelf.asked == [30, 30, 30, 30]
    shelf.asked.clear()
    await pulled(outbound, address, sizes.begin("shop", EntityType.COLLECTION))  # which has a size of its own
    assert shelf.asked[0] == 5


async def test_a_service_that_caps_its_pages_costs_no_request_more(
    shelf: Shelf, address: str, outbound: HttpClient
) -> None:
    """Whether the cap is the page size, or smaller."""
    sizes, shelf.cap = PageSizes(10, 500), 10
    for name in ("at the page size", "again"):
        shelf.asked.clear()
        assert await pulled(outbound, address, sizes.begin("shop", PRODUCT)) == 100, name
        assert len(shelf.asked) == 10, name
    shelf.cap, sizes = 4, PageSizes(10, 500)
    shelf.asked.clear()
    assert await pulled(outbound, address, sizes.begin("shop", PRODUCT)) == 100
    assert shelf.asked == [10] * 25


@pytest.mark.parametrize("status", [200, 400, 404, 406, 413, 422, 500, 503])
async def test_a_size_that_is_refused_is_not_requested_again(
    shelf: Shelf, address: str, outbound: HttpClient, status: int
) -> None:
    """Also by a service that breaks, or sends something else: a sync that worked before still works."""
    sizes, shelf.largest, shelf.status = PageSizes(10, 500), 20, status
    assert await pulled(outbound, address, sizes.begin("shop", PRODUCT)) == 100
    worked = 20 if status in (400, 413, 422) else 10
    assert shelf.asked[:4] == [10, 20, 40, worked]
    assert set(shelf.asked[4:]) == {worked}
    shelf.asked.clear()
    assert await pulled(outbound, address, sizes.begin("shop", PRODUCT)) == 100
    assert set(shelf.asked) == {worked}


async def test_a_service_that_is_down_is_not_asked_twice_as_long(
    shelf: Shelf, address: str, outbound: HttpClient
) -> None:
    """Only a page that has grown falls back to the size that it started with."""
    shelf.largest, shelf.status = 0, 503
    with pytest.raises(PullFailed):
        await pulled(outbound, address, PageSizes(10, 500).begin("shop", PRODUCT), attempts=2)
    assert shelf.asked == [10, 10]


@pytest.mark.parametrize(
    ("records", "number_of_bytes", "seconds", "size"),
    [
        (100, 1000, 0.1, 200),
        (99, 1000, 0.1, 100),  # not complete
        (100, QUICK_BYTES + 1, 0.1, 100),
        (100, 1000, QUICK_SECONDS * 1.1, 100),
        (100, SLOW_BYTES + 1, 0.1, 50),
        (100, 1000, SLOW_SECONDS * 1.1, 50),
    ],
)
def test_the_next_size_depends_on_the_last_page(records: int, number_of_bytes: int, seconds: float, size: int) -> None:
    """A page that had grown to 100 records."""
    grown = PageSize(25, 400)
    grown.received(25, 10, 0.1)
    grown.received(50, 10, 0.1)
    grown.received(records, number_of_bytes, seconds)
    assert grown.size == size


def test_slowness_only_undoes_growth() -> None:
    """The size that the operator has set works. A slow service would not be quicker with many small pages."""
    grown = PageSize(30, 400)
    grown.received(30, 10, 0.1)
    for _ in range(9):
        grown.received(grown.size, 10, SLOW_SECONDS * 2)
    assert grown.size == 30
    grown.received(30, 10, 0.1)
    assert grown.size == 30  # for this pull
    grown.begin()
    grown.received(30, 10, 0.1)
    assert grown.size == 60


async def test_a_worker_remembers_the_size(shelf: Shelf, address: str, database: Database, tmp_path: Path) -> None:
    """From one sync to the next, for each merchant."""
    made = settings.load(
        data_dir=tmp_path, page_size=10, max_page_size=40, worker_poll_seconds=0.02, allow_private_addresses=True
    )
    for name in ("shop", "other"):
        await database.write(merchants.update_merchant, name, product_service_url=address)
    async with working(made, database), asyncio.timeout(60):
        for name, asked in (("shop", [10, 20, 40, 40]), ("shop", [40, 40, 40]), ("other", [10, 20, 40, 40])):
            shelf.asked.clear()
            sync = await until(database, await database.write(enqueue, name, PRODUCT), SyncStatus.SUCCEEDED)
            assert sync.records_read == 100
            assert shelf.asked == asked, name
