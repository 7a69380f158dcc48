"""Every misbehaviour of the hostile product service: how the sync ends, its message, and the catalog afterwards."""

import asyncio
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from product_gateway import settings
from product_gateway.auth.encryption import Secrets
from product_gateway.db import merchants, syncs
from product_gateway.db.database import Database, open_database
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import SyncStatus
from product_gateway.settings import Settings
from product_gateway.telemetry import logs
from tests.support import databases, hostile_service
from tests.support.hostile_service import HONEST, MISBEHAVIOURS, Hostile
from tests.support.product_service_faults.endings import ENDS, OLD_CATALOG, PAGE_SIZE
from tests.support.syncing import run, titles

TOKEN = "the-merchants-t0ken"
ON_POSTGRESQL = (
    "cut-body",
    "error-500-always",
    "rate-limited-once",
    "another-shape-on-page-2",
    "cursor-loop-of-3",
    "id-with-nul",
    "nul-in-a-title",
    "record-nested-too-deeply",
    "same-records-on-two-pages",
    "total-too-large",
)
TIMED_OUT = ("slow-first-byte", "slow-drip", "interim-answers-for-ever")
SHORT_TIMEOUTS = {"read_timeout_seconds": 0.5, "request_timeout_seconds": 1.0}


@pytest.fixture(scope="module")
def service() -> Iterator[Hostile]:
    """One server for the whole file."""
    with hostile_service.serve() as server:
        yield server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Small pages, few attempts, and timeouts that only a service that hangs reaches, also on a busy machine."""
    return settings.load(
        data_dir=tmp_path_factory.mktemp("hostile"),
        worker_poll_seconds=0.01,
        allow_private_addresses=True,
        page_size=PAGE_SIZE,
        max_page_size=PAGE_SIZE,
        max_pages=20,
        request_attempts=2,
        retry_wait_seconds=0.01,
        max_page_bytes=2**18,
        max_record_bytes=10_000,
    )


@pytest.fixture(scope="module")
def stocked_file(
    service: Hostile, made: Settings, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A SQLite database with the catalog of a good sync."""
    path = tmp_path_factory.mktemp("stocked") / "gateway.db"
    shutil.copy(sqlite_template, path)
    with open_database(f"sqlite:///{path}") as database:
        asyncio.run(stock(database, service, made))
    return path


@pytest.fixture
def stocked(stocked_file: Path, tmp_path: Path) -> Iterator[Database]:
    """A copy of it."""
    shutil.copy(stocked_file, tmp_path / "gateway.db")
    with open_database(f"sqlite:///{tmp_path / 'gateway.db'}") as database:
        yield database


@pytest.fixture
def empty_postgresql(postgresql_server: str, postgresql_template: str) -> Iterator[Database]:
    """A new database without merchants."""
    with open_database(databases.copy_of(postgresql_server, postgresql_template)) as database:
        yield database


async def stock(database: Database, service: Hostile, made: Settings) -> None:
    """The merchant `shop` with the records of an honest service, in their old version."""
    url, token = service.url(HONEST), Secrets(made).encrypt(TOKEN)
    await database.write(merchants.add, "shop", Platform.BYOP, url, token, None)
    assert (await run(made, database)).status is SyncStatus.SUCCEEDED
    assert await titles(database) == OLD_CATALOG


def test_every_misbehaviour_has_a_defined_end() -> None:
    """And a description, for those who look for it by name."""
    assert set(ENDS) == set(MISBEHAVIOURS)
    assert len(ENDS) > 25
    assert all(each.meaning.endswith((".", ".\n")) for each in MISBEHAVIOURS.values())


@pytest.mark.parametrize("name", MISBEHAVIOURS)
async def test_a_sync_from_a_service_that_misbehaves_has_its_defined_end(
    name: str, stocked: Database, service: Hostile, made: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Its code and detail help the merchant, the catalog is as defined, and the token appears nowhere."""
    await check(name, stocked, service, made, caplog)


@pytest.mark.parametrize("name", ON_POSTGRESQL)
async def test_the_end_is_the_same_on_postgresql(
    name: str, empty_postgresql: Database, service: Hostile, made: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """For those whose outcome the database has a part in."""
    await stock(empty_postgresql, service, made)
    await check(name, empty_postgresql, service, made, caplog)


async def check(
    name: str, database: Database, service: Hostile, made: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Runs a sync from the misbehaving service and compares how it ends with how it should."""
    caplog.set_level(logging.DEBUG, logger=logs.OURS)
    url, ends = service.url(name), ENDS[name]
    await database.write(merchants.update_merchant, "shop", product_service_url=url)
    sync = await run(made.model_copy(update=SHORT_TIMEOUTS) if name in TIMED_OUT else made, database)
    detail = sync.failure_detail or ""
    assert (sync.status is SyncStatus.SUCCEEDED, sync.failure_code) == (ends.code is None, ends.code), detail
    assert ends.says in detail
    assert TOKEN not in detail
    assert TOKEN not in caplog.text
    assert await titles(database) == ends.catalog
    problems = await database.read(syncs.problems, "shop", sync.id)
    assert tuple(group.code for group in problems) == ends.rejected
    assert TOKEN not in repr(problems)
    asked = service.requests(url)
    assert {call.token for call in asked} == {TOKEN}
    if ends.code is not None:
        assert detail.startswith(f"Page {ends.page} of /products ")
        assert re.search(r"[.,] (then )?(Send|Check|Register|Allow|Look|End|Put|Each nextCursor must) ", detail), detail
        assert sync.counts.deleted == 0
        assert len([call for call in asked if call.cursor == asked[-1].cursor]) == (ends.tries or 1)
