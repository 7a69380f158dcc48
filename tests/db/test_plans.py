"""What PostgreSQL does for claims, removals and those who wait does not depend on when it last counted the rows."""

import re

import pytest
from sqlalchemy import Connection, insert, literal
from uuid_utils.compat import uuid7

from product_gateway.db import catalog, catalog_removal, catalog_write, claims, generations, syncs, tables, types
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import EnqueueRequest, enqueue, enqueue_many
from product_gateway.model.catalog import Page, Record
from product_gateway.model.syncs import Claim, EntityType
from tests.support import databases
from tests.support.plans import plans

MANY = 3000
ANALYZED = "EXPLAIN (ANALYZE)"
ROLLED_BACK = ("shop", EntityType.PRODUCT)
RULES = (5, 2)  # workers that a sync may lose, syncs of a merchant at once


@pytest.fixture
def url(postgresql_server: str, postgresql_template: str) -> str:
    """A database without automatic statistics."""
    url = databases.copy_of(postgresql_server, postgresql_template)
    for table in tables.metadata.tables:
        databases.run(url, f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    return url


def add(database: Database, *names: str) -> None:
    """Add merchants by one statement."""
    merchant = {"platform": "BYOP", "product_service_url": "https://shop.example", "disabled": False}
    statement = insert(tables.merchants).values(created_at=types.now(), updated_at=types.now())
    rows = [{**merchant, "name": each} for each in names]
    database.call(lambda connection: connection.execute(statement, rows))


def queue(connection: Connection, names: list[str]) -> None:
    """A sync of each merchant."""
    sync = {"entity_type": "PRODUCT", "status": "QUEUED"}
    statement = insert(tables.syncs).values(queued_at=types.now(literal(-60)))
    connection.execute(statement, [{**sync, "merchant": each, "id": uuid7()} for each in names])


def started(database: Database, merchant: str, records: int) -> Claim:
    """A sync that has read this many records."""
    database.call(enqueue, merchant, EntityType.PRODUCT)
    claim = database.call(claims.claim, "tester", 600.0, *RULES)
    assert claim is not None
    read = tuple(Record(f"{n:06d}", "{}") for n in range(records))
    database.call(catalog_write.write_page, claim, Page(read, (), None, None), 600.0)
    return claim


def most_rows(plan: str) -> int:
    """Return the largest number of rows that a node of an analyzed plan has read."""
    return max(int(each) for each in re.findall(r"(?:actual time=\S+ rows=|Rows Removed by Filter: )(\d+)", plan))


def test_a_claim_from_a_long_queue_sorts_nothing(url: str) -> None:
    """Of a queue that was empty a moment ago, the database knows nothing yet; and each claim must be quick."""
    with open_database(url) as database:
        names = [f"merchant{n}" for n in range(MANY)]
        add(database, *names[:20])
        database.call(queue, names[:20])
        for _ in range(20):
            claim = database.call(claims.claim, "tester", 600.0, *RULES)
            assert claim is not None
            database.call(generations.succeed, claim)
        databases.run(url, "ANALYZE")
        add(database, *names[20:])
        database.call(queue, names[20:])
        plan = plans(database, claims.claim, "tester", 600.0, *RULES)
    assert "ix_syncs_queued" in plan
    assert "Sort" not in plan


def test_what_many_ask_for_at_once_is_found_by_keys(url: str) -> None:
    """However long the history is: what is active, what was asked for by id, and what was asked for last."""
    with open_database(url) as database:
        names = [f"merchant{n}" for n in range(MANY)]
        add(database, *names[:20])
        ended = {"entity_type": "PRODUCT", "status": "SUCCEEDED", "publication": "PUBLISHED"}
        rows = [{**ended, "merchant": names[n % 20], "id": uuid7()} for n in range(MANY)]
        statement = insert(tables.syncs).values(queued_at=types.now(literal(-60)), finished_at=types.now())
        database.call(lambda connection: connection.execute(statement, rows))
        databases.run(url, "ANALYZE")
        wanted = [(name, EntityType.PRODUCT) for name in names[:5]]
        active = plans(
            database, enqueue_many, [EnqueueRequest(*each) for each in ((names[-1], EntityType.PRODUCT), *wanted)]
        )
        by_id = plans(database, syncs.get_many, [(rows[n]["merchant"], rows[n]["id"]) for n in range(5)])
        state = plans(database, catalog.states, wanted)
    for plan, index in ((active, "ux_syncs_one_active"), (by_id, "pk_syncs"), (state, "ix_syncs_latest")):
        assert index in plan, plan
        assert "Seq Scan on syncs" not in plan, plan


def test_the_states_of_many_keys_do_not_depend_on_their_history(url: str) -> None:
    """A row of each, however many keys there are."""
    with open_database(url) as database:
        names = [f"merchant{n}" for n in range(40)]
        add(database, *names)
        ended = {"entity_type": "PRODUCT", "status": "SUCCEEDED", "publication": "PUBLISHED"}
        rows = [{**ended, "merchant": names[n % 40], "id": uuid7()} for n in range(40 * 100)]
        statement = insert(tables.syncs).values(queued_at=types.now(literal(-60)), finished_at=types.now())
        database.call(lambda connection: connection.execute(statement, rows))
        for statistics in ("none", "whole"):
            for number in (1, 5, 20, 40):
                wanted = [(name, EntityType.PRODUCT) for name in names[:number]]
                plan = plans(database, catalog.states, wanted, by=ANALYZED)
                assert most_rows(plan) <= 64, f"{statistics}, {number}: {plan}"
            databases.run(url, "ANALYZE")


def test_those_who_wait_for_syncs_have_them_found_by_their_keys(url: str) -> None:
    """However long the history is: of a row of each key, and no other."""
    with open_database(url) as database:
        add(database, "shop")
        ended = {"merchant": "shop", "entity_type": "PRODUCT", "status": "SUCCEEDED", "publication": "PUBLISHED"}
        keys = [("shop", uuid7()) for _ in range(MANY)]
        statement = insert(tables.syncs).values(queued_at=types.now(literal(-60)), finished_at=types.now())
        database.call(lambda connection: connection.execute(statement, [{**ended, "id": each} for _, each in keys]))
        databases.run(url, "ANALYZE")
        plan = plans(database, syncs.ended_among, keys[:1], keys[-1:])
    assert plan.count("using pk_syncs on syncs") == 2, plan


def test_a_removal_never_compares_each_record_with_each_id(url: str) -> None:
    """With the counts of yesterday, a join of the two looks like one of a row with a row."""
    with open_database(url) as database:
        add(database, "other", "shop")
        database.call(generations.succeed, started(database, "other", 500))
        databases.run(url, "ANALYZE")
        database.call(generations.succeed, started(database, "shop", MANY + 1))
        claim = started(database, "shop", MANY)  # which lacks a record
        looked = plans(database, catalog_removal.count_missing, claim) + plans(
            database, catalog_removal.missing, claim, 10
        )
        plan = plans(database, catalog_removal.remove_missing, claim, "", 1000)
    assert "Nested Loop" not in looked + plan
    assert "record_id >=" in plan


def test_an_unchanged_page_and_a_small_rollback_read_no_other_records(url: str) -> None:
    """Where all records are of one generation, the planner expects any record to be of the generation it looks for."""
    ids = [f"{n:06d}" for n in range(100)]
    with open_database(url) as database:
        add(database, "shop")
        database.call(generations.succeed, started(database, "shop", MANY))
        databases.run(url, "ANALYZE")
        claim = started(database, "shop", 1)
        unchanged = plans(database, catalog_write.find_digests, claim, ids, by=ANALYZED)
        changed = Page((Record(ids[0], '"new"'),), (), "2", None)
        database.call(catalog_write.write_page, claim, changed, 600.0)
        written = plans(database, catalog_write.find_digests, claim, ids, by=ANALYZED)
        database.call(claims.fail, claim, "INVALID_PAGE", "No JSON.")
        undone = [plans(database, generations.roll_back, *ROLLED_BACK, claim.sync_id, 2000, by=ANALYZED) for _ in "ab"]
        assert database.call(generations.roll_back, *ROLLED_BACK, claim.sync_id, 2000)
    for plan in (unchanged, written, *undone):
        assert most_rows(plan) <= len(ids), plan
