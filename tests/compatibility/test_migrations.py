"""Migrations: two versions share a database during a rolling upgrade."""

import hashlib
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from product_gateway.db import migrate
from product_gateway.db.database import Database, open_database
from product_gateway.db.readiness import Readiness
from product_gateway.errors import SettingsError, Unavailable
from tests.support import databases, released_statements
from tests.support.released_statements import DIALECTS, FOLDER

VERSIONS = Path(migrate.__file__).parent / "migrations" / "versions"
# What is released is never edited again: databases were made by it.
RELEASED = {"0001_first_tables.py": "2dda234a"}
FILES = sorted(FOLDER.glob("*.jsonl"))


def set_revision(database: Database, revision: str, oldest_code: str = "0001") -> None:
    """Set the revision, as another version's migrations would."""

    def change(connection: Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
        connection.execute(text("UPDATE readiness SET oldest_code = :o"), {"o": oldest_code})

    database.call(change)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_statements_of_released_versions_still_work(file: Path, request: pytest.FixtureRequest) -> None:
    """In a rolling upgrade the old version uses the new tables, with the same results."""
    dialect = file.stem.split(".")[1]
    url = (
        f"sqlite:///{databases.migrated_file(request.getfixturevalue('tmp_path'))}"
        if dialect == "sqlite"
        else databases.copy_of(
            request.getfixturevalue("postgresql_server"), request.getfixturevalue("postgresql_template")
        )
    )
    statements = [released_statements.loaded(line) for line in file.read_text().splitlines()]
    with open_database(url) as database:
        again = database.call(released_statements.replay, statements)
    for number, (then, now) in enumerate(zip(statements, again, strict=True), 1):
        assert now.rows == then.rows, f"{file.name}, line {number}: it was {then.rows} rows for {then.sql}"


def test_every_released_migration_has_recorded_statements() -> None:
    """Run tests/tools/record_statements.py when a version with new migrations is released."""
    revisions = [name.split("_")[0] for name in RELEASED]
    assert [each.name for each in FILES] == [
        f"{each}.{dialect}.jsonl" for each in revisions for dialect in sorted(DIALECTS)
    ]
    assert all(len(each.read_text().splitlines()) > 200 for each in FILES)


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_migration_is_unchanged(name: str) -> None:
    """Databases at the old revision would not get a later edit."""
    digest = hashlib.blake2b((VERSIONS / name).read_bytes(), digest_size=4).hexdigest()
    assert digest == RELEASED[name], f"{name} is released: bring it back, and write a new migration"


def test_revisions_are_consecutive_numbers() -> None:
    """A version recognises a newer revision by its number."""
    names = sorted(each.name for each in VERSIONS.glob("*.py"))
    assert [name.split("_")[0] for name in names] == [f"{n:04d}" for n in range(1, len(names) + 1)]
    assert migrate.newest() == ScriptDirectory(str(VERSIONS.parent)).get_current_head() == names[-1].split("_")[0]


async def test_a_version_keeps_serving_after_a_newer_migration(database: Database) -> None:
    """The old version stays ready, and can start again, until it is replaced."""
    set_revision(database, "9999")
    assert database.call(migrate.upgrade) == "9999"
    assert database.call(migrate.require_fit) == "9999"
    await Readiness(database).check()


@pytest.mark.parametrize(("revision", "oldest_code"), [("9999", "9998"), ("a1b2c3d4e5f6", "0001")])
async def test_a_version_refuses_incompatible_tables(database: Database, revision: str, oldest_code: str) -> None:
    """Tables of an incompatible version, or of another program."""
    set_revision(database, revision, oldest_code)
    with pytest.raises(SettingsError, match="newer version"):
        database.call(migrate.upgrade)
    with pytest.raises(SettingsError):
        database.call(migrate.require_fit)
    with pytest.raises(Unavailable, match="not up to date"):
        await Readiness(database).check()
    assert database.call(migrate.current) == revision


async def test_a_version_is_not_ready_before_its_own_migrations(database: Database) -> None:
    """It is not ready before, because it would answer 500."""
    set_revision(database, "0000")
    with pytest.raises(Unavailable, match="not up to date"):
        await Readiness(database).check()
    with pytest.raises(SettingsError, match="product-gateway migrate"):
        database.call(migrate.require_fit)
