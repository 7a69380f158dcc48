"""Webhooks in the database: each message is written in the transaction that ends its sync."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from product_gateway.db import claims, generations, merchants, syncs, webhooks
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import LeaseLost
from product_gateway.model.syncs import EntityType
from product_gateway.model.webhooks import Delivery, DeliveryStatus, Webhook

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
URL = "https://receiver.example/hook"
LEASE = 60.0
RULES = (5, 2)
NO_MERCHANTS: tuple[str, ...] = ()


def register(database: Database, merchant: str = "shop") -> None:
    """A webhook of the merchant."""
    database.call(webhooks.put, merchant, url=URL, secret="encrypted")


def claimed(database: Database, merchant: str = "shop", lease: float = LEASE) -> Any:
    """A sync of the merchant that is in progress."""
    database.call(enqueue, merchant, PRODUCT)
    claim = database.call(claims.claim, "tester", lease, *RULES)
    assert claim is not None
    return claim


def cancelled(database: Database, merchant: str = "shop") -> UUID:
    """A sync that was cancelled."""
    database.call(enqueue, merchant, PRODUCT)
    return database.call(syncs.cancel, merchant, PRODUCT).id


def attempt(database: Database, lease: float = LEASE, busy: tuple[str, ...] = NO_MERCHANTS) -> Delivery:
    """An attempt that has begun."""
    found = database.call(webhooks.claim, lease, busy)
    assert found is not None
    return found[0]


def only(database: Database, sync_id: UUID, merchant: str = "shop") -> Delivery:
    """Return the only message about a sync."""
    (found,) = database.call(webhooks.of_sync, merchant, sync_id)
    return found


def succeed(database: Database) -> UUID:
    """A sync ends SUCCEEDED."""
    claim = claimed(database)
    database.call(generations.succeed, claim)
    return UUID(str(claim.sync_id))


def fail(database: Database) -> UUID:
    """A sync ends FAILED."""
    claim = claimed(database)
    database.call(claims.fail, claim, "INVALID_PAGE", "No JSON.")
    return UUID(str(claim.sync_id))


def cancel_running(database: Database) -> UUID:
    """A sync that is in progress ends CANCELLED."""
    claim = claimed(database)
    database.call(syncs.cancel, "shop", PRODUCT)
    return UUID(str(claim.sync_id))


def give_up(database: Database) -> UUID:
    """A sync whose worker was lost ends FAILED in the next one's claim."""
    claim = claimed(database, lease=-1.0)
    assert database.call(claims.claim, "tester", LEASE, 1, 2) is None
    return UUID(str(claim.sync_id))


@pytest.mark.parametrize(
    ("end", "event"),
    [
        (succeed, "sync.succeeded"),
        (fail, "sync.failed"),
        (cancelled, "sync.cancelled"),
        (cancel_running, "sync.cancelled"),
        (give_up, "sync.failed"),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_every_end_enqueues_a_message(database: Database, end: Callable[[Database], UUID], event: str) -> None:
    """Every final state has a message, because the merchant waits for it."""
    register(database)
    told = only(database, end(database))
    assert (told.event, told.status, told.attempts) == (event, DeliveryStatus.PENDING, 0)
    assert database.call(webhooks.has_due, NO_MERCHANTS)
    assert not database.call(webhooks.has_due, ("shop",))


def test_no_message_without_an_end_or_without_a_webhook(database: Database) -> None:
    """A sync that is handed back goes on, and most merchants have no webhook."""
    register(database, "other")
    claim = claimed(database)
    database.call(claims.hand_back, claim)
    cancelled_id = cancelled(database, "other")
    database.call(syncs.cancel, "shop", PRODUCT)
    assert database.call(webhooks.of_sync, "shop", claim.sync_id) == []
    assert database.call(webhooks.pending).count == 1
    assert only(database, cancelled_id, "other").event == "sync.cancelled"


def test_a_refused_end_enqueues_no_message(database: Database) -> None:
    """A worker that lost its lease may believe that the sync succeeded."""
    register(database)
    claim = claimed(database)
    database.call(syncs.cancel, "shop", PRODUCT)
    with pytest.raises(LeaseLost):
        database.call(generations.succeed, claim)
    assert only(database, claim.sync_id).event == "sync.cancelled"


def test_the_end_and_its_message_are_written_in_one_transaction(database: Database) -> None:
    """Otherwise a crash between them loses the message."""
    register(database)
    sync = database.call(enqueue, "shop", PRODUCT)

    def die(connection: Connection) -> None:
        syncs.cancel(connection, "shop", PRODUCT)
        assert webhooks.of_sync(connection, "shop", sync.id)
        raise KeyError("the process ends here")

    with pytest.raises(KeyError):
        database.call(die)
    assert database.call(syncs.get, "shop", sync.id).is_active
    assert database.call(webhooks.of_sync, "shop", sync.id) == []


def test_an_attempt_is_one_workers_until_its_lease_runs_out(database: Database) -> None:
    """So two workers do not normally send the same; but when one is lost, another does."""
    register(database)
    sync_id = cancelled(database)
    first = attempt(database, lease=-1.0)
    second = attempt(database)
    assert (first.id, first.attempts, second.id, second.attempts) == (second.id, 1, first.id, 2)
    assert database.call(webhooks.claim, LEASE, NO_MERCHANTS) is None
    assert not database.call(webhooks.has_due, NO_MERCHANTS)
    assert not database.call(webhooks.retry, first, 500, "late", 0.0), "what is late must not undo a later attempt"
    assert only(database, sync_id).last_error is None
    assert database.call(webhooks.succeed, second, 200)
    done = only(database, sync_id)
    assert (done.status, done.last_status, done.next_attempt_at) == (DeliveryStatus.DELIVERED, 200, None)
    assert done.finished_at is not None
    assert not database.call(webhooks.succeed, second, 200)


async def test_many_workers_never_claim_the_same_message(database: Database) -> None:
    """Receivers are to see each once, where nothing goes wrong."""
    for merchant in ("shop", "other"):
        register(database, merchant)
        for _ in range(4):
            cancelled(database, merchant)
    found = await asyncio.gather(*[database.write(webhooks.claim, LEASE, NO_MERCHANTS) for _ in range(30)])
    ids = [each[0].id for each in found if each is not None]
    assert len(ids) == len(set(ids)) == 8


def test_a_busy_merchants_messages_wait_and_the_others_do_not(database: Database) -> None:
    """A slow receiver delays only its own messages."""
    for merchant in ("shop", "shop", "other"):
        register(database, merchant)
        cancelled(database, merchant)
    assert attempt(database).merchant == "shop"
    assert attempt(database, busy=("shop",)).merchant == "other"
    assert database.call(webhooks.claim, LEASE, ("shop", "other")) is None


def test_a_message_that_failed_waits_for_its_time_and_says_why(database: Database) -> None:
    """The operator sees the reason."""
    register(database)
    sync_id = cancelled(database)
    assert database.call(webhooks.retry, attempt(database), 500, "The receiver answered 500.", 3600.0)
    waiting = only(database, sync_id)
    assert (waiting.status, waiting.last_status, waiting.attempts) == (DeliveryStatus.PENDING, 500, 1)
    assert waiting.last_error == "The receiver answered 500."
    assert waiting.next_attempt_at is not None
    assert 3500 < (waiting.next_attempt_at - waiting.as_of).total_seconds() <= 3600
    assert not database.call(webhooks.has_due, NO_MERCHANTS)
    found = database.call(webhooks.pending)
    assert found.count == 1
    assert 0 <= found.oldest_seconds < 60


def test_a_given_up_message_is_not_sent_again_and_stays_visible(database: Database) -> None:
    """The operator may have to inform the merchant by other means."""
    register(database)
    sync_id = cancelled(database)
    assert database.call(webhooks.give_up, attempt(database), None, "No answer.")
    over = only(database, sync_id)
    assert (over.status, over.last_status, over.last_error) == (DeliveryStatus.GIVEN_UP, None, "No answer.")
    assert not database.call(webhooks.has_due, NO_MERCHANTS)
    assert database.call(webhooks.pending).count == 0
    assert [each.sync_id for each in database.call(webhooks.latest, "shop", 5)] == [sync_id]


def test_a_receiver_that_is_gone_is_left_alone_until_it_is_registered_again(database: Database) -> None:
    """410 (Standard Webhooks): what waits is given up, and what comes is not written."""
    register(database)
    first, second = cancelled(database), cancelled(database)
    held = attempt(database)
    assert database.call(webhooks.disable_gone, held, URL, 410, "gone")
    assert {only(database, each).status for each in (first, second)} == {DeliveryStatus.GIVEN_UP}
    assert only(database, second).last_error == webhooks.GONE
    found = database.call(webhooks.find, "shop")
    assert found is not None
    assert found.gone_at is not None
    assert database.call(webhooks.of_sync, "shop", cancelled(database)) == []
    register(database)
    assert only(database, cancelled(database)).status is DeliveryStatus.PENDING


def test_an_address_that_was_changed_meanwhile_is_not_turned_off_by_the_old_one(database: Database) -> None:
    """The operator may have moved it because the old one is gone."""
    register(database)
    first, second = cancelled(database), cancelled(database)
    held = attempt(database)
    database.call(webhooks.put, "shop", url="https://new.example")
    assert database.call(webhooks.disable_gone, held, URL, 410, "gone")
    assert database.call(webhooks.find, "shop") == Webhook("https://new.example", "encrypted", None)
    assert only(database, first).status is DeliveryStatus.GIVEN_UP
    assert only(database, second).status is DeliveryStatus.PENDING


def test_a_removed_webhook_is_not_called(database: Database) -> None:
    """Also where a sync ended at the same moment, and its message was written after the others were given up."""
    register(database)
    first = cancelled(database)
    database.call(webhooks.remove, "shop")
    assert only(database, first).status is DeliveryStatus.GIVEN_UP
    register(database)
    second = cancelled(database)
    database.call(lambda connection: connection.execute(text("DELETE FROM webhooks")))
    assert database.call(webhooks.claim, LEASE, NO_MERCHANTS) is None
    late = only(database, second)
    assert (late.status, late.last_error) == (DeliveryStatus.GIVEN_UP, webhooks.TURNED_OFF)


def test_messages_are_deleted_with_their_syncs_and_their_merchant(database: Database) -> None:
    """Messages are kept as long as their sync."""
    for merchant in ("shop", "other"):
        register(database, merchant)
    old, newest = cancelled(database), cancelled(database)
    kept = cancelled(database, "other")
    assert database.call(syncs.prune, -1.0, 10) == 1
    assert database.call(webhooks.of_sync, "shop", old) == []
    assert only(database, newest).event == "sync.cancelled"
    held = attempt(database)
    database.call(merchants.remove, "shop")
    assert not database.call(webhooks.succeed, held, 200)
    assert database.call(webhooks.find, "shop") is None
    assert [each.sync_id for each in database.call(webhooks.latest, "other", 5)] == [kept]
    assert database.call(webhooks.latest, "shop", 5) == []


@pytest.mark.parametrize("statements", [["DELETE FROM syncs"], ["DELETE FROM syncs", "DELETE FROM merchants"]])
def test_a_version_that_does_not_know_webhooks_can_prune_and_remove(database: Database, statements: list[str]) -> None:
    """In a rolling upgrade it goes on doing both; what it leaves behind would be in the way, or come back."""
    register(database)
    cancelled(database)

    def as_before(connection: Connection) -> None:
        for each in statements:
            connection.execute(text(each))

    database.call(as_before)
    assert database.call(webhooks.latest, "shop", 5) == []
    assert (database.call(webhooks.find, "shop") is None) == (len(statements) == 2)


def test_the_newest_messages_come_first(database: Database) -> None:
    """For the operator who looks at a merchant."""
    register(database)
    ids = [cancelled(database) for _ in range(4)]
    assert [each.sync_id for each in database.call(webhooks.latest, "shop", 3)] == ids[:0:-1]
