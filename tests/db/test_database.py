"""The database underneath: migrations, group commit, and what is said when it is away."""

import asyncio
import contextlib
import gc
import re
import shutil
import sqlite3
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError
from uuid_utils.compat import uuid7

from product_gateway.db import merchants, migrate, syncs
from product_gateway.db.batcher import Batcher
from product_gateway.db.database import Database, connect, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.db.tables import metadata
from product_gateway.errors import SettingsError, SyncAlreadyActive, SyncNotFound, Unavailable
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from tests.support import databases


# SQLAlchemy cannot read such an index back from SQLite. The next test compares its text.
@pytest.mark.filterwarnings("ignore:.*expression-based index .?ix_syncs_queued")
def test_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    """Two descriptions of the same tables drift apart unless a test compares them."""
    differences = database.call(lambda connection: compare_metadata(MigrationContext.configure(connection), metadata))
    assert differences == []


def contents(path: Path) -> tuple[dict[str, list[str]], dict[str, list[Any]]]:
    """What a file of SQLite has: each table's and index's parts in order of their text, and each table's rows.

    SQLite adds a column on the line of the last one.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT name, type, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%'"
        ).fetchall()
        halves = {name: f"{sql}".rpartition(")") for name, _, sql in found}
        between = re.compile(r",\s*\n\s*|, (?=\w+ [A-Z]+(?:,|$))")
        parts = {name: [*sorted(between.split(each[0])), each[2]] for name, each in halves.items()}
        tables = [name for name, kind, _ in found if kind == "table"]
        return {name: [" ".join(each.split()) for each in parts[name]] for name in parts}, {
            name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables
        }


def test_tables_made_at_once_are_those_that_the_migrations_make(tmp_path: Path, sqlite_template: Path) -> None:
    """To the last constraint and row: what is rehearsed in a sandbox must hold elsewhere."""
    with open_database(f"sqlite:///{tmp_path / 'made.db'}") as made:
        made.call(migrate.create)
        assert made.call(migrate.fits)
    assert contents(tmp_path / "made.db") == contents(sqlite_template)


async def test_a_read_sees_one_snapshot_during_other_writes(database: Database) -> None:
    """So that what two statements of it find fits together."""

    def count(connection: Connection) -> int:
        return len(merchants.list_all(connection))

    def twice(connection: Connection) -> tuple[int, int]:
        before = count(connection)
        database.call(merchants.add, "newcomer", Platform.BENTO)
        return before, count(connection)

    before, after = await database.read(twice)
    assert before == after
    assert await database.read(count) == before + 1


async def test_a_handled_error_leaves_no_reference_cycle(database: Database) -> None:
    """Cycles would make the garbage collector run sooner, and longer."""

    async def fail(asked: Sequence[UUID]) -> Sequence[SyncNotFound]:
        return [SyncNotFound(each) for each in asked]

    batcher: Batcher[UUID, None] = Batcher(fail)
    ways: list[Callable[[], Awaitable[object]]] = [
        lambda: database.read(syncs.get, "shop", uuid7()),
        lambda: database.write(syncs.get, "shop", uuid7()),
        lambda: batcher.submit(uuid7()),
    ]
    loop = asyncio.get_running_loop()
    gc.disable()
    try:
        for number, way in enumerate(ways):
            gone = asyncio.Event()
            with pytest.raises(SyncNotFound) as raised:
                await way()
            heard = weakref.ref(raised.value)
            weakref.finalize(raised.value, loop.call_soon_threadsafe, gone.set)
            del raised
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), 5)  # the thread may still be letting go of it
            assert heard() is None, f"something holds the error of way {number}"
    finally:
        gc.enable()


def test_migrating_twice_changes_nothing(database: Database) -> None:
    """Every start of the embedded default migrates."""
    assert database.call(migrate.upgrade) == database.call(migrate.upgrade) == migrate.newest()


async def test_many_may_migrate_at_once(tmp_path: Path, postgresql_server: str) -> None:
    """Several processes start together on a new machine."""
    for url in (f"sqlite:///{tmp_path / 'new.db'}", databases.copy_of(postgresql_server)):
        opened = [connect(url) for _ in range(4)]
        revisions = await asyncio.gather(*[asyncio.to_thread(each.call, migrate.upgrade) for each in opened])
        assert set(revisions) == {migrate.newest()}
        for each in opened:
            each.close()


def test_a_new_sqlite_file_that_another_process_is_preparing_is_waited_for(tmp_path: Path) -> None:
    """SQLite itself refuses at once to use a write-ahead log while another connection is about to write."""
    path = tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        released = threading.Timer(0.3, other.execute, ["COMMIT"])
        released.start()
        with open_database(f"sqlite:///{path}") as database:
            mode = database.call(lambda connection: connection.exec_driver_sql("PRAGMA journal_mode").scalar_one())
        released.join()
    assert mode == "wal"


def test_an_unmigrated_postgresql_database_is_not_changed(postgresql_server: str) -> None:
    """Who runs a PostgreSQL decides when its tables change."""
    with open_database(postgresql_server) as database:
        with pytest.raises(SettingsError, match="product-gateway migrate"):
            migrate.prepare(database)
        assert database.call(migrate.current) is None


async def test_one_that_fails_does_not_take_others_of_its_commit_along(database: Database) -> None:
    """Units of work that are committed together still stand or fall alone."""
    held = threading.Event()

    def hold(connection: Connection) -> None:
        held.wait(10)

    def add(connection: Connection, name: str) -> None:
        merchants.add(connection, name, Platform.BENTO, None, None, None)

    def spoil(connection: Connection) -> None:
        add(connection, "spoiled")
        connection.execute(text("INSERT INTO merchants (name) VALUES ('no platform')"))

    works = [database.write(hold), *[database.write(add, f"m{n}") for n in range(5)], database.write(spoil)]
    tasks = [asyncio.create_task(work) for work in [*works, database.write(add, "last")]]
    await asyncio.sleep(0.05)
    held.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[6], IntegrityError)
    assert [each for each in outcomes if each is not None] == [outcomes[6]]
    names = {each.name for each in database.call(merchants.list_all)}
    assert names == {"shop", "other", "m0", "m1", "m2", "m3", "m4", "last"}


async def test_a_write_that_was_answered_is_there_for_everybody(database: Database, database_url: str) -> None:
    """The answer comes after the commit, never before."""
    sync = await database.write(enqueue, "shop", EntityType.PRODUCT)
    with open_database(database_url) as another:
        assert (await another.read(syncs.get, "shop", sync.id)).id == sync.id


async def test_two_processes_worth_of_connections_share_a_file(database: Database, database_url: str) -> None:
    """A transaction that reads first and writes later must not fail because of another write in between."""
    with open_database(database_url) as another:

        async def put(through: Database, merchant: str) -> bool:
            try:
                await through.write(enqueue, merchant, EntityType.COLLECTION)
            except SyncAlreadyActive:
                return False
            return True

        tries = [
            put(each, merchant) for each in (database, another) for merchant in ("shop", "other") for _ in range(25)
        ]
        assert sum(await asyncio.gather(*tries)) == 2


def test_commits_to_sqlite_are_durable(sqlite_template: Path, tmp_path: Path) -> None:
    """A 202 must survive a power cut: WAL with synchronous=FULL."""
    with open_database(f"sqlite:///{shutil.copy(sqlite_template, tmp_path)}") as database:

        def pragmas(connection: Connection) -> list[object]:
            return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]

        assert database.call(pragmas) == ["wal", 2]
        assert asyncio.run(database.write(pragmas)) == ["wal", 2]


@pytest.mark.parametrize(
    "url",
    ["postgresql://user@127.0.0.1:1/none", "postgresql://user@/none?host=/nowhere", "sqlite:////proc/none.db"],
)
async def test_a_database_that_is_away_is_unavailable(url: str) -> None:
    """The error is not internal, because the database may return. Its detail names no host and no user."""
    with open_database(url) as database:
        for use in (database.read(migrate.current), database.write(migrate.current)):
            with pytest.raises(Unavailable) as away:
                await use
            assert away.value.detail == "The database cannot be used at the moment."


async def test_a_file_that_is_gone_before_it_is_first_used_is_not_made_anew(tmp_path: Path) -> None:
    """A process has migrated it at its start: an empty one would be in the way of the one that is brought back."""
    file = tmp_path / "gateway.db"
    with open_database(f"sqlite:///{file}", may_create=False) as database, pytest.raises(Unavailable):
        await database.read(migrate.current)
    assert not file.exists()


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://host/name", "sqlite://", "sqlite:///:memory:", "oracle://x"])
def test_what_is_not_a_database_of_ours_is_refused(url: str) -> None:
    """With the name of the setting, as the operator has to change it."""
    with pytest.raises(SettingsError, match="PRODUCT_GATEWAY_DATABASE_URL"):
        connect(url)
