"""The sync table: the transitions, and the rule that one sync per merchant and entity type is active."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from product_gateway.db import claims, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import LeaseLost, SyncAlreadyActive, SyncNotFound
from product_gateway.model.catalog import Page, Record, Rejection
from product_gateway.model.syncs import Claim, Counts, EntityType, Sync, SyncStatus

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
LEASE = 30.0
RULES = (5, 2)  # workers that a sync may lose, syncs of a merchant at once


def claimed(database: Database, merchant: str = "shop", lease: float = LEASE) -> Claim:
    """A new sync in progress."""
    database.call(enqueue, merchant, PRODUCT)
    return claim(database, lease)


def claim(database: Database, lease: float = LEASE) -> Claim:
    """The next sync, in progress."""
    found = database.call(claims.claim, "tester", lease, *RULES)
    assert found is not None
    return found


def now(database: Database, of: Claim) -> Sync:
    """The sync as it stands."""
    return database.call(syncs.get, of.merchant, of.sync_id)


def page(*ids: str, cursor: str | None = None, total: int | None = None) -> Page:
    """A page of records without anything in them."""
    return Page(tuple(Record(each, "{}") for each in ids), (), cursor, total)


def test_a_new_sync_is_queued(database: Database) -> None:
    """Nothing has happened to it yet, and it knows when it came."""
    sync = database.call(enqueue, "shop", PRODUCT)
    assert (sync.status, sync.attempt, sync.started_at, sync.finished_at) == (SyncStatus.QUEUED, 0, None, None)
    assert sync.id.version == 7
    assert sync.queued_at.utcoffset() == timedelta(0)
    assert abs(sync.as_of - sync.queued_at) < timedelta(seconds=5)


def test_a_second_sync_of_a_type_is_refused_while_one_is_queued_or_in_progress(database: Database) -> None:
    """The contract's 429; the error names the one that is active."""
    first = database.call(enqueue, "shop", PRODUCT)
    with pytest.raises(SyncAlreadyActive) as refusal:
        database.call(enqueue, "shop", PRODUCT)
    assert refusal.value.active.id == first.id
    claim(database)
    with pytest.raises(SyncAlreadyActive) as refusal:
        database.call(enqueue, "shop", PRODUCT)
    assert refusal.value.active.status is SyncStatus.IN_PROGRESS


def test_other_types_and_other_merchants_are_not_in_the_way(database: Database) -> None:
    """The rule is per merchant and entity type."""
    ids = {
        database.call(enqueue, merchant, kind).id for merchant in ("shop", "other") for kind in (PRODUCT, COLLECTION)
    }
    assert len(ids) == 4


@pytest.mark.parametrize("end", ["succeed", "fail"])
def test_a_sync_that_has_ended_makes_room_for_the_next(database: Database, end: str) -> None:
    """Otherwise a merchant could sync once in a lifetime."""
    held = claimed(database)
    if end == "succeed":
        database.call(claims.succeed, held)
    else:
        database.call(claims.fail, held, "INVALID_PAGE", "No JSON.")
    assert database.call(enqueue, "shop", PRODUCT).id != held.sync_id


def test_the_database_itself_refuses_a_second_active_sync(database: Database) -> None:
    """The rule must hold for every writer, so the table enforces it."""
    database.call(enqueue, "shop", PRODUCT)
    second = text(
        "INSERT INTO syncs (merchant, id, entity_type, status, queued_at) SELECT merchant, :id, entity_type, 'QUEUED',"
        " queued_at FROM syncs"
    )
    with pytest.raises(IntegrityError):
        database.call(lambda connection: connection.execute(second, {"id": "0" * 32}))


async def test_of_many_at_once_one_gets_through(database: Database) -> None:
    """A check before the insert would let two through; the index does not."""

    async def put() -> bool:
        try:
            await database.write(enqueue, "shop", PRODUCT)
        except SyncAlreadyActive:
            return False
        return True

    assert sum(await asyncio.gather(*[put() for _ in range(100)])) == 1


def test_a_claim_starts_the_sync(database: Database) -> None:
    """From here on a worker owns it, until the lease expires."""
    held = claimed(database)
    sync = now(database, held)
    assert (sync.status, sync.attempt, held.token, held.cursor) == (SyncStatus.IN_PROGRESS, 1, 1, None)
    assert sync.started_at is not None


def test_syncs_are_claimed_once_and_in_the_order_they_came(database: Database) -> None:
    """First come, first served; and none twice."""
    wanted = [database.call(enqueue, merchant, PRODUCT).id for merchant in ("other", "shop")]
    assert [claim(database).sync_id for _ in wanted] == wanted
    assert database.call(claims.claim, "tester", LEASE, *RULES) is None
    assert not database.call(claims.has_claimable, 2)


async def test_many_workers_never_claim_the_same_sync(database: Database) -> None:
    """Two workers on one sync would write over each other."""
    for merchant in ("shop", "other"):
        for kind in (PRODUCT, COLLECTION):
            await database.write(enqueue, merchant, kind)
    found = await asyncio.gather(*[database.write(claims.claim, f"worker {n}", LEASE, *RULES) for n in range(40)])
    ids = [each.sync_id for each in found if each is not None]
    assert len(ids) == len(set(ids)) == 4


def test_a_lease_that_has_run_out_is_taken_over_where_the_pull_stopped(database: Database) -> None:
    """A worker that is gone must not leave its merchant at 429."""
    held = claimed(database, lease=0.05)
    database.call(claims.record_page, held, page("a", cursor="next", total=9), Counts(created=1))
    while not database.call(claims.has_claimable, 2):
        pass
    second = claim(database)
    assert (second.sync_id, second.token, second.attempt) == (held.sync_id, 2, 2)
    assert (second.cursor, second.records_read, second.pull_complete) == ("next", 1, False)


def test_a_lease_that_holds_is_not_taken_over(database: Database) -> None:
    """Nor is one that a heartbeat has kept up."""
    held = claimed(database, lease=0.05)
    database.call(claims.heartbeat, held, LEASE)
    assert not database.call(claims.has_claimable, 2)
    assert database.call(claims.claim, "other", LEASE, *RULES) is None


def test_who_lost_the_lease_can_write_nothing(database: Database) -> None:
    """A worker that was stopped and revived must not spoil what the next one does."""
    old = claimed(database, lease=0.001)
    while not database.call(claims.has_claimable, 2):
        pass
    claim(database)
    for write, arguments in (
        (claims.heartbeat, (LEASE,)),
        (claims.record_page, (page("a"), Counts())),
        (claims.record_removed, (1,)),
        (claims.succeed, ()),
        (claims.fail, ("X", "y")),
        (claims.hand_back, ()),
    ):
        with pytest.raises(LeaseLost):
            database.call(write, old, *arguments)
    assert now(database, old).records_read == 0


def test_a_sync_that_is_handed_back_is_claimed_again_at_once(database: Database) -> None:
    """A worker that is told to stop does not make anybody wait for its lease."""
    held = claimed(database)
    database.call(claims.record_page, held, page("a", cursor="next"), Counts(created=1))
    database.call(claims.hand_back, held)
    assert now(database, held).status is SyncStatus.QUEUED
    second = claim(database)
    assert (second.sync_id, second.cursor, second.attempt) == (held.sync_id, "next", 2)


def test_pages_add_up(database: Database) -> None:
    """Progress and result are sums over pages, read by any worker."""
    held = claimed(database)
    database.call(claims.record_page, held, page("a", "b", cursor="2", total=4), Counts(created=1, unchanged=1))
    middle = now(database, held)
    assert (middle.records_read, middle.records_total, middle.percent) == (2, 4, 50)
    last = Page((Record("c", "{}"),), (Rejection("WRONG_TYPE", "d", "/x", "no"),), None, None)
    database.call(claims.record_page, held, last, Counts(updated=1, rejected=1))
    sync = now(database, held)
    assert (sync.records_read, sync.records_total) == (4, 4)
    assert sync.counts == Counts(created=1, updated=1, unchanged=1, rejected=1)


def test_a_success_is_final_and_knows_its_total(database: Database) -> None:
    """Even where the product service never told how many there are."""
    held = claimed(database)
    database.call(claims.record_page, held, page("a", "b"), Counts(created=2))
    database.call(claims.succeed, held)
    sync = now(database, held)
    assert (sync.status, sync.records_total, sync.percent) == (SyncStatus.SUCCEEDED, 2, 100)
    assert sync.finished_at is not None
    with pytest.raises(LeaseLost):
        database.call(claims.fail, held, "X", "y")


def test_a_failure_says_why(database: Database) -> None:
    """A code for programs, words for people."""
    held = claimed(database)
    database.call(claims.fail, held, "INVALID_PAGE", "Page 3 is not JSON.")
    sync = now(database, held)
    assert (sync.status, sync.failure_code, sync.failure_detail) == (
        SyncStatus.FAILED,
        "INVALID_PAGE",
        "Page 3 is not JSON.",
    )


def test_removal_wants_a_complete_pull_whose_records_all_have_ids(database: Database) -> None:
    """What a partial pull lacks is not gone, nor what a nameless record may have been."""
    held = claimed(database)
    assert not database.call(claims.may_remove, held)
    database.call(claims.record_page, held, page("a", cursor="2"), Counts())
    assert not database.call(claims.may_remove, held)
    database.call(claims.record_page, held, page("b"), Counts())
    assert database.call(claims.may_remove, held)
    nameless = Page((), (Rejection("MISSING_FIELD", None, "/id", "no id"),), None, None)
    database.call(claims.record_page, held, nameless, Counts(rejected=1))
    assert not database.call(claims.may_remove, held)


def test_rejections_are_grouped_by_code_with_the_first_few_as_samples(database: Database) -> None:
    """A million records with the same fault are one line in the report."""
    held = claimed(database)
    for start in (0, 4):
        rejections = tuple(Rejection("WRONG_TYPE", f"p{n}", "/sku", "no string") for n in range(start, start + 4))
        more = (Rejection("MISSING_FIELD", None, "/id", "id is missing"),) if start else ()
        database.call(claims.record_page, held, Page((), rejections + more, "next", None), Counts())
    wrong, missing = database.call(syncs.problems, "shop", held.sync_id)
    assert (wrong.code, wrong.count, [each.record_id for each in wrong.samples]) == (
        "WRONG_TYPE",
        8,
        ["p0", "p1", "p2", "p3", "p4"],
    )
    assert (missing.count, missing.samples) == (1, more)


def test_another_merchants_sync_is_not_found(database: Database) -> None:
    """Not even that there is one."""
    sync = database.call(enqueue, "shop", PRODUCT)
    for look in (syncs.get, syncs.problems):
        with pytest.raises(SyncNotFound):
            database.call(look, "other", sync.id)
    assert database.call(syncs.latest, "other", PRODUCT) is None


def test_the_age_of_what_is_active_is_that_of_the_oldest(database: Database) -> None:
    """An alert on a queue that stands still looks at it."""
    for merchant in ("shop", "other"):
        database.call(enqueue, merchant, EntityType.PRODUCT)
    hour_ago = {"sqlite": "datetime('now', '-1 hour') || '.000'", "postgresql": "now() - interval '1 hour'"}
    then = text(f"UPDATE syncs SET queued_at = {hour_ago[database.engine.dialect.name]} WHERE merchant = 'other'")
    database.call(lambda connection: connection.execute(then))
    (found,) = database.call(syncs.active)
    assert (found.count, found.status) == (2, SyncStatus.QUEUED)
    assert 3590 < found.oldest_seconds < 3700
