"""The merchants' webhooks, and what is to be delivered to them: one function per transition.

A claim's lease is the time of the next attempt: who is lost in between has made one attempt, and another makes the
next. An attempt is recorded where it is still the latest.
"""

from collections.abc import Collection
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Uuid,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from uuid_utils.compat import uuid7

from product_gateway.db.tables import webhook_deliveries, webhooks
from product_gateway.db.types import now
from product_gateway.model.syncs import SyncStatus
from product_gateway.model.webhooks import Delivery, DeliveryStatus, PendingDeliveries, Webhook

EVENTS = {
    SyncStatus.SUCCEEDED: "sync.succeeded",
    SyncStatus.FAILED: "sync.failed",
    SyncStatus.CANCELLED: "sync.cancelled",
}
TURNED_OFF = "The webhook was turned off before this was delivered."

DUE_LOOKED_AT = 50  # before the messages of each merchant are looked for
MOST_COUNTED = 10_000
GONE = "The receiver answered 410 to another message: it wants no more."

OVERLAP_SECONDS = 24 * 3600.0  # in which messages are signed with the previous secret, too


class Message(NamedTuple):
    """Identifies a row: see _is_message."""

    merchant: str
    id: UUID
    sync_id: UUID


_select_one = select(webhooks, (webhooks.c.previous_secret_until > now()).label("overlaps")).where(
    webhooks.c.merchant == bindparam("m")
)
_deliveries = webhook_deliveries.c
_columns = [*webhook_deliveries.c, now().label("as_of")]
_is_pending = _deliveries.status == text("'PENDING'")
_is_on = webhooks.c.gone_at.is_(None)


def _is_message(merchant: Any, message: Any, sync_id: Any) -> ColumnElement[bool]:
    """Match one row by its id and its sync: until PostgreSQL has counted the merchant's rows, it may look in either
    index, and must not read all rows of the merchant there."""
    return and_(_deliveries.merchant == merchant, _deliveries.id == message, _deliveries.sync_id == sync_id)


# Evaluated once: PostgreSQL compares an index with this, but not with clock_timestamp() itself.
_now_once = select(now()).scalar_subquery()
_due_longest = (
    select(_deliveries.merchant, _deliveries.id, _deliveries.sync_id)
    .where(_deliveries.next_attempt_at <= _now_once)
    .order_by(_deliveries.next_attempt_at)
    .limit(DUE_LOOKED_AT)
)
_lock = (
    select((_is_pending & (_deliveries.next_attempt_at <= now())).label("is_due"))
    .where(_is_message(bindparam("m"), bindparam("d"), bindparam("i")))
    .with_for_update(skip_locked=True)
)


def _select_due_of_each() -> Select[Any]:
    """The message of each merchant that has been due longest: a loose index scan over the merchants.

    In the order of the index, the first row behind a merchant's rows is the next merchant's earliest message.
    """
    read = (_deliveries.merchant, _deliveries.id, _deliveries.sync_id, _deliveries.next_attempt_at)

    def first(*conditions: ColumnElement[bool]) -> list[ColumnElement[Any]]:
        here = (_deliveries.next_attempt_at.is_not(None), *conditions)
        order = (_deliveries.merchant, _deliveries.next_attempt_at, _deliveries.id)
        return [select(each).where(*here).order_by(*order).limit(1).scalar_subquery().label(each.name) for each in read]

    earliest = select(*first()).cte("earliest", recursive=True)
    following = first(_deliveries.merchant > earliest.c.merchant)
    earliest = earliest.union_all(select(*following).where(earliest.c.merchant.is_not(None)))
    return (
        select(earliest.c.merchant, earliest.c.id, earliest.c.sync_id)
        .where(earliest.c.next_attempt_at <= _now_once)
        .order_by(earliest.c.next_attempt_at)
    )


_due_of_each = _select_due_of_each()
# Until PostgreSQL has counted the pending messages, it may sort them all for each step of the scan.
_do_not_sort = text("SELECT set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true)")
_oldest_pending = (
    select(_deliveries.created_at)
    .where(_deliveries.next_attempt_at.is_not(None))
    .order_by(_deliveries.created_at)
    .limit(MOST_COUNTED)
    .subquery()
)
_count_pending = select(func.count(), func.min(_oldest_pending.c.created_at), now())
_announce = insert(webhook_deliveries).from_select(
    ["merchant", "id", "sync_id", "event", "status", "created_at", "next_attempt_at"],
    select(
        webhooks.c.merchant,
        bindparam("d", type_=Uuid),
        bindparam("i", type_=Uuid),
        bindparam("e", type_=_deliveries.event.type),
        literal("PENDING", _deliveries.status.type),
        now(),
        now(),
    ).where(webhooks.c.merchant == bindparam("m"), _is_on),
)


def find(connection: Connection, merchant: str) -> Webhook | None:
    """The merchant's webhook, with its previous secret while messages are signed with that one as well."""
    row = connection.execute(_select_one, {"m": merchant}).first()
    if row is None:
        return None
    previous = (row.previous_secret, row.previous_secret_until) if row.overlaps else (None, None)
    return Webhook(row.url, row.secret, row.gone_at, *previous)


def put(connection: Connection, merchant: str, /, **values: str) -> None:
    """Sets `url` or `secret` (encrypted) or both, of one that is there; a new one needs both. From now on it is called.

    What is pending goes to the new address, signed with the new secret, and for a day with the one before as well.
    """
    changed = {**values, "gone_at": None, "updated_at": now()}
    before: dict[str, Any] = {}
    parameters: dict[str, float] = {}
    if "secret" in values:
        before = {"previous_secret": webhooks.c.secret, "previous_secret_until": now(bindparam("overlap"))}
        parameters = {"overlap": OVERLAP_SECONDS}
    of_merchant = update(webhooks).where(webhooks.c.merchant == merchant)
    if connection.execute(of_merchant.values(**changed, **before), parameters).rowcount == 0:
        connection.execute(insert(webhooks).values(merchant=merchant, **changed))


def remove(connection: Connection, merchant: str) -> None:
    """Turns it off, and gives up what is pending."""
    connection.execute(delete(webhooks).where(webhooks.c.merchant == merchant))
    _give_up_all(connection, merchant, TURNED_OFF)


def enqueue_delivery(connection: Connection, merchant: str, sync_id: UUID, status: SyncStatus) -> None:
    """Nothing -> PENDING, where the merchant has a webhook: to be called in the transaction that ends the sync."""
    connection.execute(_announce, {"m": merchant, "d": uuid7(), "i": sync_id, "e": EVENTS[status]})


def has_due(connection: Connection, busy: Collection[str]) -> bool:
    """Whether a claim is worth a write (a read, so that idle workers disturb nobody)."""
    return bool(_due(connection, busy))


def claim(connection: Connection, lease_seconds: float, busy: Collection[str]) -> tuple[Delivery, Webhook] | None:
    """PENDING -> PENDING: the one that has been due longest, for an attempt that must be over within the lease.

    None of the `busy` merchants', so that nobody's receiver can hold up the others'. What has no webhook any more goes
    PENDING -> GIVEN_UP instead.
    """
    while True:
        due = next((each for each in _due(connection, busy) if _is_ours(connection, *each)), None)
        if due is None:
            return None
        this = update(webhook_deliveries).where(_is_message(*due))
        webhook = find(connection, due[0])
        if webhook is not None and webhook.gone_at is None:
            break
        connection.execute(this.values(**_over(DeliveryStatus.GIVEN_UP), last_error=TURNED_OFF))
    attempt = this.values(
        attempts=_deliveries.attempts + 1, last_attempt_at=now(), next_attempt_at=now(bindparam("lease"))
    )
    return _delivery(connection.execute(attempt.returning(*_columns), {"lease": lease_seconds}).one()), webhook


def _due(connection: Connection, busy: Collection[str]) -> list[Message]:
    """Return some messages that are due, of merchants that are not busy, the one that has been due longest first.

    Reads a bounded number of rows, or a few of each merchant where the ones due longest are all of busy merchants.
    """
    found = connection.execute(_due_longest).all()
    free = [Message(*each) for each in found if each.merchant not in busy]
    if free or len(found) < DUE_LOOKED_AT:
        return free
    if connection.dialect.name == "postgresql":
        connection.execute(_do_not_sort)
    return [Message(*each) for each in connection.execute(_due_of_each) if each.merchant not in busy]


def _is_ours(connection: Connection, merchant: str, message: UUID, sync_id: UUID) -> bool:
    """Lock a message; False where another worker holds it or has claimed it."""
    return bool(connection.execute(_lock, {"m": merchant, "d": message, "i": sync_id}).scalar())


def succeed(connection: Connection, delivery: Delivery, status: int) -> bool:
    """PENDING -> DELIVERED; False where the attempt is no longer the latest."""
    return _record(connection, delivery, status, None, **_over(DeliveryStatus.DELIVERED))


def retry(
    connection: Connection, delivery: Delivery, status: int | None, error: str | None, wait_seconds: float
) -> bool:
    """PENDING -> PENDING: another attempt after so many seconds; False where this one is no longer the latest."""
    return _record(connection, delivery, status, error, wait=wait_seconds, next_attempt_at=now(bindparam("wait")))


def give_up(connection: Connection, delivery: Delivery, status: int | None, error: str) -> bool:
    """PENDING -> GIVEN_UP; False where the attempt is no longer the latest."""
    return _record(connection, delivery, status, error, **_over(DeliveryStatus.GIVEN_UP))


def disable_gone(connection: Connection, delivery: Delivery, url: str, status: int, error: str) -> bool:
    """PENDING -> GIVEN_UP, with all that is pending for the merchant: the receiver at this address is no more.

    False where the attempt is no longer the latest. Where the operator has changed the address meanwhile, that stays.
    """
    recorded = give_up(connection, delivery, status, error)
    here = (webhooks.c.merchant == delivery.merchant) & (webhooks.c.url == url) & _is_on
    if connection.execute(update(webhooks).where(here).values(gone_at=now())).rowcount:
        _give_up_all(connection, delivery.merchant, GONE)
    return recorded


def of_sync(connection: Connection, merchant: str, sync_id: UUID) -> list[Delivery]:
    """What the merchant's webhook was told about a sync, or is to be told, the oldest first."""
    return _found(connection, _deliveries.merchant == merchant, _deliveries.sync_id == sync_id)


def latest(connection: Connection, merchant: str, limit: int) -> list[Delivery]:
    """The newest messages to the merchant's webhook, the newest first."""
    return _found(connection, _deliveries.merchant == merchant, limit=limit)


def pending(connection: Connection) -> PendingDeliveries:
    """Count what is not delivered yet, over all merchants, up to MOST_COUNTED; and how old the oldest is."""
    count, oldest, as_of = connection.execute(_count_pending).one()
    return PendingDeliveries(count, 0.0 if oldest is None else max(0.0, (as_of - oldest).total_seconds()))


def _found(connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None) -> list[Delivery]:
    order = _deliveries.id if limit is None else _deliveries.id.desc()
    return [
        _delivery(row) for row in connection.execute(select(*_columns).where(*conditions).order_by(order).limit(limit))
    ]


def _over(status: DeliveryStatus) -> dict[str, Any]:
    return {"status": status, "next_attempt_at": None, "finished_at": now()}


def _record(
    connection: Connection,
    delivery: Delivery,
    answered: int | None,
    error: str | None,
    *,
    wait: float | None = None,
    **values: Any,
) -> bool:
    latest_attempt = (
        _is_message(delivery.merchant, delivery.id, delivery.sync_id)
        & (_deliveries.attempts == delivery.attempts)
        & _is_pending
    )
    statement = update(webhook_deliveries).where(latest_attempt)
    parameters = {} if wait is None else {"wait": wait}
    return (
        connection.execute(statement.values(last_status=answered, last_error=error, **values), parameters).rowcount > 0
    )


def _give_up_all(connection: Connection, merchant: str, why: str) -> None:
    of_merchant = (_deliveries.merchant == merchant) & _deliveries.next_attempt_at.is_not(None)
    given_up = {**_over(DeliveryStatus.GIVEN_UP), "last_error": why}
    connection.execute(update(webhook_deliveries).where(of_merchant).values(**given_up))


def _delivery(row: Row[Any]) -> Delivery:
    values = row._asdict()
    return Delivery(**{**values, "status": DeliveryStatus(values["status"])})
