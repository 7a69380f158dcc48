"""The dry run of check-service: it foretells what a sync does, on both databases, and writes nothing."""

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
    """Forty records, to begin with."""
    shelf = FakeListService()
    shelf.products(items(40))
    return shelf


@pytest.fixture
def url(service: FakeListService) -> Iterator[str]:
    """Where it is."""
    with serve(service) as url:
        yield url


@pytest.fixture
def made(database_url: str, tmp_path: Path) -> Settings:
    """For the worker and for the dry run alike."""
    return settings.load(
        data_dir=tmp_path,
        database_url=database_url,
        allow_private_addresses=True,
        worker_poll_seconds=0.01,
        page_size=15,
        request_attempts=2,
        retry_wait_seconds=0.01,
    )


@pytest.fixture
async def stocked(url: str, made: Settings) -> None:
    """The merchant `shop`, whose catalog has the forty records."""
    with open_database(made.database) as database:
        database.call(merchants.add, "shop", Platform.BYOP, url, None, None)
        assert (await run(made, database)).counts.created == 40


async def rehearsed(url: str, made: Settings) -> CheckResults:
    """A run against the merchant's catalog, on a thread: the command has an event loop of its own."""
    plan = Plan(url, TOKEN, (EntityType.PRODUCT,), page_size=made.page_size, examples=0)
    results = CheckResults(plan.token, plan.only)
    await asyncio.to_thread(check, plan, made, results, "shop")
    return results


def contents(database: Database) -> dict[str, list[str]]:
    """Every row of every table."""
    with database.engine.connect() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table)).all()))
            for table in tables.metadata.sorted_tables
        }


def stored(made: Settings) -> Any:
    """What the database holds: all rows, and of SQLite the bytes of the file."""
    with open_database(made.database) as database:
        rows = contents(database)
    file = made.database.removeprefix("sqlite:///")
    return rows, hashlib.sha256(Path(file).read_bytes()).hexdigest() if file != made.database else None


@pytest.mark.usefixtures("stocked")
async def test_it_says_what_the_sync_then_does_and_writes_nothing(
    service: FakeListService, url: str, made: Settings
) -> None:
    """Row for row, and the file of SQLite byte for byte; what a list lacks is asked for by id first."""
    service.products(items(30, start=5), items(3, title="changed"), items(2, start=100), unfit(1, start=200))
    service.by_id = items(1, start=36)
    before = stored(made)
    (rehearsal,) = (await rehearsed(url, made)).dry_runs
    assert stored(made) == before
    with open_database(made.database) as database:
        sync = await run(made, database)
    assert sync.status is SyncStatus.SUCCEEDED
    assert rehearsal.counts == sync.counts == Counts(created=2, updated=3, unchanged=31, deleted=6, rejected=1)
    assert (rehearsal.against, rehearsal.complete, rehearsal.code) == ("the catalog of shop", True, None)
    assert rehearsal.samples["deleted"] == ("r003", "r004", "r035")


@pytest.mark.parametrize(
    ("records", "code"),
    [(items(10), "MASS_DELETION"), (items(40) + unfit(10, start=50), "TOO_MANY_REJECTED")],
    ids=["mass-deletion", "too-many-rejected"],
)
@pytest.mark.usefixtures("stocked")
async def test_it_foretells_what_stops_a_sync_at_its_end(
    service: FakeListService, url: str, made: Settings, records: list[Any], code: str
) -> None:
    """The guards look at what was read only when it is read."""
    service.products(records)
    service.by_id = []
    results = await rehearsed(url, made)
    with open_database(made.database) as database:
        assert (await run(made, database)).failure_code == code
    (rehearsal,) = results.dry_runs
    assert rehearsal.code == code
    (outcome,) = (each for each in results.outcomes() if each.rule.code == "dry-run")
    assert outcome.result is Result.FAILED
    assert code in outcome.findings[0].seen


@pytest.mark.parametrize("by_id", [None, items(32, start=5)], ids=["no-ids", "ids"])
@pytest.mark.usefixtures("stocked")
async def test_it_foretells_what_stays_beside_a_record_without_an_id(
    service: FakeListService, url: str, made: Settings, by_id: Any
) -> None:
    """Where the service shows by id that it no longer has the others, they go."""
    service.products(items(30, start=5), [{"title": "no id"}])
    service.by_id = by_id
    (rehearsal,) = (await rehearsed(url, made)).dry_runs
    with open_database(made.database) as database:
        sync = await run(made, database)
    assert rehearsal.counts == sync.counts
    assert rehearsal.not_removed == sync.not_removed == (10 if by_id is None else 0)
    assert sync.counts.deleted == (0 if by_id is None else 8)


@pytest.mark.parametrize("rejected", [4, 5])
@pytest.mark.usefixtures("stocked")
async def test_its_verdict_on_rejected_records_does_not_depend_on_their_order(
    service: FakeListService, url: str, made: Settings, rejected: int
) -> None:
    """As that of the sync: a tenth of the records may be rejected, and the first page is full of them."""
    service.products(unfit(rejected), items(40 - rejected, start=rejected))
    (rehearsal,) = (await rehearsed(url, made)).dry_runs
    with open_database(made.database) as database:
        assert (await run(made, database)).failure_code == rehearsal.code
    assert rehearsal.code == (None if rejected == 4 else "TOO_MANY_REJECTED")
