"""The dry run of check-service: it predicts the result of a sync and writes nothing."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from product_gateway import settings
from product_gateway.check_service.results import CheckResults, Result
from product_gateway.check_service.runner import Plan, check
from product_gateway.db import merchants, tables
from product_gateway.db.database import Database, open_database
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import Counts, EntityType, SyncStatus
from product_gateway.settings import Settings
from tests.support.fake_list_service import FakeListService, items, unfit
from tests.support.serving import serve
from tests.support.syncing import run

TOKEN = "any-token-will-do"


@pytest.fixture
def service() -> FakeListService:
    """A product service with forty records."""
    shelf = FakeListService()
    shelf.products(items(40))
    return shelf


@pytest.fixture
def url(service: FakeListService) -> Iterator[str]:
    """Its URL."""
    with serve(service) as url:
        yield url


@pytest.fixture
def made(database_url: str, tmp_path: Path) -> Settings:
    """Settings of the worker and of the dry run."""
    return settings.load(
        data_dir=tmp_path,
        database_url=database_url,
        allow_private_addresses=True,
        worker_poll_seconds=0.01,
        page_size=15,
        max_page_size=15,
        request_attempts=2,
        retry_wait_seconds=0.01,
    )


@pytest.fixture
async def stocked(url: str, made: Settings) -> None:
    """The merchant `shop`, whose catalog has the forty records."""
    with open_database(made.database) as database:
        database.call(merchants.add, "shop", Platform.BYOP, url, None, None)
        assert (await run(made, database)).counts.created == 40


async def dry_run(url: str, made: Settings) -> CheckResults:
    """Check against the merchant's catalog, in a thread because the command runs its own event loop."""
    plan = Plan(url, TOKEN, (EntityType.PRODUCT,), examples=0, merchant="shop")
    return await asyncio.to_thread(check, plan, made)


def contents(database: Database) -> dict[str, list[str]]:
    """Return every row of every table."""
    with database.engine.connect() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table)).all()))
            for table in tables.metadata.sorted_tables
        }


def stored(made: Settings) -> Any:
    """Return all rows of the database and, for SQLite, a digest of its file."""
    with open_database(made.database) as database:
        rows = contents(database)
    file = made.database.removeprefix("sqlite:///")
    return rows, hashlib.sha256(Path(file).read_bytes()).hexdigest() if file != made.database else None


@pytest.mark.usefixtures("stocked")
async def test_the_dry_run_predicts_the_counts_and_writes_nothing(
    service: FakeListService, url: str, made: Settings
) -> None:
    """Records that the list lacks are requested by id first, as in a sync."""
    service.products(items(30, start=5), items(3, title="changed"), items(2, start=100), unfit(1, start=200))
    service.by_id = items(1, start=36)
    before = stored(made)
    (predicted,) = (await dry_run(url, made)).dry_runs
    assert stored(made) == before
    with open_database(made.database) as database:
        sync = await run(made, database)
    assert sync.status is SyncStatus.SUCCEEDED
    assert predicted.counts == sync.counts == Counts(created=2, updated=3, unchanged=31, deleted=6, rejected=1)
    assert (predicted.against, predicted.complete, predicted.code) == ("the catalog of shop", True, None)
    assert predicted.samples["deleted"] == ("r003", "r004", "r035")


@pytest.mark.parametrize(
    ("records", "code"),
    [(items(10), "MASS_DELETION"), (items(40) + unfit(10, start=50), "TOO_MANY_REJECTED")],
    ids=["mass-deletion", "too-many-rejected"],
)
@pytest.mark.usefixtures("stocked")
async def test_the_dry_run_predicts_failures_at_the_end_of_a_sync(
    service: FakeListService, url: str, made: Settings, records: list[Any], code: str
) -> None:
    """These guards judge the list as a whole."""
    service.products(records)
    service.by_id = []
    results = await dry_run(url, made)
    with open_database(made.database) as database:
        assert (await run(made, database)).failure_code == code
    (predicted,) = results.dry_runs
    assert predicted.code == code
    (outcome,) = (each for each in results.outcomes() if each.rule.code == "dry-run")
    assert outcome.result is Result.FAILED
    assert code in outcome.findings[0].seen


@pytest.mark.parametrize("by_id", [None, items(32, start=5)], ids=["no-ids", "ids"])
@pytest.mark.usefixtures("stocked")
async def test_the_dry_run_predicts_records_that_stay_beside_one_without_an_id(
    service: FakeListService, url: str, made: Settings, by_id: Any
) -> None:
    """A sync removes them only if requests by id show that they are gone."""
    service.products(items(30, start=5), [{"title": "no id"}])
    service.by_id = by_id
    (predicted,) = (await dry_run(url, made)).dry_runs
    with open_database(made.database) as database:
        sync = await run(made, database)
    assert predicted.counts == sync.counts
    assert predicted.not_removed == sync.not_removed == (10 if by_id is None else 0)
    assert sync.counts.deleted == (0 if by_id is None else 8)


@pytest.mark.parametrize("rejected", [4, 5])
@pytest.mark.usefixtures("stocked")
async def test_the_limit_of_rejected_records_does_not_depend_on_their_order(
    service: FakeListService, url: str, made: Settings, rejected: int
) -> None:
    """A tenth of the records may be rejected, even if the first page has all of them."""
    service.products(unfit(rejected), items(40 - rejected, start=rejected))
    (predicted,) = (await dry_run(url, made)).dry_runs
    with open_database(made.database) as database:
        assert (await run(made, database)).failure_code == predicted.code
    assert predicted.code == (None if rejected == 4 else "TOO_MANY_REJECTED")
