"""Statements of the hot path are prepared on a connection to PostgreSQL itself, and never show stale plans."""

import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from sqlalchemy import Connection, text

from product_gateway.db import catalog, merchants
from product_gateway.db.database import Database, open_database
from product_gateway.db.engines.postgresql import SECONDS_OF_A_PLAN
from product_gateway.db.enqueue import EnqueueRequest, enqueue_many
from product_gateway.errors import SyncAlreadyActive, UnknownMerchant
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType, Sync
from tests.support import databases

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
MOST_STATEMENTS = 20  # of a session


@pytest.fixture
def url(postgresql_server: str, postgresql_template: str) -> str:
    """A database of this test."""
    return databases.copy_of(postgresql_server, postgresql_template)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """It with 40 merchants. One call after the other uses one session."""
    with open_database(url) as made:
        for number in range(40):
            made.call(merchants.add, f"m{number}", Platform.BYOP, "https://shop.example")
        yield made


def prepared(database: Database) -> list[str]:
    """Return the statements that the session has prepared."""
    return database.call(
        lambda connection: list(connection.scalars(text("SELECT statement FROM pg_prepared_statements")))
    )


def oldest(connection: Connection) -> datetime:
    """Return when the oldest prepared statement of the session was prepared."""
    found: datetime = connection.scalars(text("SELECT min(prepare_time) FROM pg_prepared_statements")).one()
    return found


async def ask(database: Database, number: int) -> None:
    """Ask for the states of this many keys, and enqueue their syncs."""
    keys = [(f"m{each}", PRODUCT) for each in range(number)]
    states = await database.read(catalog.states, keys)
    assert all(state.num_records == 0 for state, _ in states)  # type: ignore[misc]
    outcomes = await database.write(enqueue_many, [EnqueueRequest(*key) for key in keys])
    assert {type(each) for each in outcomes} <= {Sync, SyncAlreadyActive}


async def test_batches_of_all_sizes_need_few_prepared_statements(database: Database) -> None:
    """Otherwise each session would keep the plans of hundreds."""
    for number in range(1, 41):
        await ask(database, number)
    found = prepared(database)
    assert any("INSERT INTO syncs" in each for each in found)
    assert any("LEFT JOIN (SELECT" in each for each in found)
    assert len(found) <= MOST_STATEMENTS, found


async def test_a_key_that_is_asked_for_twice_is_answered_twice(database: Database) -> None:
    """Each with its own error, as one exception must not be raised in two places."""
    await database.write(enqueue_many, [EnqueueRequest("m1", PRODUCT)])
    keys = [("m1", PRODUCT), ("unknown", PRODUCT), ("m1", COLLECTION), ("m1", PRODUCT), ("unknown", PRODUCT)]
    first, unknown, other, again, unknown_again = await database.read(catalog.states, keys)
    assert first == again
    assert isinstance(first, tuple)
    assert isinstance(other, tuple)
    assert first[1] is not None
    assert other[1] is None
    assert isinstance(unknown, UnknownMerchant)
    assert isinstance(unknown_again, UnknownMerchant)
    assert unknown is not unknown_again


async def test_a_column_may_get_another_type(database: Database, url: str) -> None:
    """PostgreSQL refuses a prepared statement whose result has another type now."""
    for _ in range(10):
        await ask(database, 3)
    databases.run(url, "ALTER TABLE syncs ALTER COLUMN failure_detail TYPE varchar(100000)")
    await ask(database, 3)
    databases.run(url, "ALTER TABLE syncs ALTER COLUMN failure_detail TYPE text")
    await ask(database, 3)
    assert prepared(database)


def let_plans_age(connection: Connection) -> None:
    """As if SECONDS_OF_A_PLAN had passed."""
    connection.info.update(prepared=time.monotonic() - SECONDS_OF_A_PLAN - 1)


async def test_a_session_that_had_prepared_nothing_works_after_a_while(database: Database) -> None:
    """As on a server with few requests: the first statement of a session comes long after its start."""
    for _ in range(4):
        database.call(let_plans_age)
        await ask(database, 3)
        await ask(database, 3)
    assert prepared(database)


async def test_a_session_that_has_lost_its_statements_works(database: Database) -> None:
    """Such as by a command of an operator, or a pooler that was not recognised."""
    await ask(database, 3)
    database.call(lambda connection: connection.connection.pgconn.exec_(b"DEALLOCATE ALL"))
    for _ in range(2):
        await ask(database, 3)
    database.call(let_plans_age)
    await ask(database, 3)
    assert prepared(database)


async def test_statements_are_planned_again_after_a_while(database: Database) -> None:
    """A plan for ten rows would be slow for a million, and the server does not count them at once."""
    await ask(database, 3)
    first = database.call(oldest)
    await ask(database, 3)
    assert database.call(oldest) == first
    database.call(let_plans_age)
    await ask(database, 3)
    assert database.call(oldest) > first
