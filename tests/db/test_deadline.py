"""Deadlines: what the database does not answer in time is given up, and nothing stays behind."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from product_gateway.api.app import SECONDS_FOR_THE_DATABASE
from product_gateway.db import merchants, migrate
from product_gateway.db.database import THREADS, Database, connect, open_database
from product_gateway.db.engines import postgresql
from product_gateway.db.errors import AWAY, NOT_KNOWN
from product_gateway.db.readiness import Readiness
from product_gateway.errors import Unavailable
from product_gateway.model.merchants import Platform
from tests.support import databases

DEADLINE = 0.5
on_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PATIENCE = 5.0  # seconds, for a busy machine; much less than what is waited for
ENDLESS = {
    "postgresql": "SELECT pg_sleep(60)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
}


@pytest.fixture
def hasty(database: Database, database_url: str) -> Iterator[Database]:
    """One with a deadline, over the same tables."""
    made = connect(database_url, deadline=DEADLINE)
    yield made
    made.close()


def endless(connection: Connection) -> None:
    """A statement that does not end."""
    connection.execute(text(ENDLESS[connection.dialect.name]))


def add(connection: Connection, name: str) -> None:
    """A write."""
    merchants.add(connection, name, Platform.BENTO)


def names(database: Database) -> set[str]:
    """The merchants that there are."""
    return {each.name for each in database.call(merchants.list_all)}


async def given_up(detail: str, *works: Any) -> None:
    """All of them are, with that detail, and soon."""
    async with asyncio.timeout(PATIENCE):
        outcomes = await asyncio.gather(*works, return_exceptions=True)
    assert [getattr(each, "detail", each) for each in outcomes] == [detail] * len(works)


async def test_threads_that_wait_for_the_database_are_free_again(hasty: Database) -> None:
    """More statements than there are threads never end; each is given up in time, and the next one is served."""
    hasty.call(migrate.current)  # without a deadline: at its first use more is imported
    for _ in range(2):
        await given_up(AWAY, *[hasty.read(endless) for _ in range(2 * THREADS)])
        async with asyncio.timeout(PATIENCE):
            while True:  # the last ones' threads are on their way
                try:
                    assert await hasty.read(migrate.current) == migrate.newest()
                    break
                except Unavailable:
                    continue


async def test_what_waited_too_long_for_a_thread_is_not_begun(hasty: Database, database: Database) -> None:
    """Its caller was told that it is not done."""
    held, began = threading.Event(), []

    def hold(connection: Connection) -> None:
        held.wait(20)

    def late(connection: Connection, name: str) -> None:
        began.append(name)
        add(connection, name)

    crowd = [asyncio.create_task(hasty.write(hold)) for _ in range(THREADS)]
    await asyncio.sleep(0.05)
    await given_up(AWAY, hasty.write(late, "late"))
    held.set()
    await asyncio.gather(*crowd, return_exceptions=True)
    await hasty.write(add, "after")
    assert began == []
    assert names(database) == {"shop", "other", "after"}


async def test_a_write_whose_time_is_up_before_its_commit(hasty: Database, database: Database) -> None:
    """PostgreSQL's is never committed. SQLite's shares a commit with others, so its caller is told of the doubt."""
    is_sqlite = database.engine.dialect.name == "sqlite"
    may_go_on = threading.Event()

    def slow(connection: Connection) -> None:
        add(connection, "slow")
        may_go_on.wait(20)

    await given_up(NOT_KNOWN if is_sqlite else AWAY, hasty.write(slow))
    may_go_on.set()
    await hasty.write(add, "after")
    assert names(database) - {"slow"} == {"shop", "other", "after"}
    assert is_sqlite or "slow" not in names(database)


@on_one_database
async def test_a_request_has_one_deadline_for_all_that_it_asks(database: Database, database_url: str) -> None:
    """Two answers that come late each would be later together than anybody waits."""
    with ExitStack() as stack:
        patient = connect(database_url, deadline=2.0)
        stack.callback(patient.close)
        held = threading.Event()
        stack.callback(held.set)

        def slow(connection: Connection) -> None:
            time.sleep(1.2)

        def slower(connection: Connection) -> None:
            held.wait(20)

        began = time.monotonic()
        patient.start_deadline()
        await patient.read(slow)
        with pytest.raises(Unavailable, match="cannot be used"):
            await patient.read(slower)
        assert time.monotonic() - began < 2.9
        with pytest.raises(Unavailable):
            await patient.read(migrate.current)
        patient.start_deadline()
        assert await patient.read(migrate.current) == migrate.newest()


@pytest.mark.parametrize("kind", ["close", "hurry"])
async def test_a_process_can_end_while_the_database_hangs(
    database_url: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has no deadline, until it is told to stop."""
    monkeypatch.setattr("product_gateway.db.database.SECONDS_TO_FINISH", DEADLINE)
    worker = connect(database_url)
    await worker.read(migrate.current)
    waiting = [asyncio.create_task(worker.read(endless)) for _ in range(THREADS)]
    await asyncio.sleep(0.2)
    began = time.monotonic()
    if kind == "hurry":
        worker.shorten_deadline(DEADLINE)
        await given_up(AWAY, *waiting, worker.read(endless))
    await asyncio.to_thread(worker.close)
    assert time.monotonic() - began < PATIENCE
    await asyncio.gather(*waiting, return_exceptions=True)


@on_one_database
async def test_a_worker_has_all_the_time_it_needs(database: Database) -> None:
    """A page of many records, a removal: what takes long must not begin again and again."""
    done = []

    def slow(connection: Connection) -> None:
        time.sleep(SECONDS_FOR_THE_DATABASE + 0.2)
        done.append(connection)

    await database.write(slow)
    assert done


async def test_a_locked_row_costs_no_connection(
    postgresql_server: str, postgresql_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL itself says that it waited long enough: nothing was done, and the session lives on."""
    monkeypatch.setattr(postgresql, "LONGEST_WAIT_FOR_A_LOCK", "200ms")
    url = databases.copy_of(postgresql_server, postgresql_template)
    hasty = connect(url, deadline=30)

    def session(connection: Connection) -> int:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    with open_database(url) as other, other.engine.begin() as holder:
        before = await hasty.read(session)
        holder.execute(text("LOCK TABLE merchants IN EXCLUSIVE MODE"))
        with pytest.raises(Unavailable) as refused:
            await hasty.write(add, "late")
        assert refused.value.detail == AWAY
        assert "lock timeout" in refused.value.with_cause
        assert await hasty.read(session) == before
    hasty.close()


def counted(database: Database, start: str) -> list[str]:
    """The statements that begin so, from now on."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if sql.startswith(start):
            found.append(sql)

    event.listen(database.engine, "before_cursor_execute", note)
    return found


@on_one_database
async def test_readiness_asks_the_database_once_a_second(hasty: Database) -> None:
    """Its path needs no token: who calls it a thousand times must not make a thousand commits."""
    found = counted(hasty, "UPDATE readiness")
    readiness = Readiness(hasty)
    began = time.monotonic()
    while time.monotonic() - began < 1.2 or (len(found) < 2 and time.monotonic() - began < 10):
        await asyncio.gather(*[readiness.check() for _ in range(100)])
        await asyncio.sleep(0.01)
    most = 1 + int(time.monotonic() - began)
    assert 2 <= len(found) <= most, f"{len(found)} writes in {time.monotonic() - began:.1f} s"


async def test_a_cancelled_readiness_check_does_not_affect_other_callers(hasty: Database) -> None:
    """The others wait for the same answer."""
    readiness = Readiness(hasty)
    impatient = asyncio.create_task(readiness.check())
    others = [asyncio.create_task(readiness.check()) for _ in range(3)]
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(*others)
