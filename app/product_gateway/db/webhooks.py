"""Webhooks of merchants, and the deliveries to them. One function per state transition.

A claim moves the time of the next attempt to the end of its lease. If the worker is lost, another worker makes the next
attempt then. The result of an attempt is recorded only if it is still the latest attempt.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from uuid_utils.compat import uuid7

from product_gateway.db.tables import webhook_deliveries, webhooks
from product_gateway.db.types import now
from product_gateway.model.catalog import StaleCatalog
from product_gateway.model.syncs import EntityType, SyncStatus
from product_gateway.model.webhooks import Delivery, DeliveryStatus, PendingDeliveries, Webhook

EVENTS = {
    SyncStatus.SUCCEEDED: "sync.succeeded",
    SyncStatus.FAILED: "sync.failed",
    SyncStatus.CANCELLED: "sync.cancelled",
}
SYNC_PUBLISHED = "sync.published"
CATALOG_STALE = "catalog.stale"
TURNED_OFF = "The webhook was turned off before this was delivered."
DUE_LOOKED_AT = 50  # messages that a claim reads before it searches by merchant
MOST_COUNTED = 10_000
GONE = "The receiver answered 410 to another message: it accepts no more messages."
OVERLAP_SECONDS = 24 * 3600.0  # messages are signed with the previous secret, too


class Message(NamedTuple):
    """The key of a row."""

    merchant: str
    id: UUID


_select_one = sa.select(webhooks, (webhooks.c.previous_secret_until > now()).label("overlaps")).where(
    webhooks.c.merchant == sa.bindparam("m")
)
_deliveries = webhook_deliveries.c
_columns = [*webhook_deliveries.c, now().label("as_of")]
_is_pending = _deliveries.status == sa.text("'PENDING'")
_is_on = webhooks.c.gone_at.is_(None)


def _is_message(merchant: Any, message: Any) -> sa.ColumnElement[bool]:
    return sa.and_(_deliveries.merchant == merchant, _deliveries.id == message)


# Evaluated once: PostgreSQL uses an index for a comparison with this, but not with clock_timestamp() itself.
_now_once = sa.select(now()).scalar_subquery()
_due_longest = (
    sa.select(_deliveries.merchant, _deliveries.id)
    .where(_deliveries.next_attempt_at <= _now_once)
    .order_by(_deliveries.next_attempt_at)
    .limit(DUE_LOOKED_AT)
)
_lock = (
    sa.select((_is_pending & (_deliveries.next_attempt_at <= now())).label("is_due"))
    .where(_is_message(sa.bindparam("merchant"), sa.bindparam("id")))
    .with_for_update(skip_locked=True)
)


def _select_due_of_each() -> sa.Select[Any]:
    """Select each merchant's message that has been due longest, by a loose index scan over the merchants.

    In the order of the index, the first row after a merchant's rows is the next merchant's earliest message.
    """
    read = (_deliveries.merchant, _deliveries.id, _deliveries.next_attempt_at)

    def first(*conditions: sa.ColumnElement[bool]) -> list[sa.ColumnElement[Any]]:
        here = (_deliveries.next_attempt_at.is_not(None), *conditions)
        order = (_deliveries.merchant, _deliveries.next_attempt_at, _deliveries.id)
        return [
            sa.select(each).where(*here).order_by(*order).limit(1).scalar_subquery().label(each.name) for each in read
        ]

    earliest = sa.select(*first()).cte("earliest", recursive=True)
    following = first(_deliveries.merchant > earliest.c.merchant)
    earliest = earliest.union_all(sa.select(*following).where(earliest.c.merchant.is_not(None)))
    return (
        sa.select(earliest.c.merchant, earliest.c.id)
        .where(earliest.c.next_attempt_at <= _now_once)
        .order_by(earliest.c.next_attempt_at)
    )


_due_of_each = _select_due_of_each()
# Without statistics, PostgreSQL may sort all pending messages for each step of the scan.
_do_not_sort = sa.text(
    "SELECT set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true)"
)
_oldest_pending = (
    sa.select(_deliveries.created_at)
    .where(_deliveries.next_attempt_at.is_not(None))
    .order_by(_deliveries.created_at)
    .limit(MOST_COUNTED)
    .subquery()
)
_count_pending = sa.select(sa.func.count(), sa.func.min(_oldest_pending.c.created_at), now())


def _make_enqueue(*names: str) -> sa.Insert:
    """Insert a message with these columns, which are the parameters, if the merchant `m` has a webhook."""
    values = (sa.bindparam(name, type_=_deliveries[name].type) for name in names)
    pending = sa.literal("PENDING", _deliveries.status.type)
    return sa.insert(webhook_deliveries).from_select(
        ["merchant", *names, "status", "created_at", "next_attempt_at"],
        sa.select(webhooks.c.merchant, *values, pending, now(), now()).where(
            webhooks.c.merchant == sa.bindparam("m"), _is_on
        ),
    )


_enqueue = _make_enqueue("id", "sync_id", "event")
_enqueue_stale = _make_enqueue("id", "event", "entity_type", "published_at", "stale_after")
_select_old = sa.select(_deliveries.merchant, _deliveries.id).where(
    _deliveries.sync_id.is_(None), _deliveries.finished_at < sa.select(now(sa.bindparam("age"))).scalar_subquery()
)


def find(connection: sa.Connection, merchant: str) -> Webhook | None:
    """Return the merchant's webhook. It has its previous secret only while messages are signed with both."""
    row = connection.execute(_select_one, {"m": merchant}).first()
    if row is None:
        return None
    previous = (row.previous_secret, row.previous_secret_until) if row.overlaps else (None, None)
    return Webhook(row.url, row.secret, row.gone_at, *previous)


def put(connection: sa.Connection, merchant: str, /, **values: str) -> None:
    """Set `url`, `secret` (encrypted) or both, and enable the webhook. A new webhook needs both.

    Pending messages go to the new URL. For a day, messages are signed with the new and with the previous secret.
    """
    changed = {**values, "gone_at": None, "updated_at": now()}
    before: dict[str, Any] = {}
    parameters: dict[str, float] = {}
    if "secret" in values:
        before = {"previous_secret": webhooks.c.secret, "previous_secret_until": now(sa.bindparam("overlap"))}
        parameters = {"overlap": OVERLAP_SECONDS}
    of_merchant = sa.update(webhooks).where(webhooks.c.merchant == merchant)
    if connection.execute(of_merchant.values(**changed, **before), parameters).rowcount == 0:
        connection.execute(sa.insert(webhooks).values(merchant=merchant, **changed))


def remove(connection: sa.Connection, merchant: str) -> None:
    """Remove the merchant's webhook. PENDING -> GIVEN_UP for all its pending messages."""
    connection.execute(sa.delete(webhooks).where(webhooks.c.merchant == merchant))
    _give_up_all(connection, merchant, TURNED_OFF)


def enqueue_delivery(connection: sa.Connection, merchant: str, sync_id: UUID, event: str) -> None:
    """Nothing -> PENDING, if the merchant has a webhook. Call it in the transaction that ends or publishes the sync."""
    connection.execute(_enqueue, {"m": merchant, "id": uuid7(), "sync_id": sync_id, "event": event})


def enqueue_stale(connection: sa.Connection, found: Sequence[StaleCatalog]) -> None:
    """Nothing -> PENDING for each catalog whose merchant has a webhook, in the transaction that marks the lapses."""
    names = ("entity_type", "published_at", "stale_after")
    rows = [
        {"m": each.merchant, "id": uuid7(), "event": CATALOG_STALE} | {name: getattr(each, name) for name in names}
        for each in found
    ]
    if rows:
        connection.execute(_enqueue_stale, rows)


def prune(connection: sa.Connection, days: float, limit: int) -> int:
    """DELIVERED or GIVEN_UP -> deleted: at most `limit` messages about no sync that ended more than `days` ago."""
    old = connection.execute(_select_old.limit(limit), {"age": -days * 86400}).all()
    for each in old:
        connection.execute(sa.delete(webhook_deliveries).where(_is_message(*each)))
    return len(old)


def has_due(connection: sa.Connection, busy: Collection[str]) -> bool:
    """Return whether there is a message to claim. Only reads, so that idle workers do not take SQLite's write lock."""
    return bool(_due(connection, busy))


def claim(connection: sa.Connection, lease_seconds: float, busy: Collection[str]) -> tuple[Delivery, Webhook] | None:
    """PENDING -> PENDING: claim the message that has been due longest, for one attempt within the lease.

    Skips `busy` merchants, so that a slow receiver delays only its own messages. A message whose webhook was removed
    goes PENDING -> GIVEN_UP instead.
    """
    while True:
        # Skips what another worker has locked or claimed.
        due = next((each for each in _due(connection, busy) if connection.scalar(_lock, each._asdict())), None)
        if due is None:
            return None
        this = sa.update(webhook_deliveries).where(_is_message(*due))
        webhook = find(connection, due[0])
        if webhook is not None and webhook.gone_at is None:
            break
        connection.execute(this.values(**_ended(DeliveryStatus.GIVEN_UP), last_error=TURNED_OFF))
    attempt = this.values(
        attempts=_deliveries.attempts + 1, last_attempt_at=now(), next_attempt_at=now(sa.bindparam("lease"))
    )
    return _delivery(connection.execute(attempt.returning(*_columns), {"lease": lease_seconds}).one()), webhook


def _due(connection: sa.Connection, busy: Collection[str]) -> list[Message]:
    """Return some due messages of merchants that are not busy, those that have been due longest first.

    Reads a bounded number of rows. If all of these are of busy merchants, reads a few rows of each merchant.
    """
    found = connection.execute(_due_longest).all()
    free = [Message(*each) for each in found if each.merchant not in busy]
    if free or len(found) < DUE_LOOKED_AT:
        return free
    if connection.dialect.name == "postgresql":
        connection.execute(_do_not_sort)
    return [Message(*each) for each in connection.execute(_due_of_each) if each.merchant not in busy]


def succeed(connection: sa.Connection, delivery: Delivery, status: int) -> bool:
    """PENDING -> DELIVERED. Returns False if the attempt is no longer the latest."""
    return _record(connection, delivery, status, None, **_ended(DeliveryStatus.DELIVERED))


def retry(
    connection: sa.Connection, delivery: Delivery, status: int | None, error: str | None, wait_seconds: float
) -> bool:
    """PENDING -> PENDING with another attempt in `wait_seconds`. Returns False if this is no longer the latest."""
    return _record(connection, delivery, status, error, wait=wait_seconds, next_attempt_at=now(sa.bindparam("wait")))


def give_up(connection: sa.Connection, delivery: Delivery, status: int | None, error: str) -> bool:
    """PENDING -> GIVEN_UP. Returns False if the attempt is no longer the latest."""
    return _record(connection, delivery, status, error, **_ended(DeliveryStatus.GIVEN_UP))


def disable_gone(connection: sa.Connection, delivery: Delivery, url: str, status: int, error: str) -> bool:
    """PENDING -> GIVEN_UP for all pending messages of the merchant, and disable the webhook: its receiver is gone.

    Returns False if the attempt is no longer the latest. A webhook with another URL meanwhile stays enabled.
    """
    recorded = give_up(connection, delivery, status, error)
    here = (webhooks.c.merchant == delivery.merchant) & (webhooks.c.url == url) & _is_on
    if connection.execute(sa.update(webhooks).where(here).values(gone_at=now())).rowcount:
        _give_up_all(connection, delivery.merchant, GONE)
    return recorded


def of_sync(connection: sa.Connection, merchant: str, sync_id: UUID) -> list[Delivery]:
    """Return the messages about a sync, oldest first."""
    return _select(connection, _deliveries.merchant == merchant, _deliveries.sync_id == sync_id)


def latest(connection: sa.Connection, merchant: str, limit: int) -> list[Delivery]:
    """Return the latest messages to the merchant's webhook, newest first."""
    return _select(connection, _deliveries.merchant == merchant, limit=limit)


def pending(connection: sa.Connection) -> PendingDeliveries:
    """Return the number of pending messages of all merchants, up to MOST_COUNTED, and the age of the oldest."""
    count, oldest, as_of = connection.execute(_count_pending).one()
    return PendingDeliveries(count, 0.0 if oldest is None else max(0.0, (as_of - oldest).total_seconds()))


def _select(connection: sa.Connection, *conditions: sa.ColumnElement[bool], limit: int | None = None) -> list[Delivery]:
    order = _deliveries.id if limit is None else _deliveries.id.desc()
    rows = connection.execute(sa.select(*_columns).where(*conditions).order_by(order).limit(limit))
    return [_delivery(row) for row in rows]


def _ended(status: DeliveryStatus) -> dict[str, Any]:
    return {"status": status, "next_attempt_at": None, "finished_at": now()}


def _record(
    connection: sa.Connection,
    delivery: Delivery,
    answered: int | None,
    error: str | None,
    *,
    wait: float | None = None,
    **values: Any,
) -> bool:
    here = _is_message(delivery.merchant, delivery.id)
    latest_attempt = here & (_deliveries.attempts == delivery.attempts) & _is_pending
    change = (
        sa.update(webhook_deliveries).where(latest_attempt).values(last_status=answered, last_error=error, **values)
    )
    return connection.execute(change, {} if wait is None else {"wait": wait}).rowcount > 0


def _give_up_all(connection: sa.Connection, merchant: str, why: str) -> None:
    of_merchant = (_deliveries.merchant == merchant) & _deliveries.next_attempt_at.is_not(None)
    given_up = {**_ended(DeliveryStatus.GIVEN_UP), "last_error": why}
    connection.execute(sa.update(webhook_deliveries).where(of_merchant).values(**given_up))


def _delivery(row: sa.Row[Any]) -> Delivery:
    values = row._asdict()
    about = values["entity_type"]
    enums = {"status": DeliveryStatus(values["status"]), "entity_type": about and EntityType(about)}
    return Delivery(**{**values, **enums})
