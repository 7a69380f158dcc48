"""PUT and claim with a long history: ten million past syncs compared with a thousand.

The database generates the history in one statement, in the shape of a busy year: many merchants, both entity types, all
ended. The benchmark times the gateway's own functions in their own transactions, alternating between both databases, so
that only the history differs.
"""

import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

from rounds import ROUNDS, Chart, Row, Section, Values, row
from sqlalchemy import text
from stores import DIALECTS, NAMES, store

from product_gateway.db import claims, merchants, syncs
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType

FEW = 1000
WANTED = 10_000_000  # what the targets are about: with fewer there is no verdict
MANY = int(os.environ.get("BENCH_PAST_SYNCS", WANTED))
TARGETS = (1.2, 1.05) if MANY >= WANTED else (None, None)
SYNCS_OF_A_MERCHANT = 500
CALLS = 200  # in a round
_COLUMNS = (
    "merchant, id, entity_type, status, publication, queued_at, started_at, finished_at, attempt, records_read, created"
)
_PAST = {
    "sqlite": f"""
        WITH RECURSIVE past (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM past WHERE n + 1 < :count)
        INSERT INTO syncs ({_COLUMNS})
        SELECT printf('past%06d', n / {SYNCS_OF_A_MERCHANT}),
            printf('%012x', 1700000000000 + n) || '7000' || printf('%016x', 9223372036854775807 & (n * 2654435761)),
            CASE n % 2 WHEN 0 THEN 'PRODUCT' ELSE 'COLLECTION' END, 'SUCCEEDED', 'PUBLISHED',
            strftime('%Y-%m-%d %H:%M:%f000', 1700000000 + n, 'unixepoch'),
            strftime('%Y-%m-%d %H:%M:%f000', 1700000001 + n, 'unixepoch'),
            strftime('%Y-%m-%d %H:%M:%f000', 1700000002 + n, 'unixepoch'), 1, 500, 500
        FROM past""",
    "postgresql": f"""
        INSERT INTO syncs ({_COLUMNS})
        SELECT 'past' || lpad((n / {SYNCS_OF_A_MERCHANT})::text, 6, '0'), gen_random_uuid(),
            CASE n % 2 WHEN 0 THEN 'PRODUCT' ELSE 'COLLECTION' END, 'SUCCEEDED', 'PUBLISHED',
            to_timestamp(1700000000 + n), to_timestamp(1700000001 + n), to_timestamp(1700000002 + n), 1, 500, 500
        FROM generate_series(0, :count - 1) AS n""",
}
_MERCHANTS = {
    "sqlite": """
        WITH RECURSIVE each (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM each WHERE n < :count)
        INSERT INTO merchants (name, platform, disabled, created_at, updated_at)
        SELECT printf('past%06d', n), 'BENTO', false, '2023-01-01 00:00:00.000000', '2023-01-01 00:00:00.000000'
        FROM each""",
    "postgresql": """
        INSERT INTO merchants (name, platform, disabled, created_at, updated_at)
        SELECT 'past' || lpad(n::text, 6, '0'), 'BENTO', false, now(), now()
        FROM generate_series(0, :count) AS n""",
}


def run() -> Section:
    """Run the section on both databases."""
    rows: list[Row] = []
    charts: dict[str, Values] = {}
    for dialect in DIALECTS:
        found = measured(dialect)
        for what, values in found.items():
            long, short = values[f"{MANY:,}"], values[f"{FEW:,}"]
            charts[f"{NAMES[dialect]}, {what}"] = values
            label = f"{NAMES[dialect]}: {what} at {MANY:,} past syncs against {FEW:,}"
            rows.append(row(label, long, short, *TARGETS, at_most=True))
    said = f"Medians of {CALLS} calls in each round; a PUT is accepted, and its sync is claimed next."
    return Section("history", "A long history", rows, [Chart("A call", "ms", charts)], [said])


def measured(dialect: str) -> dict[str, Values]:
    """Return the milliseconds of a PUT's write and of a claim, by the number of past syncs."""
    found: dict[str, Values] = {"PUT": {}, "claim": {}}
    with ExitStack() as open_until_the_end:
        databases = {}
        for past in (FEW, MANY):
            database = open_until_the_end.enter_context(open_database(open_until_the_end.enter_context(store(dialect))))
            fill(database, past)
            databases[f"{past:,}"] = database
        for number in range(ROUNDS + 1):  # the first one warms up
            for name, database in databases.items():
                for what, milliseconds in one_round(database).items():
                    if number:
                        found[what].setdefault(name, []).append(milliseconds)
    return found


def fill(database: Database, past: int) -> None:
    """Insert `past` ended syncs and their merchants."""
    dialect = database.engine.dialect.name
    with database.engine.begin() as connection:
        connection.execute(text(_MERCHANTS[dialect]), {"count": past // SYNCS_OF_A_MERCHANT})
        connection.execute(text(_PAST[dialect]), {"count": past})
    with closing(database.engine.raw_connection()) as connection:  # in no transaction: VACUUM takes none
        connection.cursor().execute(
            "PRAGMA wal_checkpoint(TRUNCATE)" if dialect == "sqlite" else "VACUUM ANALYZE syncs"
        )
    database.call(merchants.add, "shop", Platform.BYOP, "https://shop.example")


def one_round(database: Database) -> dict[str, float]:
    """Repeat a PUT, its claim and its cancel."""
    taken: dict[str, list[float]] = {"PUT": [], "claim": []}

    def clock(what: str, work: Callable[[], object]) -> None:
        started = time.perf_counter()
        if work() is None:
            raise RuntimeError(f"{what} did nothing")
        taken[what].append((time.perf_counter() - started) * 1000)

    for _ in range(CALLS):
        clock("PUT", lambda: database.call(enqueue, "shop", EntityType.PRODUCT))
        clock("claim", lambda: database.call(claims.claim, "bench", 60.0, 5, 2))
        database.call(syncs.cancel, "shop", EntityType.PRODUCT)
    return {what: statistics.median(each) for what, each in taken.items()}
