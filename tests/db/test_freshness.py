"""Max ages: a catalog that was not published in time is stale, and each lapse has one message."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Connection, bindparam, text, update

from product_gateway.db import (
    catalog,
    claims,
    freshness,
    generations,
    merchants,
    monitor,
    tables,
    types,
    webhooks,
)
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType, SyncStatus
from tests.support.databases import url_of
from tests.support.max_ages import set_back
from tests.support.plans import plans

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
HOUR = 3600
ALL = 100  # more than there are
MANY = 50_000
SCANS = re.compile(
    r'^SCAN (max_ages|catalog_counts|merchants)|"Seq Scan"[^{}]*"(max_ages|catalog_counts|merchants)"', re.M
)
EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN (FORMAT JSON)"}
FILL = {
    "postgresql": (
        "INSERT INTO merchants (name, platform, product_service_url, disabled, created_at, updated_at) "
        f"SELECT 'm' || n, 'BYOP', 'https://x.example', false, now(), now() FROM generate_series(1, {MANY}) n",
        "INSERT INTO catalog_counts (merchant, entity_type, num_records, updated_at) "
        "SELECT name, 'PRODUCT', 1, now() FROM merchants",
        "INSERT INTO max_ages (merchant, entity_type, seconds, since, stale_after) "
        "SELECT name, 'PRODUCT', 3600, now(), now() + interval '1 hour' FROM merchants",
    ),
    "sqlite": (
        f"WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {MANY}) "
        "INSERT INTO merchants (name, platform, product_service_url, disabled, created_at, updated_at) "
        "SELECT 'm' || n, 'BYOP', 'https://x.example', 0, '2024-01-01 00:00:00', '2024-01-01 00:00:00' FROM series",
        "INSERT INTO catalog_counts (merchant, entity_type, num_records, updated_at) "
        "SELECT name, 'PRODUCT', 1, strftime('%Y-%m-%d %H:%M:%f000', 'now') FROM merchants",
        "INSERT INTO max_ages (merchant, entity_type, seconds, since, stale_after) "
        "SELECT name, 'PRODUCT', 3600, '2024-01-01 00:00:00', strftime('%Y-%m-%d %H:%M:%f000', 'now', '+1 hour') "
        "FROM merchants",
    ),
}


DELIVERED = {
    "postgresql": (
        "INSERT INTO syncs (merchant, id, entity_type, status, queued_at, finished_at) "
        "SELECT 'shop', gen_random_uuid(), 'PRODUCT', 'CANCELLED', now(), now() FROM generate_series(1, 5000)",
        "INSERT INTO webhook_deliveries (merchant, id, sync_id, event, status, created_at, finished_at) "
        "SELECT merchant, id, id, 'sync.cancelled', 'DELIVERED', now(), now() FROM syncs",
        "ANALYZE",
    ),
    "sqlite": (),
}


def published(database: Database, ago: float, merchant: str = "shop", entity_type: EntityType = PRODUCT) -> None:
    """Let a sync succeed, and move its end back in time."""
    database.call(enqueue, merchant, entity_type)
    claim = database.call(claims.claim, "tester", 600.0, 5, 2)
    assert claim is not None
    database.call(generations.succeed, claim)
    counts = tables.catalog_counts
    this = (counts.c.merchant == merchant) & (counts.c.entity_type == entity_type)
    moved = update(counts).where(this).values(updated_at=types.now(bindparam("by")))

    def move(connection: Connection) -> None:
        connection.execute(moved, {"by": -ago})
        freshness.published(connection, merchant, entity_type)

    database.call(move)


def put(database: Database, seconds: int | None, merchant: str = "shop", entity_type: EntityType = PRODUCT) -> None:
    """Set a max age."""
    database.call(freshness.put, merchant, {entity_type: seconds})


def register(database: Database, merchant: str = "shop") -> None:
    """Register a webhook of the merchant."""
    database.call(webhooks.put, merchant, url="https://receiver.example/hook", secret="encrypted")


def messages(database: Database, merchant: str = "shop") -> list[Any]:
    """Return the messages about stale catalogs, newest first."""
    return [each for each in database.call(webhooks.latest, merchant, ALL) if each.event == "catalog.stale"]


def stale_after(database: Database, entity_type: EntityType) -> datetime | None:
    """Return when the catalog becomes stale, as clients see it."""
    (found,) = database.call(catalog.states, [("shop", entity_type)])
    assert isinstance(found, tuple)
    return found[0].stale_after


def check(database: Database) -> int:
    """Check all catalogs as a worker does, and return the number of changes."""
    return database.call(freshness.mark, ALL) if database.call(freshness.has_due) else 0


def test_a_catalog_is_stale_when_it_was_not_published_within_its_max_age(database: Database) -> None:
    """The age counts from the last successful sync."""
    published(database, 2 * HOUR)
    published(database, 2 * HOUR, entity_type=COLLECTION)
    put(database, 3 * HOUR)
    put(database, HOUR, entity_type=COLLECTION)
    found = database.call(freshness.of_merchant, "shop")
    assert {entity_type: (age.seconds, age.is_stale) for entity_type, age in found.items()} == {
        PRODUCT: (3 * HOUR, False),
        COLLECTION: (HOUR, True),
    }
    for entity_type, age in found.items():
        assert stale_after(database, entity_type) == age.stale_after
    assert database.call(freshness.count_stale) == {PRODUCT: 0, COLLECTION: 1}
    assert database.call(freshness.of_all) == {"shop": {PRODUCT: 3 * HOUR, COLLECTION: HOUR}}


def test_a_catalog_without_a_max_age_is_never_stale(database: Database) -> None:
    """Nothing changes for merchants without the setting."""
    register(database)
    published(database, 1000 * HOUR)
    put(database, HOUR)
    put(database, None)
    assert (stale_after(database, PRODUCT), database.call(freshness.of_merchant, "shop")) == (None, {})
    assert (check(database), messages(database)) == (0, [])


def test_the_age_of_a_catalog_that_was_never_published_counts_from_the_setting(database: Database) -> None:
    """Otherwise every new merchant would be stale at once. A change of the max age does not restart it."""
    register(database)
    put(database, HOUR)
    assert check(database) == 0
    set_back(database, HOUR + 1)
    put(database, HOUR // 2)
    assert check(database) == 1
    (message,) = messages(database)
    assert (message.entity_type, message.published_at, message.sync_id) == (PRODUCT, None, None)
    age = database.call(freshness.of_merchant, "shop")[PRODUCT]
    assert message.stale_after == age.stale_after


def test_each_lapse_has_one_message(database: Database) -> None:
    """The second comes only after the catalog was fresh in between."""
    register(database)
    published(database, 2 * HOUR)
    put(database, HOUR)
    assert [check(database) for _ in range(3)] == [1, 0, 0]
    published(database, 0)
    assert check(database) == 0
    assert database.call(freshness.count_stale)[PRODUCT] == 0
    set_back(database, HOUR + 1)
    assert [check(database) for _ in range(2)] == [1, 0]
    assert len(messages(database)) == 2


def test_a_lapse_that_no_worker_saw_end_is_another_lapse(database: Database) -> None:
    """All workers may have been stopped while the catalog was fresh."""
    register(database)
    published(database, 2 * HOUR)
    put(database, HOUR)
    check(database)
    published(database, 0)
    set_back(database, HOUR + 1)
    assert [check(database) for _ in range(2)] == [1, 0]
    newest, older = messages(database)
    assert newest.stale_after - newest.published_at == older.stale_after - older.published_at
    assert newest.published_at > older.published_at


def test_a_failed_sync_does_not_make_a_catalog_fresh(database: Database) -> None:
    """The reason why a catalog was not published does not matter."""
    register(database)
    published(database, 2 * HOUR)
    put(database, HOUR)
    database.call(enqueue, "shop", PRODUCT)
    claim = database.call(claims.claim, "tester", 600.0, 5, 2)
    assert claim is not None
    database.call(claims.fail, claim, "INVALID_PAGE", "No JSON.")
    database.call(enqueue, "shop", PRODUCT)
    assert check(database) == 1
    assert len(messages(database)) == 1


def test_a_new_max_age_ends_a_lapse_only_if_the_catalog_is_fresh_by_it(database: Database) -> None:
    """Otherwise each change of the setting would send a message."""
    register(database)
    published(database, 3 * HOUR)
    put(database, 2 * HOUR)
    check(database)
    put(database, HOUR)
    assert (check(database), len(messages(database))) == (0, 1)
    put(database, 4 * HOUR)
    assert (check(database), len(messages(database))) == (0, 1)
    set_back(database, 2 * HOUR)
    assert (check(database), len(messages(database))) == (1, 2)


def test_workers_at_the_same_time_send_one_message_for_each_lapse(database: Database) -> None:
    """Each worker checks all catalogs."""
    names = [f"merchant{n}" for n in range(40)]
    for name in names:
        database.call(merchants.add, name, Platform.BYOP, "https://shop.example")
        register(database, name)
        put(database, HOUR, name)
    set_back(database, 2 * HOUR)
    together = Barrier(4)
    url = url_of(database)

    def work(_: int) -> int:
        done = 0
        with open_database(url) as own:
            together.wait(30)
            while own.call(freshness.has_due):
                done += own.call(freshness.mark, 3)
        return done

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == len(names)
    assert [len(messages(database, name)) for name in names] == [1] * len(names)


def test_a_crash_between_mark_and_message_leaves_both_undone(database: Database) -> None:
    """They are written in one transaction, so that no message is lost."""
    register(database)
    put(database, HOUR)
    set_back(database, 2 * HOUR)

    def die(connection: Connection) -> None:
        assert freshness.mark(connection, ALL) == 1
        raise KeyError("the process ends here")

    with pytest.raises(KeyError):
        database.call(die)
    assert messages(database) == []
    assert (check(database), len(messages(database))) == (1, 1)


def test_a_merchant_without_a_webhook_has_no_message_about_an_old_lapse(database: Database) -> None:
    """A webhook that is registered or enabled later hears of later lapses."""
    put(database, HOUR)
    put(database, HOUR, "other")
    register(database, "other")
    database.call(webhooks.disable_gone, _sent(database, "other"), "https://receiver.example/hook", 410, "Gone.")
    set_back(database, 2 * HOUR)
    assert check(database) == 2
    for merchant in ("shop", "other"):
        register(database, merchant)
    assert check(database) == 0
    assert (messages(database), messages(database, "other")) == ([], [])
    assert database.call(freshness.count_stale)[PRODUCT] == 2, "operators see it all the same"


def _sent(database: Database, merchant: str) -> Any:
    database.call(enqueue, merchant, COLLECTION)
    claim = database.call(claims.claim, "tester", 600.0, 5, 2)
    assert claim is not None
    database.call(claims.fail, claim, "INVALID_PAGE", "No JSON.")
    found = database.call(webhooks.claim, 60.0, ())
    assert found is not None
    return found[0]


@pytest.mark.parametrize("refused", [{"disabled": True}, {"platform": Platform.BENTO}], ids=str)
def test_a_merchant_who_is_refused_has_no_stale_catalog(database: Database, refused: dict[str, Any]) -> None:
    """It cannot be synced. When the merchant may use the API again, it is stale as before."""
    register(database)
    put(database, HOUR)
    database.call(merchants.update_merchant, "shop", **refused)
    set_back(database, 2 * HOUR)
    assert not database.call(freshness.of_merchant, "shop")[PRODUCT].is_stale
    assert (database.call(freshness.count_stale)[PRODUCT], database.call(freshness.stale, 8)) == (0, [])
    assert (check(database), messages(database)) == (0, [])
    database.call(merchants.update_merchant, "shop", disabled=False, platform=Platform.BYOP)
    assert (check(database), len(messages(database))) == (1, 1)


def test_a_check_is_bounded(database: Database) -> None:
    """So that its transaction is short, however many catalogs are stale."""
    for entity_type in EntityType:
        put(database, HOUR, entity_type=entity_type)
        put(database, 2 * HOUR, "other", entity_type)
    set_back(database, 3 * HOUR)
    assert [database.call(freshness.mark, 3) for _ in range(3)] == [3, 1, 0]


def test_operators_see_the_longest_stale_first_with_their_latest_sync(database: Database) -> None:
    """The latest sync is the reason."""
    published(database, 5 * HOUR)
    published(database, 4 * HOUR, "other")
    put(database, HOUR)
    put(database, 2 * HOUR, "other")
    put(database, 10 * HOUR, "other", COLLECTION)
    database.call(enqueue, "other", PRODUCT)
    assert database.call(freshness.count_stale)[PRODUCT] == 2, "also where no worker runs"
    first, second = database.call(freshness.stale, 8)
    assert (first.merchant, first.latest and first.latest.status) == ("shop", SyncStatus.SUCCEEDED)
    assert (second.merchant, second.latest and second.latest.status) == ("other", SyncStatus.QUEUED)
    assert (second.max_age, second.stale_after > first.stale_after) == (2 * HOUR, True)
    assert [each.merchant for each in database.call(freshness.stale, 1)] == ["shop"]
    seen = database.call(monitor.overview)
    assert ([each.merchant for each in seen.stale], seen.stale_in_all) == (["shop", "other"], 2)


def test_a_max_age_goes_with_its_merchant(database: Database) -> None:
    """And its messages."""
    register(database)
    put(database, HOUR)
    set_back(database, 2 * HOUR)
    check(database)
    database.call(merchants.remove, "shop")
    assert (database.call(freshness.of_all), messages(database)) == ({}, [])


def test_old_messages_about_catalogs_are_pruned(database: Database) -> None:
    """They belong to no sync with which they would be deleted. Pending ones stay."""
    for merchant in ("shop", "other"):
        register(database, merchant)
        put(database, HOUR, merchant)
    set_back(database, 2 * HOUR)
    check(database)
    found = database.call(webhooks.claim, 60.0, ())
    assert found is not None
    assert database.call(webhooks.succeed, found[0], 200)
    assert database.call(webhooks.prune, 1.0, ALL) == 0
    assert [database.call(webhooks.prune, -1.0, ALL) for _ in range(2)] == [1, 0]
    assert len(messages(database)) + len(messages(database, "other")) == 1


def test_a_check_of_many_catalogs_reads_an_index(database: Database) -> None:
    """It runs in every worker, and with every scrape. PostgreSQL has statistics soon after the first rows."""
    dialect = database.engine.dialect.name
    for each in FILL[dialect]:
        database.call(lambda connection, said: connection.execute(text(said)), each)
    works: tuple[tuple[Any, ...], ...] = (
        (freshness.has_due,),
        (freshness.mark, ALL),
        (freshness.count_stale,),
        (freshness.stale, 8),
    )
    for has_statistics in (False, True) if dialect == "sqlite" else (True,):
        if has_statistics:
            database.call(lambda connection: connection.execute(text("ANALYZE")))
        for work, *arguments in works:
            plan = plans(database, work, *arguments, by=EXPLAIN[dialect])
            assert "ix_max_ages_" in plan, plan
            assert not SCANS.search(plan), plan
    for each in DELIVERED[dialect]:
        database.call(lambda connection, said: connection.execute(text(said)), each)
    assert "ix_webhook_deliveries_without_sync" in plans(database, webhooks.prune, 1.0, ALL, by=EXPLAIN[dialect])
