"""The checks of every poll and every scrape read few rows, however many messages to webhooks are pending."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from product_gateway.db import merchants, syncs, webhooks
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from tests.support import databases

MANY = 40_000
FEW_ROWS = 500  # in all nodes of a plan
FEW_STEPS = 20_000  # of SQLite's virtual machine; a scan of the backlog takes more than 200,000
MERCHANTS = ("big", "other", "small")

FILL = {
    "postgresql": (
        "INSERT INTO syncs (merchant, id, entity_type, status, queued_at, finished_at) "
        "SELECT 'big', gen_random_uuid(), 'PRODUCT', 'CANCELLED', now(), now() FROM generate_series(1, :many)",
        "INSERT INTO webhook_deliveries (merchant, id, sync_id, event, status, created_at, next_attempt_at) "
        "SELECT merchant, id, id, 'sync.cancelled', 'PENDING', now(), now() + interval '1 hour' FROM syncs "
        "WHERE merchant = 'big'",
    ),
    "sqlite": (
        "WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < :many) "
        "INSERT INTO syncs (merchant, id, entity_type, status, queued_at, finished_at) "
        "SELECT 'big', lower(hex(randomblob(16))), 'PRODUCT', 'CANCELLED', '2024-01-01 00:00:00.000000', "
        "'2024-01-01 00:00:00.000000' FROM series",
        "INSERT INTO webhook_deliveries (merchant, id, sync_id, event, status, created_at, next_attempt_at) "
        "SELECT merchant, id, id, 'sync.cancelled', 'PENDING', '2024-01-01 00:00:00.000000', "
        "strftime('%Y-%m-%d %H:%M:%f000', 'now', '+1 hour') FROM syncs",
    ),
}
DUE = {
    "postgresql": "UPDATE webhook_deliveries SET next_attempt_at = now() - interval '1 hour' WHERE merchant = 'big'",
    "sqlite": "UPDATE webhook_deliveries SET next_attempt_at = "
    "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-1 hour') WHERE merchant = 'big'",
}


BEFORE = (
    "INSERT INTO syncs (merchant, id, entity_type, status, queued_at, finished_at) "
    "SELECT 'small', gen_random_uuid(), 'PRODUCT', 'CANCELLED', now(), now() FROM generate_series(1, 2000)",
    "INSERT INTO webhook_deliveries (merchant, id, sync_id, event, status, created_at, finished_at) "
    "SELECT merchant, id, id, 'sync.cancelled', 'DELIVERED', now(), now() FROM syncs",
    "ANALYZE",
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "postgresql with the statistics of before"])
def backlog(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database in which one merchant has MANY pending messages, none of them due."""
    dialect = request.param.split()[0]
    if dialect == "postgresql":
        server, template = (request.getfixturevalue(f"postgresql_{each}") for each in ("server", "template"))
        url = databases.copy_of(server, template)
    else:
        path = tmp_path_factory.mktemp("backlog") / "gateway.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        url = f"sqlite:///{path}"
    with open_database(url) as database:
        for each in MERCHANTS:
            database.call(merchants.add, each, Platform.BYOP, "https://shop.example")
            database.call(webhooks.put, each, url="https://receiver.example", secret="encrypted")
        if request.param != dialect:
            for each in BEFORE:
                databases.run(url, each)
        for each in FILL[dialect]:
            database.call(lambda connection, said: connection.execute(text(said), {"many": MANY}), each)
        yield database


class Undo(Exception):
    """So that a claim leaves no trace."""


def effort(database: Database, work: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """Return the result of `work` and the rows (PostgreSQL) or steps (SQLite) that its queries take, then undo it."""
    count = _rows if database.engine.dialect.name == "postgresql" else _steps
    found: list[Any] = []

    def look(connection: Connection) -> None:
        with count(connection, found):
            found.append(work(connection, *arguments))
        raise Undo

    with pytest.raises(Undo):
        database.call(look)
    return found[-1], sum(found[:-1])


@contextmanager
def _rows(connection: Connection, found: list[Any]) -> Iterator[None]:
    def explain(_: Any, cursor: Any, statement: str, values: Any, *__: Any) -> None:
        if statement.startswith(("SELECT", "WITH")):
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
            (plan,) = cursor.fetchone()
            found.append(_visited((plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"]))

    event.listen(connection, "before_cursor_execute", explain)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", explain)


def _visited(node: dict[str, Any]) -> int:
    filtered = sum(value for name, value in node.items() if name.startswith("Rows Removed by"))
    here = (node["Actual Rows"] + filtered) * max(1, node["Actual Loops"])
    return int(here + sum(_visited(each) for each in node.get("Plans", [])))


@contextmanager
def _steps(connection: Connection, found: list[Any]) -> Iterator[None]:
    raw: Any = connection.connection.dbapi_connection

    def step() -> int:
        found.append(100)
        return 0

    raw.set_progress_handler(step, 100)
    try:
        yield
    finally:
        raw.set_progress_handler(None, 0)


def is_few(database: Database, effort: int) -> bool:
    """Whether the effort does not depend on the backlog."""
    return effort <= (FEW_ROWS if database.engine.dialect.name == "postgresql" else FEW_STEPS)


def test_the_checks_do_not_depend_on_the_backlog(backlog: Database) -> None:
    """None is due; all are due; their merchant is busy; another merchant's message is due as well."""
    for busy in ((), ("big",), MERCHANTS):
        assert effort(backlog, webhooks.has_due, busy)[0] is False
        assert is_few(backlog, effort(backlog, webhooks.has_due, busy)[1])
    backlog.call(lambda connection: connection.execute(text(DUE[backlog.engine.dialect.name])))
    for busy, due in (((), True), (("other",), True), (("big",), False), (MERCHANTS, False)):
        found, rows = effort(backlog, webhooks.has_due, busy)
        assert found is due
        assert is_few(backlog, rows), rows
        claimed, rows = effort(backlog, webhooks.claim, 60.0, busy)
        assert (claimed is not None) is due
        assert is_few(backlog, rows), rows
    backlog.call(end_sync, "small")
    claimed, rows = effort(backlog, webhooks.claim, 60.0, ("big",))
    assert claimed is not None
    assert claimed[0].merchant == "small"
    assert is_few(backlog, rows), rows


def test_a_scrape_counts_up_to_a_limit(backlog: Database) -> None:
    """And finds the oldest message by an index."""
    found, rows = effort(backlog, webhooks.pending)
    assert found.count == webhooks.MOST_COUNTED
    assert rows < 30 * webhooks.MOST_COUNTED, rows


def end_sync(connection: Connection, merchant: str) -> None:
    """A sync ends, and its message is due at once."""
    enqueue(connection, merchant, EntityType.PRODUCT)
    syncs.cancel(connection, merchant, EntityType.PRODUCT)
