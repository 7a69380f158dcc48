"""The merchants' webhooks, and what is to be delivered to them: one function per transition.

A claim's lease is the time of the next attempt: who is lost in between has made one attempt, and another makes the
next. An attempt is recorded where it is still the latest.
"""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Uuid,
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

from product_gateway.db.columns import now
from product_gateway.db.tables import webhook_deliveries, webhooks
from product_gateway.model import Delivery, DeliveryStatus, PendingDeliveries, SyncStatus, Webhook

EVENTS = {
    SyncStatus.SUCCEEDED: "sync.succeeded",
    SyncStatus.FAILED: "sync.failed",
    SyncStatus.CANCELLED: "sync.cancelled",
}
TURNED_OFF = "The webhook was turned off before this was delivered."
GONE = "The receiver answered 410 to another message: it wants no more."

_deliveries = webhook_deliveries.c
_columns = [*webhook_deliveries.c, now().label("as_of")]
_is_pending = _deliveries.status == text("'PENDING'")
_is_on = webhooks.c.gone_at.is_(None)
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
    """The merchant's webhook."""
    row = connection.execute(select(webhooks).where(webhooks.c.merchant == merchant)).first()
    return None if row is None else Webhook(row.url, row.secret, row.gone_at)


def put(connection: Connection, merchant: str, /, **values: str) -> None:
    """Sets `url` or `secret` (encrypted) or both, of one that is there; a new one needs both. From now on it is called.

    What is pending goes to the new address, signed with the new secret.
    """
    changed = {**values, "gone_at": None, "updated_at": now()}
    found = connection.execute(update(webhooks).where(webhooks.c.merchant == merchant).values(**changed))
    if found.rowcount == 0:
        connection.execute(insert(webhooks).values(merchant=merchant, **changed))


def remove(connection: Connection, merchant: str) -> None:
    """Turns it off, and gives up what is pending."""
    connection.execute(delete(webhooks).where(webhooks.c.merchant == merchant))
    _give_up_all(connection, merchant, TURNED_OFF)


def announce(connection: Connection, merchant: str, sync_id: UUID, status: SyncStatus) -> None:
    """Nothing -> PENDING, where the merchant has a webhook: to be called in the transaction that ends the sync."""
    connection.execute(_announce, {"m": merchant, "d": uuid7(), "i": sync_id, "e": EVENTS[status]})


def is_any_due(connection: Connection, busy: Collection[str]) -> bool:
    """Whether a claim is worth a write (a read, so that idle workers disturb nobody)."""
    return connection.execute(_next_due(busy)).first() is not None


def claim(connection: Connection, lease_seconds: float, busy: Collection[str]) -> tuple[Delivery, Webhook] | None:
    """PENDING -> PENDING: the one that has been due longest, for an attempt that must be over within the lease.

    None of the `busy` merchants', so that nobody's receiver can hold up the others'. What has no webhook any more goes
    PENDING -> GIVEN_UP instead.
    """
    while True:
        due = connection.execute(_next_due(busy).with_for_update(skip_locked=True)).first()
        if due is None:
            return None
        this = update(webhook_deliveries).where(_deliveries.merchant == due.merchant, _deliveries.id == due.id)
        webhook = find(connection, due.merchant)
        if webhook is not None and webhook.gone_at is None:
            break
        connection.execute(this.values(**_over(DeliveryStatus.GIVEN_UP), last_error=TURNED_OFF))
    attempt = this.values(
        attempts=_deliveries.attempts + 1, last_attempt_at=now(), next_attempt_at=now(bindparam("lease"))
    )
    return _delivery(connection.execute(attempt.returning(*_columns), {"lease": lease_seconds}).one()), webhook


def _next_due(busy: Collection[str]) -> Select[Any]:
    return (
        select(_deliveries.merchant, _deliveries.id)
        .where(_is_pending, _deliveries.next_attempt_at <= now(), _deliveries.merchant.not_in(sorted(busy)))
        .order_by(_deliveries.next_attempt_at)
        .limit(1)
    )


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


def refuse(connection: Connection, delivery: Delivery, url: str, status: int, error: str) -> bool:
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
    """What is not delivered yet, over all merchants, for operators. Reads the index of what is pending alone."""
    statement = select(func.count(), func.min(_deliveries.created_at), now()).where(_is_pending)
    count, oldest, as_of = connection.execute(statement).one()
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
        (_deliveries.merchant == delivery.merchant)
        & (_deliveries.id == delivery.id)
        & (_deliveries.attempts == delivery.attempts)
        & _is_pending
    )
    statement = update(webhook_deliveries).where(latest_attempt)
    parameters = {} if wait is None else {"wait": wait}
    return (
        connection.execute(statement.values(last_status=answered, last_error=error, **values), parameters).rowcount > 0
    )


def _give_up_all(connection: Connection, merchant: str, why: str) -> None:
    of_merchant = (_deliveries.merchant == merchant) & _is_pending
    given_up = {**_over(DeliveryStatus.GIVEN_UP), "last_error": why}
    connection.execute(update(webhook_deliveries).where(of_merchant).values(**given_up))


def _delivery(row: Row[Any]) -> Delivery:
    values = row._asdict()
    return Delivery(**{**values, "status": DeliveryStatus(values["status"])})
