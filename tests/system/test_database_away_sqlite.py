"""SQLite outages under a running server: locked, disk full, file removed or replaced."""

import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from product_gateway.db import merchants, syncs
from product_gateway.db.database import open_database
from product_gateway.db.errors import AWAY
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from tests.support.contract import Gateway, error
from tests.support.deployment import API, Deployment, Process, within
from tests.support.outages import idles, is_quiet, recovers, survives

BYTES_OF_A_FULL_DISK = 64 * 1024  # more than the log has, less than the file with the newest commits


class Place:
    """A gateway and its database file."""

    def __init__(self, process: Process, gateway: Gateway, file: Path) -> None:
        self.process = process
        self.gateway = gateway
        self.file = file

    def files(self) -> list[Path]:
        """Return the database file with SQLite's companion files."""
        return [self.file.with_name(self.file.name + suffix) for suffix in ("", "-wal", "-shm")]


@contextmanager
def locked(place: Place) -> Iterator[None]:
    """Another process holds the write lock."""
    with closing(sqlite3.connect(place.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def full(place: Place) -> Iterator[None]:
    """No file of the process can grow."""
    assert place.files()[1].stat().st_size > BYTES_OF_A_FULL_DISK, "there is room in the file yet: write more before"
    before = resource.prlimit(place.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(place.process.pid, resource.RLIMIT_FSIZE, (BYTES_OF_A_FULL_DISK, before[1]))
    try:
        yield
    finally:
        resource.prlimit(place.process.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def removed(place: Place) -> Iterator[None]:
    """Move the files of the folder away, and then back."""
    away = place.file.parent / "away"
    away.mkdir()
    for each in place.files():
        each.rename(away / each.name)
    try:
        yield
        assert not any(each.exists() for each in place.files()), "an empty one was made in its place"
    finally:
        for each in place.files():
            (away / each.name).rename(each)
        away.rmdir()


OUTAGES: dict[Callable[[Place], AbstractContextManager[None]], int] = {
    locked: 200,
    full: 200,
    removed: 503,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Place]:
    """One deployment for all outages: it must recover after each."""
    folder = tmp_path_factory.mktemp("away")
    file = folder / "gateway.db"
    shutil.copy(sqlite_template, file)
    deployment = Deployment(folder, f"sqlite:///{file}")
    with deployment.process("serve", "--port", "0") as process:
        gateway = Gateway(deployment, process.url())
        for name in ("refused", *(each.__name__ for each in OUTAGES)):
            gateway.add(name)
        yield Place(process, gateway, file)


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.__name__)
def test_an_outage_of_sqlite_is_a_503_in_time_and_passes(
    place: Place, outage: Callable[[Place], AbstractContextManager[None]]
) -> None:
    """Possible reads are served, no accepted sync is lost, and no restart is needed."""
    with place.gateway.of(outage.__name__) as caller:
        for _ in range(10):  # there is something in the file with the newest commits
            assert caller.put(f"{API}/sync/PRODUCT").status_code == 202
            assert caller.delete(f"{API}/sync/PRODUCT").status_code == 202
        survives(caller, outage(place), reads=OUTAGES[outage])
    is_quiet(place.process.log.read_text())


def test_a_replaced_database_file_is_used_at_once(tmp_path: Path, sqlite_template: Path) -> None:
    """An operator restores a backup: writes into the old file would be lost."""
    file, new = tmp_path / "gateway.db", tmp_path / "new.db"
    for each in (file, new):
        shutil.copy(sqlite_template, each)
        with open_database(f"sqlite:///{each}") as database:
            database.call(merchants.add, "shop", Platform.BYOP, "https://shop.example")
    deployment = Deployment(tmp_path, f"sqlite:///{file}")
    with deployment.process("serve", "--port", "0") as process, Gateway(deployment, process.url()).of("shop") as caller:
        assert caller.put(f"{API}/sync/PRODUCT").status_code == 202
        place = Place(process, Gateway(deployment, process.url()), file)
        for each in place.files():
            each.unlink(missing_ok=True)
        new.replace(file)
        recovers(caller)
        assert caller.get(f"{API}/syncs", params={"entityType": "PRODUCT"}).json()["data"] == []
        with open_database(f"sqlite:///{file}") as database:
            assert database.call(syncs.latest, "shop", EntityType.COLLECTION) is not None
        is_quiet(process.log.read_text())


def test_an_idle_worker_without_its_database_file_uses_almost_no_cpu(tmp_path: Path, sqlite_template: Path) -> None:
    """It checks periodically for the file, and does not create a new one."""
    file = tmp_path / "gateway.db"
    shutil.copy(sqlite_template, file)
    with Deployment(tmp_path, f"sqlite:///{file}").process("worker") as worker:
        within(20, lambda: "waiting for syncs" in worker.log.read_text())
        file.unlink()
        within(20, lambda: "not looked for until the database is back" in worker.log.read_text())
        idles(worker.pid)
        assert not file.exists()
        is_quiet(worker.log.read_text())


def test_a_write_that_got_503_under_a_lock_is_not_executed_later(place: Place) -> None:
    """A plain 503 means that nothing was written, also after the lock is released."""
    with place.gateway.of("refused") as caller:
        with locked(place):
            assert error(caller.put(f"{API}/sync/COLLECTION"), 503) == AWAY
        after = caller.put(f"{API}/sync/PRODUCT").json()["data"]
        assert [each["id"] for each in caller.get(f"{API}/syncs").json()["data"]] == [after["id"]]
