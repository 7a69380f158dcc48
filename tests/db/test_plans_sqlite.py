"""SQLite's plans read a bounded number of rows of a long queue or history, with and without ANALYZE."""

import math
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Connection, String, cast, func, insert, inspect, literal, select, text

from product_gateway.db import catalog, catalog_removal, catalog_write, claims, merchants, monitor, syncs, tables, types
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import EnqueueRequest, enqueue, enqueue_many
from product_gateway.db.executor import BEGIN, InFlight, Purpose, WorkItem
from product_gateway.db.group_commit import GroupCommit
from product_gateway.model.catalog import Page, Record
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType, SyncStatus
from tests.support import released_statements
from tests.support.plans import QUERIES, plans, set_statistics

MANY = 10_000
SCAN = re.compile("SCAN (merchants|syncs|sync_events|catalog_records|seen_records|webhook_deliveries)")
RULES = (5, 2)  # workers that a sync may lose, syncs of a merchant at once
STATISTICS = ("none", "of a small database", "of the whole database")


@pytest.fixture(scope="module")
def filled(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Databases with MANY queued and MANY ended syncs, by the state of their statistics."""
    folder = tmp_path_factory.mktemp("plans")
    found: dict[str, Path] = {}
    for statistics in STATISTICS:
        found[statistics] = folder / f"{statistics}.db"
        shutil.copy(sqlite_template, found[statistics])
        with open_database(f"sqlite:///{found[statistics]}") as database:
            database.call(fill, "small", 20)
            if statistics == "of a small database":
                database.call(lambda connection: connection.execute(text("ANALYZE")))
            database.call(fill, "merchant", MANY)
            if statistics == "of the whole database":
                database.call(lambda connection: connection.execute(text("ANALYZE")))
    return found


@pytest.fixture(params=STATISTICS)
def path(request: pytest.FixtureRequest, filled: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of one of them."""
    return Path(shutil.copy(filled[request.param], tmp_path / "gateway.db"))


def fill(connection: Connection, prefix: str, number: int) -> None:
    """Queued syncs of many merchants, and ended ones of some of them. The database itself makes the rows."""
    numbers = select(literal(0).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n + 1 < number))
    name = literal(prefix).concat(cast(numbers.c.n, String))
    random_id = func.lower(func.hex(func.randomblob(16)))
    now, queued, ended = types.now(), types.now(literal(-60)), types.now(literal(-50))
    merchant = {"name": name, "platform": "BYOP", "product_service_url": "https://shop.example", "disabled": False}
    sync = {"merchant": name, "id": random_id, "queued_at": queued}
    history = {
        "merchant": literal(prefix).concat(cast(numbers.c.n % 100 % number, String)),
        "finished_at": ended,
        "publication": "PUBLISHED",
    }
    for table, values in (
        (tables.merchants, {**merchant, "created_at": now, "updated_at": now}),
        (tables.syncs, {**sync, "entity_type": "PRODUCT", "status": "QUEUED"}),
        (
            tables.syncs,
            {**sync, **history, "entity_type": "COLLECTION", "status": "SUCCEEDED", "publication": "PUBLISHED"},
        ),
    ):
        rows = select(*(each if isinstance(each, ColumnElement) else literal(each) for each in values.values()))
        connection.execute(insert(table).from_select(list(values), rows.select_from(numbers)))


def plan(database: Database, work: Callable[..., Any], *arguments: Any) -> str:
    """Return SQLite's plans of all statements that `work` executes."""
    return plans(database, work, *arguments, of=(*QUERIES, "UPDATE", "DELETE", "INSERT"))


def test_a_claim_reads_the_oldest_rows_of_an_index(path: Path) -> None:
    """Neither the search for a sync nor the claim of one sorts the queue or the history."""
    with open_database(f"sqlite:///{path}") as database:
        for at_once in (1, 2):
            for found in (
                plan(database, claims.has_claimable, at_once),
                plan(database, claims.claim, "tester", 600.0, 5, at_once),
            ):
                assert "USING INDEX ix_syncs_queued (status=?)" in found, found
                assert "USING INDEX ix_syncs_in_progress (status=?)" in found, found
                assert "TEMP B-TREE" not in found.replace(OF_ONE_MERCHANT, ""), found
                assert not SCAN.search(found), found


# The lock of a merchant's active syncs, of which there are at most two.
OF_ONE_MERCHANT = """\
SEARCH syncs USING INDEX ix_syncs_of_merchant_and_status (merchant=? AND status=?)
USE TEMP B-TREE FOR ORDER BY"""


@pytest.mark.parametrize("merchant", [None, "merchant7"])
def test_lists_of_syncs_read_an_index_from_one_end(path: Path, merchant: str | None) -> None:
    """The monitor's list, with each filter, and a merchant's history."""
    with open_database(f"sqlite:///{path}") as database:
        for status in (None, *SyncStatus):
            found = plan(database, monitor.recent, merchant, EntityType.PRODUCT, status, None, 50)
            assert not SCAN.search(found), found
            assert found.count("ix_syncs_of_") == (5 if status is None else 1), found
        found = plan(database, syncs.history, "merchant7", None, None, None, 50)
        assert found.count("USING INDEX ix_syncs_latest") == 2, found
        assert "TEMP B-TREE" not in found, found


def test_what_many_ask_for_at_once_is_found_by_keys(path: Path) -> None:
    """A batch of PUTs, of reads by id, of reads of the latest, and those who wait."""
    with open_database(f"sqlite:///{path}") as database:
        ids = database.call(lambda connection: [row.id for row in connection.execute(text(OF_ONE))])
        keys = [("merchant7", each) for each in ids]
        wanted = [(f"merchant{n}", EntityType.PRODUCT) for n in range(5)]
        added = [(f"merchant{n}", EntityType.COLLECTION) for n in range(5)]
        looks = {
            "(merchant=? AND status=? AND entity_type=?)": plan(
                database, enqueue_many, [EnqueueRequest(*each) for each in (*wanted, *added)]
            ),
            "sqlite_autoindex_syncs_1": plan(database, syncs.get_many, keys)
            + plan(database, syncs.ended_among, keys, keys),
            "ix_syncs_latest": plan(database, catalog.states, wanted),
        }
    for index, found in looks.items():
        assert index in found, found
        assert not SCAN.search(found), found


OF_ONE = "SELECT id FROM syncs WHERE merchant = 'merchant7' LIMIT 5"


def test_pruning_begins_with_the_syncs_that_ended_first(path: Path) -> None:
    """And looks for a newer one of each by an index."""
    with open_database(f"sqlite:///{path}") as database:
        found = plan(database, syncs.prune, 0.0, 20)
    assert "ix_syncs_finished_at" in found, found
    assert not SCAN.search(found), found


def test_pages_and_removals_read_the_primary_key_of_the_catalog(path: Path) -> None:
    """A page of the catalog, a page of a pull, and the removal of what a pull did not see."""
    with open_database(f"sqlite:///{path}") as database:
        database.call(merchants.add, "new", Platform.BYOP, "https://shop.example")
        database.call(clear_queue)
        database.call(enqueue, "new", EntityType.PRODUCT)
        claim = database.call(claims.claim, "tester", 600.0, *RULES)
        assert claim is not None
        page = Page(tuple(Record(f"{n:04d}", "{}") for n in range(1000)), (), None, None)
        found = plan(database, catalog_write.write_page, claim, page, 600.0)
        found += plan(database, catalog.page, "new", EntityType.PRODUCT, "", 100)
        found += plan(database, catalog.find, "new", EntityType.PRODUCT, ["0001", "0002"])
        found += plan(database, catalog_removal.missing, claim, 10)
        found += plan(database, catalog_removal.count_missing, claim)
        found += plan(database, catalog_removal.remove_missing, claim, "", 1000)
        found += plan(database, catalog_removal.delete_seen, "new", 100)
    assert not SCAN.search(found), found


def clear_queue(connection: Connection) -> None:
    """End all that is queued, so that the next claim takes another sync."""
    connection.execute(text("UPDATE syncs SET status='CANCELLED', finished_at=queued_at WHERE status='QUEUED'"))


@pytest.mark.parametrize("rows", [1, 5, 20])
def test_no_statement_searches_a_list_and_then_a_range(sqlite_template: Path, tmp_path: Path, rows: int) -> None:
    """Of the same index: with statistics of a small database, SQLite 3.40 finds other rows as well (OP_SeekScan)."""
    path = shutil.copy(sqlite_template, tmp_path / "gateway.db")
    [recorded] = released_statements.FOLDER.glob("*.sqlite.jsonl")
    statements = {each.sql: each for each in map(released_statements.loaded, recorded.read_text().splitlines())}
    wrong = []
    with open_database(f"sqlite:///{path}") as database:

        def look(connection: Connection) -> None:
            set_statistics(connection, rows)
            for sql, statement in statements.items():
                values = statement.parameters[0]
                opcodes = {row.opcode for row in connection.exec_driver_sql(f"EXPLAIN {sql}", values)}
                searches = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)]
                if "SeekScan" in opcodes and any(re.search(r"=\? AND \w+[<>]", each) for each in searches):
                    wrong.append((sql, searches))

        database.call(look)
    assert len(statements) > 100
    assert not wrong, wrong


async def test_statistics_are_renewed_at_intervals_and_at_the_end(sqlite_template: Path, tmp_path: Path) -> None:
    """By the writer, and only by one that has written."""
    for interval, closes, renewed in ((0.0, False, True), (3600.0, False, False), (3600.0, True, True)):
        path = shutil.copy(sqlite_template, tmp_path / f"{interval}{closes}.db")
        with open_database(f"sqlite:///{path}") as database:
            writer = GroupCommit(database.engine.execution_options(**{BEGIN: Purpose(writes=True)}), interval)
            for name in ("first", "second"):
                in_flight = InFlight()
                item = WorkItem(partial(add, name=name), in_flight, Purpose(writes=True))
                added = in_flight.start(item, math.inf)
                writer.run(item)
                await added
            if closes:
                assert writer.close(time.monotonic() + 10)
            assert database.call(has_statistics) == renewed
            assert writer.close(time.monotonic() + 10)


def has_statistics(connection: Connection) -> bool:
    """Whether ANALYZE has run."""
    return inspect(connection).has_table("sqlite_stat1")


def add(connection: Connection, name: str) -> None:
    """A merchant."""
    merchants.add(connection, name, Platform.BYOP, "https://shop.example")
