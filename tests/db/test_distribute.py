"""`distribute` issues the SQL in an order that Citus accepts, and continues after an interruption.

There is no Citus here. The functions in this file have the names of Citus' functions, and enforce only its rules about
the order: what foreign keys, unique indexes and co-location need.
"""

import re

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from product_gateway.db import distribute, tables
from product_gateway.db.database import open_database
from product_gateway.errors import SettingsError
from tests.support import databases
from tests.support.commands import Terminal, assert_refused
from tests.support.deployment import Deployment

RULES_OF_CITUS = """
CREATE TABLE pg_dist_partition (logicalrel regclass PRIMARY KEY, partmethod "char", repmodel "char");
CREATE FUNCTION create_reference_table(name text) RETURNS void LANGUAGE sql AS
    $$ INSERT INTO pg_dist_partition VALUES (name::regclass, 'n', 't') $$;
CREATE FUNCTION create_distributed_table(name text, distribution text, colocate_with text DEFAULT 'default')
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = name::regclass AND conrelid <> confrelid
               AND conrelid NOT IN (SELECT logicalrel FROM pg_dist_partition WHERE partmethod = 'h')) THEN
        RAISE 'foreign keys from reference tables and local tables to distributed tables are not supported';
    END IF;
    IF EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND conrelid = name::regclass
               AND confrelid NOT IN (SELECT logicalrel FROM pg_dist_partition)) THEN
        RAISE 'referenced table must be a distributed table or a reference table';
    END IF;
    IF EXISTS (SELECT FROM pg_index WHERE indrelid = name::regclass AND indisunique AND NOT indkey::int2[] @> ARRAY[(
               SELECT attnum FROM pg_attribute WHERE attrelid = name::regclass AND attname = distribution)]) THEN
        RAISE 'unique and primary keys must include the distribution column';
    END IF;
    IF colocate_with <> 'default'
       AND colocate_with::regclass NOT IN (SELECT logicalrel FROM pg_dist_partition WHERE partmethod = 'h') THEN
        RAISE 'relation % is not distributed', colocate_with;
    END IF;
    INSERT INTO pg_dist_partition VALUES (name::regclass, 'h', 's');
END $$
"""
KEY = "fk_webhook_deliveries_merchant_syncs"
IN_ALL = len(distribute.statements())


@pytest.fixture
def url(postgresql_server: str, postgresql_template: str) -> str:
    """A database with functions that have the names of Citus' functions."""
    url = databases.copy_of(postgresql_server, postgresql_template)
    databases.run(url, RULES_OF_CITUS)
    return url


@pytest.mark.parametrize("before", [0, 1, 2, 5, IN_ALL - 1, IN_ALL])
def test_all_tables_are_distributed_also_after_an_interruption(url: str, before: int) -> None:
    """A second run does what is missing, and a third one nothing."""
    for each in distribute.statements()[:before]:
        databases.run(url, each)
    with open_database(url) as database:
        assert len(distribute.run(database)) >= IN_ALL - before
        assert distribute.run(database) == []
        found = database.call(
            lambda connection: connection.execute(
                text("SELECT logicalrel::text, partmethod::text FROM pg_dist_partition")
            ).all()
        )
        keys = database.call(
            lambda connection: connection.scalars(
                text(f"SELECT confdeltype::text FROM pg_constraint WHERE conname = '{KEY}'")
            ).all()
        )
    assert {name for name, method in found if method == "h"} == set(distribute.DISTRIBUTED)
    assert {name for name, method in found if method == "n"} == set(distribute.REFERENCE)
    assert keys == ["c"]  # ON DELETE CASCADE, as before


def test_the_tables_keep_their_keys() -> None:
    """The objects that describe the tables create them, too: in a sandbox, later in the same process."""
    distribute.statements()
    table = tables.webhook_deliveries
    assert f"CONSTRAINT {KEY} FOREIGN KEY" in str(
        CreateTable(table).compile(dialect=make_url("postgresql+psycopg://").get_dialect()())
    )


def test_a_table_of_a_later_migration_is_distributed_alone(url: str) -> None:
    """The keys of the others stay."""
    with open_database(url) as database:
        distribute.run(database)
        databases.run(url, "DELETE FROM pg_dist_partition WHERE logicalrel = 'sync_events'::regclass")
        assert distribute.run(database) == [
            "SELECT create_distributed_table('sync_events', 'merchant', colocate_with => 'syncs')"
        ]


def test_the_order_of_the_tables_alone_would_be_refused(url: str) -> None:
    """So the rules of this file see what Citus has refused."""
    reference, first, *_ = distribute.statements()[1:]
    databases.run(url, reference)
    with pytest.raises(DBAPIError, match="to distributed tables are not supported"):
        databases.run(url, first)


def test_a_database_without_citus_is_refused(url: str, sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """In one sentence that says what to do."""
    databases.run(url, "DROP TABLE pg_dist_partition")
    with open_database(url) as database, pytest.raises(SettingsError, match="has no Citus: run CREATE EXTENSION"):
        distribute.run(database)
    assert_refused(terminal.run(sqlite_deployment, "distribute"), "SQLite is on one machine")


def test_the_command_prints_the_sql(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """For any database, also without one."""
    printed = terminal.run(sqlite_deployment, "distribute --print").stdout
    assert printed.count(";\n") == IN_ALL
    tables_with_merchants = {name for name, each in tables.metadata.tables.items() if "merchant" in each.c}
    assert set(re.findall(r"create_distributed_table\('(\w+)', 'merchant'", printed)) == tables_with_merchants


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """For commands that need no process of their own."""
    return Terminal(monkeypatch, capsys)
