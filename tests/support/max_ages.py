"""Time passes for max ages, without waiting."""

from sqlalchemy import Connection, bindparam, update

from product_gateway.db import tables, types
from product_gateway.db.database import Database


def set_back(database: Database, seconds: float) -> None:
    """Move all publications and max ages back in time, as if these seconds had passed."""

    def change(connection: Connection) -> None:
        for table, names in ((tables.max_ages, ("since", "stale_after")), (tables.catalog_counts, ("updated_at",))):
            earlier = {name: types.later(table.c[name], bindparam("by")) for name in names}
            connection.execute(update(table).values(earlier), {"by": -seconds})

    database.call(change)
