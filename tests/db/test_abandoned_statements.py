"""PostgreSQL goes on with no statement whose client has given up, and waits for no lock on its behalf."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, make_url, text

from product_gateway.db import catalog, catalog_removal, merchants, migrate
from product_gateway.db.database import THREADS, Database, connect, open_database
from product_gateway.errors import Unavailable
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from tests.support import databases
from tests.support.deployment import within
from tests.support.pgbouncer import SESSIONS
from tests.support.postgresql_cluster import HOST, USER, one_server

DEADLINE = 2.0  # as the server has
MOST_SESSIONS = 2 * THREADS + 2  # of one pool
CLIENTS = 20
ROUNDS = 4
OURS = "FROM pg_stat_activity WHERE datname = %s AND application_name = 'product-gateway'"


def sessions(server: str, name: str, condition: str = "") -> int:
    """How many the gateway has in the database."""
    with psycopg.connect(server.replace("+psycopg", "")) as connection:
        found = connection.execute(f"SELECT count(*) {OURS} {condition}".encode(), [name]).fetchone()
    assert found is not None
    return int(found[0])


async def asks(ask: Callable[[], Any]) -> None:
    """A client that gives up and asks again."""
    for _ in range(ROUNDS):
        with contextlib.suppress(Unavailable):
            await ask()


async def test_clients_that_ask_again_leave_no_sessions_behind_a_lock(
    postgresql_server: str, postgresql_template: str
) -> None:
    """Reads in a transaction, single statements and writes, with all tables locked."""
    url = databases.copy_of(postgresql_server, postgresql_template)
    name = str(make_url(url).database)
    with open_database(url) as setup:
        setup.call(merchants.add, "shop", Platform.BYOP, "https://shop.example")
    database = connect(url, deadline=DEADLINE)
    most = 0
    with psycopg.connect(url.replace("+psycopg", "")) as holder:
        holder.execute("LOCK TABLE catalog_records, catalog_counts, webhooks IN ACCESS EXCLUSIVE MODE")
        kinds = (
            lambda: database.read(catalog.page, "shop", EntityType.PRODUCT, "", 10),
            lambda: database.read(catalog.states, [("shop", EntityType.PRODUCT)]),
            lambda: database.write(catalog_removal.allow_mass_deletion, "shop", EntityType.PRODUCT),
        )
        crowd = [asyncio.create_task(asks(kind)) for kind in kinds for _ in range(CLIENTS)]
        while not all(each.done() for each in crowd):
            most = max(most, await asyncio.to_thread(sessions, postgresql_server, name))
            await asyncio.sleep(0.1)
        await asyncio.gather(*crowd)
        await asyncio.to_thread(
            within, 5, lambda: sessions(postgresql_server, name, "AND wait_event_type = 'Lock'") == 0
        )
        holder.rollback()
    assert most <= MOST_SESSIONS
    assert await database.read(catalog.state, "shop", EntityType.PRODUCT) is not None
    database.close()


def endless(connection: Connection) -> None:
    """A statement that nothing bounds."""
    connection.execute(text("SELECT set_config('statement_timeout', '0', true)"))
    connection.execute(text("SELECT pg_sleep(60)"))


async def given_up(database: Database, number: int = THREADS) -> None:
    """Many statements, which their clients give up."""
    outcomes = await asyncio.gather(*[database.read(endless) for _ in range(number)], return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in outcomes), outcomes


async def test_what_is_given_up_is_cancelled(postgresql_server: str, postgresql_template: str) -> None:
    """Not only its connection is closed: the server would notice that after the statement."""
    url = databases.copy_of(postgresql_server, postgresql_template)
    database = connect(url, deadline=DEADLINE)
    await given_up(database)
    name = str(make_url(url).database)
    await asyncio.to_thread(within, 10, lambda: sessions(postgresql_server, name, "AND state = 'active'") == 0)
    assert await database.read(migrate.current) == migrate.newest()
    database.close()


async def test_what_is_given_up_is_cancelled_behind_pgbouncer_too(pgbouncer: str, postgresql_server: str) -> None:
    """PgBouncer passes on what cancels a statement.

    It drops what cancels a statement that waits for a session, and may start that statement; hence a session for each.
    """
    with open_database(pgbouncer) as setup:
        setup.call(migrate.upgrade)
    database = connect(pgbouncer, deadline=DEADLINE)
    await given_up(database, SESSIONS)
    name = str(make_url(pgbouncer).database)
    sleeping = "AND query LIKE '%%pg_sleep%%' AND state = 'active'"
    await asyncio.to_thread(within, 10, lambda: sessions(postgresql_server, name, sleeping) == 0)
    database.close()


async def test_a_thread_that_connects_while_its_database_is_closed_closes_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the garbage collector does, with "psycopg.Connection was deleted while still open"."""
    monkeypatch.setattr("product_gateway.db.database.SECONDS_TO_FINISH", 0.1)
    others = set(threads())
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'product-gateway'"
    with one_server() as server:
        database = connect(f"postgresql://{USER}@{HOST}:{server.port}/postgres?connect_timeout=60")
        gc.disable()
        try:
            with server.standing_still():
                task = asyncio.create_task(database.read(migrate.current))
                await asyncio.sleep(0.2)
                await asyncio.to_thread(database.close)
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.to_thread(within, 10, lambda: not set(threads()) - others)
            await asyncio.to_thread(within, 10, lambda: server.rows(ours) == [(0,)])
        finally:
            gc.enable()


def threads() -> list[threading.Thread]:
    """The threads of all databases of this process."""
    return [each for each in threading.enumerate() if each.name.startswith("database-")]
