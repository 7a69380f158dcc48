"""Reads and small steps of a catalog with a long history touch a bounded number of rows, with or without statistics.

One merchant has most of the records, and hundreds have a few. PLAN_RECORDS sets the size.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from product_gateway.db import catalog, catalog_write, changes, generations, merchants, reverts, syncs
from product_gateway.db.database import Database, open_database
from product_gateway.errors import NoActiveSync
from product_gateway.model.catalog import ChangePosition
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import Claim
from tests.support import databases
from tests.support.pulls import LEASE, PRODUCT, page, started, write

RECORDS = int(os.environ.get("PLAN_RECORDS") or 20_000)
GENERATIONS = 10
SMALL = 300  # other merchants, of 10 records each
LIMIT = 100
MOST_ROWS = 30 * LIMIT  # of all nodes of a plan: a few steps, for a row of each of up to ten generations
MOST_INSTRUCTIONS = 1500 * LIMIT  # of SQLite's virtual machine; a scan of all records takes more
SCANNED = re.compile(r"SCAN (catalog_\w+|syncs)\b(?!.*USING (COVERING )?INDEX ix_catalog_(counts_unpubl|gen))")

# Generation g changed each record whose number n leaves the remainder g when divided by 10; it is in the history once.
NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {number}) ",
    "postgresql": "WITH numbers(n) AS (SELECT * FROM generate_series(0, {number} - 1)) ",
}
ID = {"sqlite": "printf('%07d', n)", "postgresql": "lpad(n::text, 7, '0')"}
DIGEST = {"sqlite": "x'00'", "postgresql": "'\\x00'::bytea"}
NAME = {"sqlite": "'small' || (n / 10)", "postgresql": "'small' || (n / 10)"}


def fill(connection: Connection) -> None:
    """Write ten generations of the large catalog, and one of each small catalog."""
    dialect = connection.dialect.name
    content = f'20, \'{{"title": "a product"}}\', NULL, {DIGEST[dialect]}'
    remainder = f"CASE WHEN (n - n / 10 * 10) = 0 THEN {GENERATIONS} ELSE (n - n / 10 * 10) END"  # 1: has never changed
    key = "merchant, entity_type, record_id"
    records = f"INSERT INTO catalog_records ({key}, generation, size, document, product_ids, digest) "
    history = (
        f"INSERT INTO catalog_history ({key}, from_generation, to_generation, size, document, product_ids, digest) "
    )
    of_big, of_small = NUMBERS[dialect].format(number=RECORDS), NUMBERS[dialect].format(number=SMALL * 10)
    counts = "INSERT INTO catalog_counts (merchant, entity_type, generation, num_records, working_records, updated_at) "
    at = "CURRENT_TIMESTAMP"
    for statement in (
        f"{records} {of_big} SELECT 'big', 'PRODUCT', {ID[dialect]}, {remainder}, {content} FROM numbers",
        f"{history} {of_big} SELECT 'big', 'PRODUCT', {ID[dialect]}, 1, {remainder}, {content} FROM numbers"
        f" WHERE (n - n / 10 * 10) <> 1",
        f"{history} {of_big} SELECT 'big', 'PRODUCT', {ID[dialect]} || '-gone', 1, 2 + (n - n / 9 * 9), {content}"
        " FROM numbers"
        f" WHERE (n - n / 20 * 20) = 0",
        f"{records} {of_small} SELECT {NAME[dialect]}, 'PRODUCT', {ID[dialect]}, 1, {content} FROM numbers",
        f"{counts} SELECT 'big', 'PRODUCT', {GENERATIONS}, {RECORDS}, {RECORDS}, {at}",
        f"{counts} {of_small} SELECT DISTINCT {NAME[dialect]}, 'PRODUCT', 1, 10, 10, {at} FROM numbers",
        f"INSERT INTO catalog_generations {NUMBERS[dialect].format(number=GENERATIONS)}"
        f" SELECT 'big', 'PRODUCT', n + 1, {at} FROM numbers",
        f"INSERT INTO catalog_generations {of_small} SELECT DISTINCT {NAME[dialect]}, 'PRODUCT', 1, {at} FROM numbers",
    ):
        connection.exec_driver_sql(statement)
    connection.execute(text("UPDATE catalog_counts SET num_bytes = num_records * 20, working_bytes = num_records * 20"))


@pytest.fixture(scope="module", params=["sqlite none", "sqlite whole", "postgresql whole"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database with a large catalog, with and without statistics about it."""
    dialect, statistics = request.param.split()
    if dialect == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        url = databases.copy_of(server, request.getfixturevalue("postgresql_template"))
        for table in ("catalog_records", "catalog_history", "catalog_counts", "catalog_generations", "syncs"):
            databases.run(url, f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    else:
        path = tmp_path_factory.mktemp("plans") / "gateway.db"
        path.write_bytes(Path(request.getfixturevalue("sqlite_template")).read_bytes())
        url = f"sqlite:///{path}"
    with open_database(url) as database:
        database.call(merchants.add, "big", Platform.BYOP, "https://shop.example")
        for n in range(3):
            database.call(merchants.add, f"small{n}", Platform.BYOP, "https://shop.example")
        database.call(fill)
        if statistics == "whole":
            if dialect == "postgresql":
                databases.run(url, "ANALYZE")
            else:
                database.call(lambda connection: connection.execute(text("ANALYZE")))
        yield database


class Cost:
    """What the statements of a call cost: the rows of all nodes (PostgreSQL), or instructions (SQLite)."""

    def __init__(self, database: Database) -> None:
        self.work = 0
        self.plans: list[str] = []
        self._database = database
        self._is_postgresql = database.engine.dialect.name == "postgresql"

    def of(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Call `work`, and note what it costs."""
        event.listen(self._database.engine, "before_cursor_execute", self._explain)
        try:
            return self._database.call(self._counted, work, *arguments)
        finally:
            event.remove(self._database.engine, "before_cursor_execute", self._explain)

    def check(self) -> None:
        """Fail where a table was read from end to end, or too many rows of it."""
        plans = "\n".join(self.plans)
        if self._is_postgresql:
            assert "Seq Scan on catalog_records" not in plans, plans
            assert "Seq Scan on catalog_history" not in plans, plans
            assert self.work <= MOST_ROWS, f"{self.work} rows\n{plans}"
        else:
            assert not SCANNED.search(plans), plans
            assert self.work <= MOST_INSTRUCTIONS, f"{self.work} instructions\n{plans}"

    def _counted(self, connection: Connection, work: Callable[..., Any], *arguments: Any) -> Any:
        if self._is_postgresql:
            return work(connection, *arguments)
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(self._progress, 100)
        try:
            return work(connection, *arguments)
        finally:
            driver.set_progress_handler(None, 0)

    def _progress(self) -> int:
        self.work += 100
        return 0

    def _explain(self, _: Any, cursor: Any, statement: str, values: Any, *__: Any) -> None:
        if not statement.startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")):
            return
        if not self._is_postgresql:
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            self.plans += [row[3] for row in cursor.fetchall()]
            return
        cursor.execute("SAVEPOINT explained")
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
        [[[found]]] = cursor.fetchall()
        cursor.execute("ROLLBACK TO explained")
        self._add(found["Plan"])

    def _add(self, node: dict[str, Any]) -> None:
        rows = (
            node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        )
        self.work += round(rows * node["Actual Loops"])
        self.plans.append(f"{node['Node Type']} on {node.get('Relation Name')} {node.get('Index Name', '')} {rows}")
        for each in node.get("Plans", ()):
            self._add(each)


@pytest.fixture
def claim(filled: Database) -> Iterator[Claim]:
    """A sync of the large catalog that has replaced 2,000 records and added 500. It is rolled back."""
    claim = started(filled, "big")
    middle = RECORDS // 2
    write(filled, claim, page({f"{n:07}": "new" for n in range(middle, middle + 2000)}, cursor="2"), step=5000)
    write(filled, claim, page({f"{middle:07}-{n}": "new" for n in range(500)}, cursor="3"))
    yield claim
    with contextlib.suppress(NoActiveSync):
        filled.call(syncs.cancel, "big", PRODUCT)
    while not filled.call(generations.roll_back, "big", PRODUCT, claim.sync_id, 5000):
        pass


AT = (0, 49, 99)  # per cent of the catalog


@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("generation", [None, GENERATIONS - 1, GENERATIONS // 2, 1])
def test_a_page_of_any_generation_reads_its_rows_only(filled: Database, generation: int | None, at: int) -> None:
    """The published generation, the one before, and the oldest."""
    cost = Cost(filled)
    found = cost.of(catalog.page, "big", PRODUCT, f"{RECORDS * at // 100:07}", LIMIT, generation)
    assert len(found.records) == LIMIT
    cost.check()


@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("generation", [None, GENERATIONS - 1])
@pytest.mark.usefixtures("claim")
def test_a_page_while_a_sync_writes_reads_its_rows_only(filled: Database, generation: int | None, at: int) -> None:
    """Before, among and behind the records that the sync has replaced."""
    cost = Cost(filled)
    found = cost.of(catalog.page, "big", PRODUCT, f"{RECORDS * at // 100:07}", LIMIT, generation)
    assert len(found.records) == LIMIT
    assert all(b'"new"' not in each.document.encode() for each in found.records)
    cost.check()


@pytest.mark.parametrize("since", [0, 1, GENERATIONS // 2, GENERATIONS - 1])
@pytest.mark.parametrize("dirty", [False, True])
def test_the_first_and_second_page_of_the_feed_read_their_rows_only(
    filled: Database, since: int, dirty: bool, request: pytest.FixtureRequest
) -> None:
    """From any generation to the newest, also while a sync writes."""
    if dirty:
        request.getfixturevalue("claim")
    place = ChangePosition(since)
    for _ in range(2):
        cost = Cost(filled)
        found = cost.of(changes.since, "big", PRODUCT, place, LIMIT)
        assert len(found.changes) == LIMIT
        place = found.place
        cost.check()


@pytest.mark.parametrize("until", [2, GENERATIONS // 2])
def test_a_window_that_ends_before_the_newest_generation_reads_its_rows_only(filled: Database, until: int) -> None:
    """While syncs are published, a replica continues with the window that it has begun."""
    for since in (0, 1):
        cost = Cost(filled)
        assert len(cost.of(changes.since, "big", PRODUCT, ChangePosition(since, until), LIMIT).changes) == LIMIT
        cost.check()


def test_single_records_and_generations_are_found_by_keys(filled: Database, claim: Claim) -> None:
    """Also while a sync writes."""
    ids = [f"{n:07}" for n in range(RECORDS // 2, RECORDS // 2 + 50)]
    for work, arguments in (
        (catalog.get, ("big", PRODUCT, ids[0])),
        (catalog.find, ("big", PRODUCT, ids)),
        (catalog.state, ("big", PRODUCT)),
        (catalog.states, ([("big", PRODUCT), ("small1", PRODUCT)],)),
        (changes.published, ([("big", PRODUCT), ("small1", PRODUCT)],)),
        (generations.left_behind, ()),
        (generations.unpublished_by_another, (claim,)),
    ):
        cost = Cost(filled)
        cost.of(work, *arguments)
        cost.check()


@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("step", [1, 5])
def test_the_look_up_of_a_page_reads_its_rows_only(filled: Database, claim: Claim, at: int, step: int) -> None:
    """Before, among and behind what the sync has written, of ids that follow each other or do not."""
    first = RECORDS * at // 100
    ids = [f"{n:07}" for n in range(first, first + LIMIT * step, step)]
    cost = Cost(filled)
    assert len(cost.of(catalog_write.find_digests, claim, ids).digests) == min(LIMIT, -(-(RECORDS - first) // step))
    cost.check()


@pytest.mark.parametrize("at", AT)
def test_the_look_up_of_a_page_reads_its_rows_only_where_nothing_is_written(filled: Database, at: int) -> None:
    """As in a sync that changes nothing: no record is of its generation, and no other record needs to be read."""
    claim = started(filled, "big")
    cost = Cost(filled)
    cost.of(catalog_write.find_digests, claim, [f"{RECORDS * at // 100 + n:07}" for n in range(LIMIT)])
    filled.call(syncs.cancel, "big", PRODUCT)
    cost.check()


def test_a_rollback_of_few_records_reads_no_others(filled: Database) -> None:
    """Though a step may undo many: it must not look for more."""
    claim = started(filled, "big")
    write(filled, claim, page({f"{n:07}": "new" for n in range(3)}, cursor="2"))
    filled.call(syncs.cancel, "big", PRODUCT)
    is_done = False
    while not is_done:
        cost = Cost(filled)
        is_done = cost.of(generations.roll_back, "big", PRODUCT, claim.sync_id, 2000)
        cost.check()


def test_steps_of_a_rollback_read_what_they_undo(filled: Database, claim: Claim) -> None:
    """Both of its parts: the versions that the sync wrote, and those that it replaced."""
    filled.call(syncs.cancel, "big", PRODUCT)
    for limit in (LIMIT, 5000, LIMIT):  # the second step undoes all that was written
        cost = Cost(filled)
        assert not cost.of(generations.roll_back, "big", PRODUCT, claim.sync_id, limit)
        if limit == LIMIT:
            cost.check()


def test_steps_of_a_revert_read_what_they_restore(filled: Database) -> None:
    """The records that later generations changed."""
    claim = started(filled, "big")
    after: str | None = ""
    step = 0
    while after is not None and step < 8:
        cost = Cost(filled)
        after = cost.of(reverts.restore, claim, GENERATIONS - 1, after, LEASE, LIMIT)
        cost.check()
        step += 1
    filled.call(syncs.cancel, "big", PRODUCT)
    while not filled.call(generations.roll_back, "big", PRODUCT, claim.sync_id, 5000):
        pass
