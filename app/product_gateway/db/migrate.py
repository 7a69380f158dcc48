"""Brings the database's tables up to date. A database that is newer than the code is left alone."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from product_gateway.db import Database, is_embedded
from product_gateway.errors import SettingsError

# Any number that nobody else uses: whoever migrates PostgreSQL holds it, and the others wait.
ADVISORY_LOCK = 0x70726F64_67617465


def upgrade(connection: Connection) -> str:
    """Runs the migrations that are missing, all or none; answers the revision. Raises SettingsError."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise SettingsError(
            "The database was made by a newer version of the gateway. Use that version, or another database."
        ) from None
    return newest()


def prepare(database: Database) -> None:
    """Migrates the embedded database; of another one, requires that somebody did. Raises SettingsError."""
    database.call(upgrade if is_embedded(database) else require_newest)


def require_newest(connection: Connection) -> str:
    """The revision. Raises SettingsError where migrations are missing."""
    if current(connection) != newest():
        raise SettingsError("The database's tables are not up to date. Run: product-gateway migrate")
    return newest()


def current(connection: Connection) -> str | None:
    """The revision that the database is at; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


@cache
def newest() -> str:
    """The revision that the code wants."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
