"""The events of a sync: transactional, bounded, and deleted with the sync."""

import pytest
from sqlalchemy import Connection

from product_gateway.db import catalog_write, claims, events, generations, merchants, monitor, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import EnqueueRequest, enqueue, enqueue_many
from product_gateway.errors import LeaseLost
from product_gateway.model.catalog import Page, Record
from product_gateway.model.syncs import Claim, EntityType, Sync, SyncEvent

RULES = (5, 2)
LEASE = 600.0
PRODUCT = EntityType.PRODUCT


def claimed(database: Database, lease: float = LEASE, owner: str = "worker-1:1") -> Claim:
    """The shop's sync of products."""
    found = database.call(claims.claim, owner, lease, *RULES)
    assert found is not None
    return found


def page(number: int, size: int = 2, last: bool = False) -> Page:
    """Some records."""
    records = tuple(Record(f"{number:06d}{n:03d}", "{}") for n in range(size))
    return Page(records, (), None if last else str(number), None)


def told(database: Database, claim: Claim) -> list[SyncEvent]:
    """Return the events so far."""
    return database.call(events.of_sync, claim.merchant, claim.sync_id)


def test_the_events_of_a_sync_are_in_order(database: Database) -> None:
    """Asked for, taken up, lost, taken over, handed back, and its end."""
    database.call(enqueue, "shop", PRODUCT)
    lost = claimed(database, lease=-1.0)
    claim = claimed(database, owner="worker-2:2")
    assert claim.taken_over
    database.call(catalog_write.write_page, claim, page(1), LEASE, ["503", "503", "429"])
    database.call(claims.hand_back, claim)
    claim = claimed(database, owner="worker-3:3")
    database.call(catalog_write.write_page, claim, page(2, last=True), LEASE)
    database.call(generations.succeed, claim)
    assert [(each.kind, each.number, each.detail) for each in told(database, lost)] == [
        (events.QUEUED, None, None),
        (events.CLAIMED, 1, "worker-1:1"),
        (events.LEASE_LOST, None, "worker-1:1"),
        (events.CLAIMED, 2, "worker-2:2"),
        (events.REPEATED, 3, "503, 503, 429"),
        (events.PAGE, 2, "1"),
        (events.HANDED_BACK, None, None),
        (events.CLAIMED, 3, "worker-3:3"),
        (events.PAGE, 4, "2"),
        ("SUCCEEDED", None, None),
    ]


def test_each_sync_of_a_batch_has_its_own_events(database: Database) -> None:
    """The gateway enqueues concurrent requests in one batch."""
    for sync in database.call(enqueue_many, [EnqueueRequest("shop", PRODUCT), EnqueueRequest("other", PRODUCT)]):
        assert isinstance(sync, Sync)
        assert [each.kind for each in database.call(events.of_sync, sync.merchant, sync.id)] == [events.QUEUED]


@pytest.mark.parametrize("end", ["FAILED", "CANCELLED", "WORKER_LOST"])
def test_every_end_has_an_event_with_the_reason(database: Database, end: str) -> None:
    """The events explain a sync without the logs."""
    sync = database.call(enqueue, "shop", PRODUCT)
    if end == "CANCELLED":
        database.call(monitor.cancel, "shop", sync.id, "192.0.2.7")
    elif end == "FAILED":
        database.call(claims.fail, claimed(database), "INVALID_PAGE", "Page 3 is not JSON.", ["503", "no answer"])
    else:
        claimed(database, lease=-1.0)
        assert database.call(claims.claim, "worker-2:2", LEASE, 1, 2) is None
    last = database.call(events.of_sync, "shop", sync.id)[-1]
    assert (last.kind, (last.detail or "")[:25]) == {
        "CANCELLED": ("CANCELLED", "by an operator at 192.0.2"),
        "FAILED": ("FAILED", "INVALID_PAGE: Page 3 is n"),
        "WORKER_LOST": ("FAILED", "WORKER_LOST: 1 workers we"),
    }[end]


def test_a_refused_transition_has_no_event(database: Database) -> None:
    """The event and the transition are one transaction."""
    database.call(enqueue, "shop", PRODUCT)
    claim = claimed(database)
    database.call(syncs.cancel, "shop", PRODUCT)
    before = told(database, claim)
    for work, more in (
        (catalog_write.write_page, (page(1), LEASE)),
        (generations.succeed, ()),
        (claims.hand_back, ()),
    ):
        with pytest.raises(LeaseLost):
            database.call(work, claim, *more)
    with pytest.raises(LeaseLost):
        database.call(claims.fail, claim, "X", "y", ["503"] * 3)
    assert told(database, claim) == before


def test_a_long_pull_has_some_dozens_of_pages_in_its_timeline() -> None:
    """Half as many for each doubling, so that 100,000 pages have at most a few hundred events."""
    shown = [number for number in range(1, 100_001) if events.is_sampled(number)]
    assert shown[:34] == [*range(1, 33), 34, 36]
    assert len(shown) < events.MOST_REPEATED
    assert len([each for each in shown if each <= 100]) >= 50


def test_the_number_of_events_is_limited_and_the_end_is_always_recorded(database: Database) -> None:
    """A sync that goes wrong for days must not fill the database."""
    sync = database.call(enqueue, "shop", PRODUCT)
    claim = claimed(database)

    def repeat_heartbeats(connection: Connection) -> None:
        for _ in range(events.MOST + 50):
            claims.heartbeat(connection, claim, LEASE, ["503"])

    def repeat_claims(connection: Connection) -> None:
        for _ in range(events.MOST):
            again = claims.claim(connection, "worker-2:2", LEASE, *RULES)
            assert again is not None
            claims.hand_back(connection, again)

    database.call(repeat_heartbeats)
    assert len(told(database, claim)) == 1 + events.MOST_REPEATED
    database.call(claims.hand_back, claim)
    database.call(repeat_claims)
    assert len(told(database, claim)) == 1 + events.MOST
    database.call(monitor.cancel, "shop", sync.id, "192.0.2.7")
    assert (len(told(database, claim)), told(database, claim)[-1].kind) == (1 + events.MOST + 1, "CANCELLED")


def test_events_are_deleted_with_their_sync_and_their_merchant(database: Database) -> None:
    """No events of deleted syncs stay."""
    for _ in range(2):
        database.call(enqueue, "shop", PRODUCT)
        claim = claimed(database)
        database.call(generations.succeed, claim)
    (first, _) = reversed(database.call(syncs.history, "shop", PRODUCT, None, None, 10)[0])
    assert database.call(syncs.prune, -1, 10) == 1
    assert database.call(events.of_sync, "shop", first.id) == []
    assert told(database, claim) != []
    database.call(merchants.remove, "shop")
    assert told(database, claim) == []
