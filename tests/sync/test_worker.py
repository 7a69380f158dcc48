"""The worker: whole syncs, with a real product service on both databases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from sqlalchemy import update
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from product_gateway import settings
from product_gateway.auth.encryption import Secrets
from product_gateway.db import catalog, merchants, syncs, tables
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.syncs import Counts, EntityType, SyncStatus
from product_gateway.sample import catalog_file
from product_gateway.sample.service import create_sample_app
from product_gateway.settings import Settings
from tests.support.serving import serve
from tests.support.syncing import run, until, working

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
TOKEN = "the-merchants-token"
SAMPLE = catalog_file.read(catalog_file.SAMPLE)


class Service:
    """A sample service that counts, and that can be told to refuse."""

    def __init__(self, records: catalog_file.Catalog, delay: float = 0.0) -> None:
        self.app = create_sample_app(records, token=TOKEN, delay=delay)
        self.cursors: list[str | None] = []
        self.status: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the requested pages."""
        if scope["type"] == "http":
            self.cursors.append(parse_qs(scope["query_string"].decode()).get("cursor", [None])[0])
            if self.status is not None:
                await JSONResponse({}, self.status)(scope, receive, send)
                return
        await self.app(scope, receive, send)


@pytest.fixture
def service() -> Service:
    """The sample catalog."""
    return Service(SAMPLE)


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    """Small pages, quick polls."""
    return settings.load(
        data_dir=tmp_path,
        page_size=5,
        max_page_size=5,
        worker_poll_seconds=0.02,
        allow_private_addresses=True,
        lease_seconds=1,
        retry_wait_seconds=0.05,
    )


@pytest.fixture
def served(service: Service, database: Database, made: Settings) -> Iterator[Database]:
    """The merchant `shop` has the service and its token."""
    with serve(service) as url:
        token = Secrets(made).encrypt(TOKEN)
        database.call(merchants.update_merchant, "shop", product_service_url=url, product_service_token=token)
        yield database


async def test_a_sync_copies_every_record(served: Database, made: Settings, service: Service) -> None:
    sync = await run(made, served)
    count = SAMPLE.count(PRODUCT)
    assert (sync.status, sync.counts, sync.attempt) == (SyncStatus.SUCCEEDED, Counts(created=count), 1)
    assert (sync.records_read, sync.records_total) == (count, count)
    assert len(service.cursors) == -(-count // 5)
    state = await served.read(catalog.state, "shop", PRODUCT)
    assert (state.num_records, state.updated_at) == (count, sync.finished_at)


async def test_a_second_sync_finds_nothing_to_do(served: Database, made: Settings) -> None:
    """Where nothing has changed, nothing is written."""
    await run(made, served)
    assert (await run(made, served)).counts == Counts(unchanged=SAMPLE.count(PRODUCT))


async def test_a_collection_sync_keeps_ids_and_writes_no_products(served: Database, made: Settings) -> None:
    """Products come by their own sync only."""
    await run(made, served, COLLECTION)
    assert (await served.read(catalog.state, "shop", PRODUCT)).num_records == 0
    wanted = SAMPLE.record(COLLECTION, 0)
    found, _ = await served.read(catalog.get, "shop", COLLECTION, wanted["id"])
    assert list(found.product_ids) == [each["id"] for each in wanted["products"]]


async def test_a_service_that_refuses_fails_the_sync_and_leaves_the_catalog(
    served: Database, made: Settings, service: Service
) -> None:
    """The failure detail tells the merchant what to change."""
    await run(made, served)
    service.status = 401
    sync = await run(made, served)
    assert (sync.status, sync.failure_code) == (SyncStatus.FAILED, "PRODUCT_SERVICE_UNAUTHORIZED")
    assert sync.failure_detail is not None
    assert "401" in sync.failure_detail
    assert TOKEN not in sync.failure_detail
    assert (await served.read(catalog.state, "shop", PRODUCT)).num_records == SAMPLE.count(PRODUCT)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"disabled": True}, "MERCHANT_DISABLED"),
        ({"platform": "BENTO"}, "NOT_BRING_YOUR_OWN_PLATFORM"),
        ({"product_service_token": "of another key"}, "TOKEN_UNREADABLE"),
        ({"product_service_url": "http://127.0.0.1:1"}, "PRODUCT_SERVICE_UNREACHABLE"),
    ],
)
async def test_a_merchant_is_checked_again_when_its_sync_starts(
    served: Database, made: Settings, change: dict[str, Any], code: str
) -> None:
    """The product service of a merchant that was disabled meanwhile gets no request.

    The values are written past `merchants.change`, which cancels active syncs: a PUT at the same moment may come later.
    """
    sync = await served.write(enqueue, "shop", PRODUCT)
    await served.write(lambda connection: connection.execute(update(tables.merchants).values(**change)))
    async with working(made, served):
        ended = await until(served, sync, SyncStatus.FAILED)
    assert ended.failure_code == code


async def test_a_stopped_worker_hands_back_its_sync_and_the_next_continues_it(
    served: Database, made: Settings, service: Service
) -> None:
    """At once. Only the page being written and the prefetched page may be fetched twice."""
    service.app = create_sample_app(SAMPLE, token=TOKEN, delay=0.05)
    sync = await served.write(enqueue, "shop", PRODUCT)
    async with working(made, served):
        await until(served, sync, SyncStatus.IN_PROGRESS, read=5)
    handed_back = await served.read(syncs.get, "shop", sync.id)
    assert handed_back.status is SyncStatus.QUEUED
    assert 0 < handed_back.records_read < SAMPLE.count(PRODUCT)
    async with working(made, served):
        ended = await until(served, sync, SyncStatus.SUCCEEDED)
    assert (ended.attempt, ended.counts) == (2, Counts(created=SAMPLE.count(PRODUCT)))
    pages = -(-SAMPLE.count(PRODUCT) // 5)
    assert pages <= len(service.cursors) <= pages + 2


async def test_a_slow_page_does_not_cost_the_lease(served: Database, made: Settings, service: Service) -> None:
    """Heartbeats renew the lease while the service prepares a page, for longer than the lease."""
    service.app = create_sample_app(SAMPLE, token=TOKEN, delay=2.5)
    sync = await served.write(enqueue, "shop", PRODUCT)
    made = made.model_copy(update={"page_size": 500})
    async with working(made, served), working(made, served):
        ended = await until(served, sync, SyncStatus.SUCCEEDED)
    assert (ended.attempt, len(service.cursors)) == (1, 1)


async def test_a_worker_runs_several_syncs_at_a_time(served: Database, made: Settings, service: Service) -> None:
    """A slow product service delays no other sync while there are free slots."""
    service.app = create_sample_app(SAMPLE, token=TOKEN, delay=0.1)
    first = await served.write(enqueue, "shop", PRODUCT)
    second = await served.write(enqueue, "shop", COLLECTION)
    async with working(made, served):
        await until(served, second, SyncStatus.SUCCEEDED)
        assert (await served.read(syncs.get, "shop", first.id)).status is SyncStatus.IN_PROGRESS
        await until(served, first, SyncStatus.SUCCEEDED)
