"""Distribution of the tables over several machines by Citus: which tables, in which order, and what is still to do.

Each statement is its own transaction. After an interruption, the next run continues.
"""

from collections.abc import Collection

from sqlalchemy import Connection, ForeignKeyConstraint, text
from sqlalchemy.schema import AddConstraint, DropConstraint

from product_gateway.db.database import Database, is_embedded
from product_gateway.db.migrate import WITHOUT_LIMITS
from product_gateway.db.tables import metadata, syncs
from product_gateway.errors import SettingsError

REFERENCE = ("merchants",)  # a copy on each machine, for joins and foreign keys
LOCAL = ("readiness", "ended_sessions")  # on the coordinator, to which the gateway connects
DISTRIBUTED = (
    syncs.name,
    *sorted(each.name for each in metadata.sorted_tables if "merchant" in each.c and each is not syncs),
)

# Citus also lists local tables that have foreign keys to reference tables.
_done = text(
    "SELECT relname FROM pg_dist_partition JOIN pg_class ON pg_class.oid = logicalrel "
    "WHERE partmethod = 'h' OR repmodel = 't'"
)
_keys = text("SELECT conname FROM pg_constraint WHERE contype = 'f'")


def statements(done: Collection[str] = (), keys: Collection[str] | None = None) -> list[str]:
    """Return the SQL that is still to run. `keys` are the foreign keys that the database has; None: all.

    Citus refuses foreign keys from local tables to distributed ones, so those between tables that become distributed
    are dropped and added again.
    """
    between = {_name(key): key for name in DISTRIBUTED for key in _keys_between(name)}
    missing = [name for name in DISTRIBUTED if name not in done]
    dropped = [
        name
        for name, key in between.items()
        if (keys is None or name in keys) and {key.table.name, key.referred_table.name} & set(missing)
    ]
    added = [name for name in between if name in dropped or (keys is not None and name not in keys)]
    return [
        *(_sql(DropConstraint(between[name])) for name in dropped),
        *(f"SELECT create_reference_table('{name}')" for name in REFERENCE if name not in done),
        *(
            f"SELECT create_distributed_table('{name}', 'merchant'"
            + (")" if name == syncs.name else f", colocate_with => '{syncs.name}')")
            for name in missing
        ),
        *(_sql(AddConstraint(between[name], isolate_from_table=False)) for name in added),
    ]


def run(database: Database) -> list[str]:
    """Run the SQL that is still to run, and return it. Raise SettingsError where there is no Citus."""
    if is_embedded(database):
        raise SettingsError("SQLite is on one machine: set PRODUCT_GATEWAY_DATABASE_URL to a PostgreSQL with Citus.")
    if not database.call(lambda connection: connection.scalar(text("SELECT to_regclass('pg_dist_partition')"))):
        raise SettingsError("The PostgreSQL server has no Citus: run CREATE EXTENSION citus in this database first.")
    missing = statements(*database.call(_found))
    for each in missing:
        database.call(_run_one, each)
    return missing


def _found(connection: Connection) -> tuple[set[str], set[str]]:
    return set(connection.scalars(_done)), set(connection.scalars(_keys))


def _run_one(connection: Connection, statement: str) -> None:
    connection.execute(text(WITHOUT_LIMITS))  # it moves the rows
    connection.exec_driver_sql(statement)


def _keys_between(name: str) -> list[ForeignKeyConstraint]:
    keys = metadata.tables[name].foreign_key_constraints
    return [key for key in keys if key.referred_table.name in DISTRIBUTED]


def _name(key: ForeignKeyConstraint) -> str:
    return f"fk_{key.table.name}_{key.column_keys[0]}_{key.referred_table.name}"


def _sql(statement: AddConstraint | DropConstraint) -> str:
    return " ".join(str(statement).split())
