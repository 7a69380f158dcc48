"""Migrations: bring the tables up to date, and check whether they fit this code.

Two versions share a database during an upgrade: the new version migrates first, and the old one continues to serve.
Hence the rules for migrations:

- A released migration is never edited again; none is released yet. Revisions are numbers of four digits, one after
  the other.
- A migration never breaks the previous version: it may add what that version ignores. Unused tables and columns are
  dropped one release later, by a migration that sets `oldest_code` in the table `readiness` to the first
  revision whose code does not use them.
- When a version with new migrations is released, tests/tools/record_statements.py records its statements. The tests
  repeat them on the tables of all later versions.
"""

import re
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect, select, text

from product_gateway.db.database import Database, is_embedded
from product_gateway.db.tables import metadata, readiness
from product_gateway.errors import SettingsError

# Any unused number: only the holder of this lock migrates PostgreSQL.
ADVISORY_LOCK = 0x70726F64_67617465
WITHOUT_LIMITS = "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)"
REVISION = re.compile("[0-9]{4}")
MIGRATIONS = Path(__file__).parent / "migrations"
FIRST = "0001"
# As Alembic makes it.
VERSION_TABLE = """
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)"""
TOO_NEW = "The database was made by a newer version of the gateway. Use that version, or another database."


def upgrade(connection: Connection) -> str:
    """Run the missing migrations, all or none, and return the revision. Raise SettingsError.

    A database of a newer version remains unchanged.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(WITHOUT_LIMITS))  # a migration of large tables takes long
        connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
    found = current(connection)
    if found is not None and fits(connection):
        return found
    # Imported here: mostly no migration is missing, and a start then saves the import.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise SettingsError(TOO_NEW) from None
    return newest()


def create(connection: Connection) -> None:
    """Create the tables in an empty SQLite database: same result as `upgrade`, without Alembic.

    Alembic takes 11 MB of memory and five times as long.
    """
    metadata.create_all(connection, checkfirst=False)
    connection.execute(readiness.insert().values(id=1, oldest_code=FIRST))
    connection.execute(text(VERSION_TABLE))
    connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": newest()})


def prepare(database: Database) -> None:
    """Create or migrate a SQLite database; require that another one is up to date. Raise SettingsError."""
    database.call(_create_or_upgrade if is_embedded(database) else require_fit)


def _create_or_upgrade(connection: Connection) -> None:
    if current(connection) is None:
        create(connection)
    else:
        upgrade(connection)


def require_fit(connection: Connection) -> str:
    """Return the revision. Raise SettingsError if the tables do not fit this code."""
    found = current(connection)
    if found is not None and fits(connection):
        return found
    raise SettingsError(
        TOO_NEW if _is_newer(found) else "The database's tables are not up to date. Run: product-gateway migrate"
    )


def fits(connection: Connection) -> bool:
    """Whether this code can use the tables: its own, or those of a newer, compatible version."""
    found = current(connection)
    if not _is_newer(found):
        return found == newest()
    oldest = connection.execute(select(readiness.c.oldest_code)).scalar_one()
    return str(oldest) <= newest()


def _is_newer(revision: str | None) -> bool:
    return revision is not None and REVISION.fullmatch(revision) is not None and revision > newest()


def current(connection: Connection) -> str | None:
    """Return the revision of the database; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


@cache
def newest() -> str:
    """Return the newest revision of this code."""
    return max(path.name.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
