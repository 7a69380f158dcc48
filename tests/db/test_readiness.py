"""Readiness fails for every fault that would fail the requests that follow."""

import pytest
from sqlalchemy import Connection, text

from product_gateway.db.database import Database
from product_gateway.db.errors import AWAY
from product_gateway.db.readiness import NOT_UP_TO_DATE, Readiness
from product_gateway.errors import Unavailable


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE syncs RENAME COLUMN heartbeat_at TO heard_at",
        "ALTER TABLE catalog_records RENAME COLUMN document TO body",
        "ALTER TABLE seen_records RENAME TO seen",
        "DELETE FROM readiness",
        "UPDATE alembic_version SET version_num = '0000'",
    ],
)
async def test_damaged_tables_are_noticed(damage: str, database: Database) -> None:
    """Before a request meets them."""
    await Readiness(database).check()
    database.call(execute, damage)
    with pytest.raises(Unavailable) as found:
        await Readiness(database).check()
    assert found.value.detail in (NOT_UP_TO_DATE, AWAY)


def execute(connection: Connection, statement: str) -> None:
    """A statement of the operator's."""
    connection.execute(text(statement))
