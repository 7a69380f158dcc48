"""Each statement can be planned by a distributed PostgreSQL, where each merchant is on one machine: docs/scaling.md."""

import inspect
import re
import sys
from pathlib import Path
from types import CodeType, FrameType, ModuleType

import pytest
from sqlalchemy import ForeignKeyConstraint, UniqueConstraint

from product_gateway.db import (
    catalog,
    catalog_removal,
    catalog_write,
    changes,
    claims,
    distribute,
    enqueue,
    events,
    freshness,
    generations,
    merchants,
    monitor,
    reverts,
    sessions,
    syncs,
    tables,
    webhooks,
)
from product_gateway.db.database import open_database
from tests.support import databases
from tests.support.distributed_planner import DISTRIBUTED, is_of_one_merchant, refusals
from tests.tools import record_statements

MODULES = [catalog, catalog_removal, catalog_write, changes, claims, enqueue, events, freshness, generations]
MODULES += [merchants, monitor, reverts, sessions, syncs, webhooks]
SEVERAL_SHARDS = {
    "a batch of requests, each for its merchant: enqueue, reads by key, and clients that wait": re.compile(
        r"(WITH found AS \(SELECT anon_1\.merchant|SELECT) .* FROM unnest\(%\(sent_merchant\)s"
    ),
    "the latest syncs of a batch of requests": re.compile(r"SELECT .* FROM \(SELECT 0 AS place, "),
    "a claim looks for the oldest syncs of all merchants, and workers see who waits": re.compile(
        r"SELECT (syncs\.merchant|coalesce\(syncs\.released_at, ).* FROM syncs "
        r"WHERE syncs\.status = '(QUEUED|IN_PROGRESS)'"
    ),
    "operators see how much is active": re.compile(r"SELECT .* FROM syncs WHERE status IN \(.*\) GROUP BY"),
    "a worker looks for the messages to webhooks that are due first": re.compile(
        r"SELECT webhook_deliveries\.merchant, webhook_deliveries\.id, webhook_deliveries\.attempts\b.* "
        r"FROM webhook_deliveries WHERE webhook_deliveries\.next_attempt_at "
    ),
    "operators see how many messages wait": re.compile(
        r"SELECT count\(\*\) .* FROM \(SELECT .* FROM webhook_deliveries "
        r"WHERE webhook_deliveries\.next_attempt_at IS NOT NULL .* LIMIT"
    ),
    "a worker looks for stale catalogs, and operators see them": re.compile(
        r"SELECT .* FROM max_ages JOIN merchants ON .* WHERE max_ages\.stale_after <= .* LIMIT"
    ),
    "operators list all max ages": re.compile(
        r"SELECT max_ages\.merchant, max_ages\.entity_type, max_ages\.seconds FROM max_ages$"
    ),
    "old messages about catalogs are pruned": re.compile(
        r"SELECT webhook_deliveries\.merchant, webhook_deliveries\.id FROM webhook_deliveries "
        r"WHERE webhook_deliveries\.sync_id IS NULL .* LIMIT"
    ),
    "a worker looks for what failed syncs wrote": re.compile(
        r"SELECT catalog_counts\.merchant, catalog_counts\.entity_type, catalog_counts\.unpublished_sync FROM "
        r"catalog_counts LEFT OUTER JOIN syncs .* WHERE catalog_counts\.unpublished_sync IS NOT NULL .* LIMIT"
    ),
    "old generations are pruned": re.compile(r"SELECT .* FROM catalog_generations WHERE .*published_at < .* LIMIT"),
    "old syncs are pruned": re.compile(
        r"SELECT syncs\.merchant, syncs\.id FROM syncs WHERE syncs\.finished_at < .* LIMIT"
    ),
    "the monitor's overview: active syncs and failures": re.compile(
        r"SELECT (syncs\.lease_owner|syncs\.merchant|syncs\.queued_at).* FROM syncs "
        r"WHERE syncs\.status = '(QUEUED|IN_PROGRESS|FAILED)' .* LIMIT"
    ),
    "the monitor's overview: the oldest catalogs": re.compile(r"SELECT anon_1.* FROM catalog_counts .* JOIN merchants"),
    "the monitor's list of syncs": re.compile(r"SELECT anon_1\..* FROM \(SELECT anon_2\..* FROM syncs WHERE .* LIMIT"),
    "the readiness check names each column": re.compile(r"SELECT EXISTS \(.* WHERE false\)"),
}


@pytest.fixture(scope="module")
def said(postgresql_server: str, postgresql_template: str) -> tuple[list[str], set[CodeType]]:
    """Return all that the gateway says to PostgreSQL, each once and in one line, and the functions that said it."""
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    with open_database(databases.copy_of(postgresql_server, postgresql_template)) as database:
        sys.setprofile(note)
        try:
            return sorted({" ".join(each.sql.split()) for each in record_statements.said(database)}), called
        finally:
            sys.setprofile(None)


def functions(module: ModuleType) -> dict[str, CodeType]:
    """Return the module's functions that take a connection."""
    made = vars(module).values()
    mine = [each for each in made if inspect.isfunction(each) and each.__module__ == module.__name__]
    return {
        f"{module.__name__}.{each.__name__}": each.__code__
        for each in mine
        if next(iter(inspect.signature(each).parameters), "") == "connection"
    }


def test_every_function_of_the_database_is_recorded(said: tuple[list[str], set[CodeType]]) -> None:
    """A statement that is not recorded would not be checked."""
    sqlite, rare = "_attempt_sqlite", ("_due_of_each", "cancel_all")
    silent = {
        name
        for module in MODULES
        for name, code in functions(module).items()
        if code not in said[1] and not name.endswith((sqlite, *rare))
    }
    assert silent == set()


def test_a_distributed_planner_refuses_no_statement(said: tuple[list[str], set[CodeType]]) -> None:
    """On one machine or on several, it is the same code that runs."""
    batches = next(iter(SEVERAL_SHARDS.values()))
    found = {each: refused for each in said[0] if (refused := refusals(each))}
    enqueued = [found.pop(each) for each in list(found) if each.startswith("WITH") and batches.match(each)]
    assert found == {}
    # Citus runs it as an INSERT … SELECT of rows that it has collected before.
    assert enqueued == [["a modification of several merchants"]]


def test_what_is_about_several_merchants_only_reads(said: tuple[list[str], set[CodeType]]) -> None:
    """All else is sent to the one machine that has the merchant."""
    several = [each for each in said[0] if not is_of_one_merchant(each)]
    unexpected = [each for each in several if not any(known.match(each) for known in SEVERAL_SHARDS.values())]
    assert unexpected == []
    assert len(said[0]) > 150, "not all that there is was said"
    for why, known in SEVERAL_SHARDS.items():
        assert any(known.match(each) for each in several), f"no longer needed: {why}"


HERE = "merchant = %(m)s"
OLD = "SELECT merchant, entity_type FROM catalog_generations LIMIT 1"
LATEST = "SELECT s.id FROM syncs AS s WHERE s.merchant = anon_1.merchant ORDER BY s.queued_at DESC LIMIT 1"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT syncs.id FROM syncs WHERE syncs.status = 'QUEUED' LIMIT 1 FOR UPDATE SKIP LOCKED", "FOR UPDATE/SHARE"),
        ("SELECT merchants.name FROM merchants WHERE merchants.name = %(m)s FOR NO KEY UPDATE", "FOR UPDATE/SHARE"),
        (f"UPDATE syncs SET heartbeat_at=clock_timestamp() WHERE syncs.{HERE}", "must not be VOLATILE"),
        (f"SELECT syncs.id FROM syncs WHERE syncs.{HERE} ORDER BY random()", "must not be VOLATILE"),
        (f"UPDATE syncs SET id=%(i)s, started_at=coalesce(syncs.started_at, now()) WHERE syncs.{HERE}", "COALESCE"),
        (f"UPDATE syncs SET id=CASE WHEN now() > %(t)s THEN 1 END WHERE syncs.{HERE}", "CASE"),
        (
            f"DELETE FROM syncs WHERE syncs.{HERE} RETURNING syncs.id, statement_timestamp() AS as_of",
            "RETURNING clause",
        ),
        (
            f"UPDATE max_ages SET stale_after=(max_ages.since + make_interval(secs => 1)) WHERE max_ages.{HERE}",
            "STABLE",
        ),
        (
            "INSERT INTO webhooks (merchant) VALUES (%(m)s) ON CONFLICT (merchant) DO UPDATE SET gone_at = now()",
            "DO UPDATE",
        ),
        (f"SELECT syncs.id FROM unnest(%(x)s) AS anon_1(merchant) JOIN syncs ON syncs.id = ({LATEST})", "correlated"),
        (
            f"WITH first AS ({OLD}) SELECT (SELECT max(g.generation) FROM catalog_generations AS g "
            "WHERE g.merchant = first.merchant) FROM first",
            "correlated subqueries",
        ),
        (
            "SELECT s.id FROM (SELECT syncs.id AS id FROM syncs LIMIT 5) AS anon_1 JOIN syncs AS s ON s.id = 1",
            "complex",
        ),
        ("SELECT syncs.id FROM syncs JOIN webhooks ON syncs.id = webhooks.url", "complex joins"),
        (
            "SELECT syncs.id FROM unnest(%(x)s) AS anon_1(merchant) LEFT OUTER JOIN syncs "
            "ON syncs.merchant = anon_1.merchant",
            "read as a whole",
        ),
        (
            "SELECT r.id FROM syncs AS r WHERE (SELECT s.id FROM syncs AS s WHERE s.merchant = r.merchant LIMIT 1) = 1",
            "Limit in subquery",
        ),
        ("WITH RECURSIVE e AS (SELECT syncs.id FROM syncs) SELECT e.id FROM e", "recursive"),
        ("SELECT entity_type, count(*), now() FROM syncs GROUP BY entity_type", "beside an aggregate"),
        ("SELECT syncs.id FROM syncs EXCEPT SELECT webhooks.url FROM webhooks", "Intersect and Except"),
        ("DELETE FROM seen_records WHERE seen_records.sync_id = %(s)s", "several merchants"),
        ("UPDATE catalog_counts SET num_records = 1", "several merchants"),
        ("INSERT INTO syncs (id, merchant) VALUES (%(i)s, %(m)s)", "several merchants"),
        (f"UPDATE syncs SET merchant=%(o)s WHERE syncs.{HERE}", "partition value"),
        ("UPDATE merchants SET name = (SELECT url FROM webhooks)", None),
    ],
)
def test_a_statement_that_is_refused_is_found(sql: str, message: str | None) -> None:
    """By the rule that says so. Subqueries of modifications of the other tables are of no rule yet."""
    assert any((message or "") in each for each in refusals(sql)) == (message is not None)


def test_every_key_and_unique_index_starts_with_the_merchant() -> None:
    """So what is unique is so on the machine that has the merchant."""
    for table in tables.metadata.tables.values():
        if table.name not in DISTRIBUTED:
            continue
        unique = [list(index.columns) for index in table.indexes if index.unique]
        unique += [list(each.columns) for each in table.constraints if isinstance(each, UniqueConstraint)]
        for columns in [list(table.primary_key.columns), *unique]:
            assert columns[0].name == "merchant", f"{table.name}: {columns}"


def test_foreign_keys_lead_to_the_same_merchant_or_to_a_reference_table() -> None:
    """From a local or reference table to a distributed one, Citus has none."""
    for table in tables.metadata.tables.values():
        for key in table.constraints:
            if isinstance(key, ForeignKeyConstraint) and key.referred_table.name not in distribute.REFERENCE:
                assert table.name in DISTRIBUTED, f"{table.name}: {key.name}"
                assert (key.column_keys[0], key.elements[0].column.name) == ("merchant", "merchant")


def test_every_table_is_distributed_a_reference_table_or_of_the_coordinator() -> None:
    """A new table must be one of them."""
    kinds = [DISTRIBUTED, distribute.REFERENCE, distribute.LOCAL]
    for name in tables.metadata.tables:
        assert sum(name in kind for kind in kinds) == 1, name


def test_the_page_about_scaling_names_all_reads_of_several_shards() -> None:
    """What is about several merchants costs all machines something."""
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    for why in SEVERAL_SHARDS:
        assert why in " ".join(page.split()), why
