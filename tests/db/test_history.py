"""Cancel, idempotency keys, history and retention: what clients and operators do to syncs."""

import asyncio
import random
from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from product_gateway.db import claims, generations, merchants, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import EnqueueRequest, enqueue, enqueue_many
from product_gateway.errors import InvalidRequest, LeaseLost, NoActiveSync, SyncAlreadyActive, SyncNotFound
from product_gateway.model.catalog import Page, Rejection
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import Claim, Counts, EntityType, Sync, SyncStatus

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
LEASE = 30.0
RULES = (3, 2)  # workers that a sync may lose, syncs of a merchant at once


def claim(database: Database, lease: float = LEASE, rules: tuple[int, int] = RULES) -> Claim:
    """Claim the next sync."""
    found = database.call(claims.claim, "tester", lease, *rules)
    assert found is not None
    return found


def run(database: Database, merchant: str = "shop", entity_type: EntityType = PRODUCT) -> UUID:
    """Run a sync that succeeds at once."""
    sync = database.call(enqueue, merchant, entity_type)
    database.call(generations.succeed, claim(database))
    return sync.id


def everything(database: Database, size: int, *filters: EntityType | SyncStatus | None) -> list[Sync]:
    """Return the whole history, page by page."""
    found: list[Sync] = []
    entity_type, status = filters or (None, None)
    before: syncs.Place | None = None
    while True:
        page, before = database.call(syncs.history, "shop", entity_type, status, before, size)  # type: ignore[arg-type]
        found += page
        if before is None:
            return found


@pytest.mark.parametrize("in_progress", [False, True])
def test_cancelling_ends_the_active_sync_at_once(database: Database, in_progress: bool) -> None:
    """Another sync may be enqueued, and the cancelled one never runs again."""
    sync = database.call(enqueue, "shop", PRODUCT)
    held = claim(database) if in_progress else None
    cancelled = database.call(syncs.cancel, "shop", PRODUCT)
    assert (cancelled.id, cancelled.status) == (sync.id, SyncStatus.CANCELLED)
    assert cancelled.finished_at is not None
    assert database.call(claims.claim, "tester", LEASE, *RULES) is None
    if held is not None:
        for write, arguments in ((claims.heartbeat, (LEASE,)), (generations.succeed, ()), (claims.hand_back, ())):
            with pytest.raises(LeaseLost):
                database.call(write, held, *arguments)
    assert database.call(enqueue, "shop", PRODUCT).id != sync.id


def test_cancelling_without_an_active_sync_is_refused(database: Database) -> None:
    """A sync of another merchant or type, or an ended one, is not cancelled."""
    run(database, entity_type=PRODUCT)
    database.call(enqueue, "shop", COLLECTION)
    database.call(enqueue, "other", PRODUCT)
    with pytest.raises(NoActiveSync):
        database.call(syncs.cancel, "shop", PRODUCT)
    assert database.call(syncs.cancel, "other", PRODUCT).merchant == "other"
    with pytest.raises(NoActiveSync):
        database.call(syncs.cancel, "other", PRODUCT)


def test_the_same_idempotency_key_returns_the_same_sync(database: Database) -> None:
    """A client that retries a lost request must neither get 429 nor start a second sync."""
    first = database.call(enqueue, "shop", PRODUCT, "key")
    assert database.call(enqueue, "shop", PRODUCT, "key").id == first.id
    database.call(generations.succeed, claim(database))
    again = database.call(enqueue, "shop", PRODUCT, "key")
    assert (again.id, again.status) == (first.id, SyncStatus.SUCCEEDED)
    assert database.call(enqueue, "shop", PRODUCT, "another").id != first.id


def test_a_new_key_is_refused_while_a_sync_is_active(database: Database) -> None:
    """The key does not bypass the one-active rule, and a refusal does not use it up."""
    first = database.call(enqueue, "shop", PRODUCT, "first")
    with pytest.raises(SyncAlreadyActive):
        database.call(enqueue, "shop", PRODUCT, "second")
    database.call(syncs.cancel, "shop", PRODUCT)
    assert database.call(enqueue, "shop", PRODUCT, "second").id != first.id


def test_a_key_stands_for_one_entity_type_of_one_merchant(database: Database) -> None:
    """The key of another entity type is refused; other merchants have their own keys."""
    database.call(enqueue, "shop", PRODUCT, "key")
    with pytest.raises(InvalidRequest, match="PRODUCT already"):
        database.call(enqueue, "shop", COLLECTION, "key")
    assert database.call(enqueue, "other", COLLECTION, "key").entity_type is COLLECTION


@pytest.mark.parametrize(("first", "second"), [("AUTOMATIC", "MANUAL"), ("MANUAL", "AUTOMATIC")])
def test_a_key_stands_for_one_way_to_publish(first: str, second: str, database: Database) -> None:
    """A client that wants to review a result must not be handed a sync that publishes it, in any state."""
    requests = [EnqueueRequest("shop", PRODUCT, "key", publish=each) for each in (first, second)]
    (made,) = database.call(enqueue_many, requests[:1])
    (again, refused) = database.call(enqueue_many, requests)
    assert isinstance(made, Sync)
    assert isinstance(again, Sync)
    assert again.id == made.id
    assert isinstance(refused, InvalidRequest)
    assert f"a sync of PRODUCT with publish={first.lower()} already" in refused.detail
    database.call(generations.succeed, claim(database))
    assert isinstance(database.call(enqueue_many, requests[1:])[0], InvalidRequest)


async def test_many_requests_with_one_key_are_one_sync(database: Database) -> None:
    """Concurrent requests lead to the same sync."""
    found = await asyncio.gather(*[database.write(enqueue, "shop", PRODUCT, "key") for _ in range(40)])
    assert len({each.id for each in found}) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_history_is_newest_first_and_complete(database: Database, size: int) -> None:
    """It is complete for every page size, and has only the merchant's own syncs."""
    ids = [run(database, entity_type=each) for each in (PRODUCT, COLLECTION, PRODUCT, PRODUCT, COLLECTION)]
    run(database, "other")
    assert [each.id for each in everything(database, size)] == ids[::-1]
    assert [each.id for each in everything(database, size, COLLECTION, None)] == [ids[4], ids[1]]


def test_the_history_can_be_asked_for_one_status(database: Database) -> None:
    """Operators look for failed syncs."""
    run(database)
    database.call(enqueue, "shop", PRODUCT)
    held = claim(database)
    database.call(claims.fail, held, "INVALID_PAGE", "No JSON.")
    assert [each.id for each in everything(database, 10, None, SyncStatus.FAILED)] == [held.sync_id]
    assert everything(database, 10, COLLECTION, SyncStatus.FAILED) == []


def age(database: Database, change: str) -> None:
    """Move the ends of syncs into the past."""
    sqlite = database.engine.dialect.name == "sqlite"
    old = "datetime(finished_at, '-100 days')" if sqlite else "finished_at - interval '100 days'"
    database.call(lambda connection: connection.execute(text(f"UPDATE syncs SET finished_at = {old} WHERE {change}")))


def test_old_syncs_are_pruned_with_all_their_rows(database: Database) -> None:
    """Except the latest of each entity type: the status that clients ask for refers to it."""
    database.call(enqueue, "shop", PRODUCT)
    first = claim(database)
    bad = Page((), (Rejection("WRONG_TYPE", "a", "/sku", "no string"),), None, None)
    database.call(claims.record_page, first, bad, Counts(rejected=1))
    database.call(generations.succeed, first)
    latest, collection = run(database), run(database, entity_type=COLLECTION)
    age(database, "merchant = 'shop'")
    recent = run(database, "other")
    assert database.call(syncs.prune, 90, 100) == 1
    assert database.call(syncs.prune, 90, 100) == 0
    with pytest.raises(SyncNotFound):
        database.call(syncs.problems, "shop", first.sync_id)
    for merchant, kept in (("shop", latest), ("shop", collection), ("other", recent)):
        assert database.call(syncs.get, merchant, kept).id == kept
    left = text("SELECT count(*) FROM sync_problems")
    assert database.call(lambda connection: connection.execute(left).scalar_one()) == 0


def test_cancelled_syncs_are_kept_for_a_shorter_time(database: Database) -> None:
    """They say little, and a client can make many of them."""
    succeeded = run(database)
    for entity_type in (PRODUCT, COLLECTION, PRODUCT):
        database.call(enqueue, "shop", entity_type)
        database.call(syncs.cancel, "shop", entity_type)
    young = database.call(enqueue, "other", PRODUCT).id
    database.call(syncs.cancel, "other", PRODUCT)
    run(database, "other")
    weeks_ago = {"sqlite": "datetime('now', '-8 days') || '.000'", "postgresql": "now() - interval '8 days'"}
    then = weeks_ago[database.engine.dialect.name]
    late = text(f"UPDATE syncs SET queued_at = {then}, finished_at = {then} WHERE merchant = 'shop'")
    database.call(lambda connection: connection.execute(late))
    assert database.call(syncs.prune, 90, 100) == 0
    assert database.call(syncs.prune, 90, 100, 9) == 0
    assert database.call(syncs.prune, 90, 100, 7) == 1, "the latest of each entity type stays"
    assert database.call(syncs.prune, 90, 100, 7) == 0
    kept = database.call(syncs.history, "shop", None, None, None, 100)[0]
    assert sorted((each.entity_type, each.status) for each in kept) == [
        (COLLECTION, SyncStatus.CANCELLED),
        (PRODUCT, SyncStatus.CANCELLED),
        (PRODUCT, SyncStatus.SUCCEEDED),
    ]
    assert database.call(syncs.get, "shop", succeeded).status is SyncStatus.SUCCEEDED
    assert database.call(syncs.get, "other", young).status is SyncStatus.CANCELLED


def test_a_loop_of_put_and_delete_does_not_fill_the_database(database: Database) -> None:
    """Only the newest cancelled syncs are kept; all other syncs stay."""
    succeeded = run(database)
    database.call(enqueue, "shop", COLLECTION)
    database.call(syncs.cancel, "shop", COLLECTION)
    made = database.call(cancelled_syncs, syncs.MAX_CANCELLED_KEPT)
    for _ in range(5):  # as a client does it
        made.append(database.call(enqueue, "shop", PRODUCT).id)
        database.call(syncs.cancel, "shop", PRODUCT)
    failing = database.call(enqueue, "shop", PRODUCT).id
    database.call(claims.fail, claim(database), "INVALID_PAGE", "No JSON.")
    kept = everything(database, 500, PRODUCT, None)
    assert [each.id for each in kept] == [failing, *made[: -syncs.MAX_CANCELLED_KEPT - 1 : -1], succeeded]
    assert len(everything(database, 500, COLLECTION, None)) == 1
    orphans = "SELECT count(*) FROM sync_events WHERE sync_id NOT IN (SELECT id FROM syncs)"
    assert database.call(lambda connection: connection.execute(text(orphans)).scalar_one()) == 0


def cancelled_syncs(connection: Connection, number: int) -> list[UUID]:
    """Add cancelled syncs to the history, in less time than by cancelling them."""
    made = []
    for _ in range(number):
        made.append(enqueue(connection, "shop", PRODUCT).id)
        cancelled = "UPDATE syncs SET status = 'CANCELLED', finished_at = queued_at WHERE status = 'QUEUED'"
        connection.execute(text(cancelled))
    return made


def test_active_syncs_are_never_pruned(database: Database) -> None:
    """Its age does not matter, because it has not ended."""
    sync = database.call(enqueue, "shop", PRODUCT)
    assert database.call(syncs.prune, 0.000001, 100) == 0
    assert database.call(syncs.get, "shop", sync.id).is_active


def test_a_sync_that_loses_worker_after_worker_fails(database: Database) -> None:
    """A sync that crashes its workers must end. The merchant gets the reason and may try again."""
    sync = database.call(enqueue, "shop", PRODUCT)
    for attempt in (1, 2, 3):
        assert claim(database, 0.001).attempt == attempt
        wait_until_claimable(database)
    assert database.call(claims.claim, "tester", LEASE, *RULES) is None
    ended = database.call(syncs.get, "shop", sync.id)
    assert (ended.status, ended.failure_code, ended.attempt) == (SyncStatus.FAILED, "WORKER_LOST", 3)
    assert "3 workers" in (ended.failure_detail or "")
    database.call(enqueue, "shop", PRODUCT)


def test_handing_back_is_not_losing_a_worker(database: Database) -> None:
    """A rolling upgrade of ten workers must not fail a sync."""
    database.call(enqueue, "shop", PRODUCT)
    for _ in range(10):
        database.call(claims.hand_back, claim(database))
    assert claim(database).attempt == 11


def test_a_merchants_syncs_run_one_after_the_other_where_that_is_set(database: Database) -> None:
    """A merchant's service gets one request at a time; other merchants do not wait."""
    one_at_once = (3, 1)
    for merchant, entity_type in (("shop", PRODUCT), ("shop", COLLECTION), ("other", PRODUCT)):
        database.call(enqueue, merchant, entity_type)
    first = claim(database, rules=one_at_once)
    assert claim(database, rules=one_at_once).merchant == "other"
    assert database.call(claims.claim, "tester", LEASE, *one_at_once) is None
    database.call(generations.succeed, first)
    assert claim(database, rules=one_at_once).entity_type is COLLECTION


@pytest.mark.parametrize("at_one_moment", [False, True])
def test_claims_take_syncs_in_the_order_of_the_requests(database: Database, at_one_moment: bool) -> None:
    """In a batch too, and where requests have the same time."""
    names = [f"merchant{n}" for n in range(40)]
    random.shuffle(names)
    for each in names:
        database.call(merchants.add, each, Platform.BYOP, "https://shop.example")
    for each in names[:10]:
        database.call(enqueue, each, PRODUCT)
    for batch in (names[10:20], names[20:40]):
        database.call(enqueue_many, [EnqueueRequest(each, PRODUCT) for each in batch])
    if at_one_moment:
        same = text("UPDATE syncs SET queued_at = (SELECT min(queued_at) FROM syncs)")
        database.call(lambda connection: connection.execute(same))
    assert [claim(database).merchant for _ in names] == names


async def test_two_concurrent_claims_do_not_exceed_the_limit_of_a_merchant(database: Database) -> None:
    """Each may have chosen another one; the second to write sees the first."""
    await database.write(enqueue, "shop", PRODUCT)
    await database.write(enqueue, "shop", COLLECTION)
    found = await asyncio.gather(*[database.write(claims.claim, f"worker {n}", LEASE, 3, 1) for n in range(20)])
    assert len([each for each in found if each is not None]) == 1


def wait_until_claimable(database: Database, look: Callable[..., bool] = claims.has_claimable) -> None:
    """A lease of a millisecond runs out soon."""
    for _ in range(1000):
        if database.call(look, 2):
            return
    raise AssertionError("the lease did not run out")
