"""Webhooks of merchants, and the deliveries to them. One function per state transition.

A claim moves the time of the next attempt to the end of its lease. If the worker is lost, another worker makes the next
attempt then. The result of an attempt is recorded only if it is still the latest attempt.
"""

import random
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
MOST_STEPS = 20  # of a search by merchant, each of DUE_LOOKED_AT rows
MOST_TRIES = 20  # of one claim
GONE = "The receiver answered 410 to another message: it accepts no more messages."
OVERLAP_SECONDS = 24 * 3600.0  # messages are signed with the previous secret, too


class Message(NamedTuple):
    """A due message: the key of its row, and the attempts so far."""

    merchant: str
    id: UUID
    attempts: int


_select_one = sa.select(webhooks, (webhooks.c.previous_secret_until > now()).label("overlaps")).where(
    webhooks.c.merchant == sa.bindparam("m")
)
_deliveries = webhook_deliveries.c
_columns = [*webhook_deliveries.c, now().label("as_of")]
_is_pending = _deliveries.status == sa.text("'PENDING'")
_is_on = webhooks.c.gone_at.is_(None)


def _is_message(merchant: Any, message: Any) -> sa.ColumnElement[bool]:
    return sa.and_(_deliveries.merchant == merchant, _deliveries.id == message)


# A subquery: with the statistics of an hour ago, PostgreSQL would take few messages for due, and sort all that are.
_now_once = sa.select(now()).scalar_subquery()
_due_longest = (
    sa.select(_deliveries.merchant, _deliveries.id, _deliveries.attempts)
    .where(_deliveries.next_attempt_at <= _now_once)
    .order_by(_deliveries.next_attempt_at)
    .limit(DUE_LOOKED_AT)
)
# In the order of the index, the first row after a merchant's rows is the next merchant's earliest message.
_next_merchants = (
    sa.select(
        *(_deliveries.merchant, _deliveries.id, _deliveries.attempts, _deliveries.next_attempt_at),
        (_deliveries.next_attempt_at <= now()).label("is_due"),
    )
    .where(_deliveries.next_attempt_at.is_not(None), _deliveries.merchant > sa.bindparam("after"))
    .order_by(_deliveries.merchant, _deliveries.next_attempt_at, _deliveries.id)
    .limit(DUE_LOOKED_AT)
)
# The message as it was read: each claim counts an attempt.
_as_read = sa.and_(
    _is_message(sa.bindparam("m"), sa.bindparam("i")),
    _deliveries.attempts == sa.bindparam("read_attempts"),
    _is_pending,
    _deliveries.next_attempt_at <= now(),
)
_attempt = (
    sa.update(webhook_deliveries)
    .where(_as_read)
    .values(attempts=_deliveries.attempts + 1, last_attempt_at=now(), next_attempt_at=now(sa.bindparam("lease")))
    .returning(*webhook_deliveries.c, _deliveries.last_attempt_at.label("as_of"))
)
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

    Optimistic, as `claims.claim`: the oldest message first, and a random one after a race that another worker has won.
    """
    due = _due(connection, busy)
    for _ in range(MOST_TRIES):
        if not due:
            return None
        message = due.pop(0)
        read = {"m": message.merchant, "i": message.id, "read_attempts": message.attempts}
        webhook = find(connection, message.merchant)
        if webhook is None or webhook.gone_at is not None:
            turned_off = {**_ended(DeliveryStatus.GIVEN_UP), "last_error": TURNED_OFF}
            connection.execute(sa.update(webhook_deliveries).where(_as_read).values(**turned_off), read)
            due = due or _due(connection, busy)
            continue
        row = connection.execute(_attempt, {**read, "lease": lease_seconds}).first()
        if row is not None:
            return _delivery(row), webhook
        random.shuffle(due)
    return None


def _due(connection: sa.Connection, busy: Collection[str]) -> list[Message]:
    """Return some due messages of merchants that are not busy, those that have been due longest first.

    Reads a bounded number of rows. If all of these are of busy merchants, reads a few rows of other merchants.
    """
    found = connection.execute(_due_longest).all()
    free = [Message(*each) for each in found if each.merchant not in busy]
    if free or len(found) < DUE_LOOKED_AT:
        return free
    if connection.dialect.name == "postgresql":
        connection.execute(_do_not_sort)
    return _due_of_each(connection, busy)


def _due_of_each(connection: sa.Connection, busy: Collection[str]) -> list[Message]:
    """Return the earliest message of each merchant where it is due, by a loose index scan over the merchants.

    Starts after a random busy merchant and ends after MOST_STEPS, so that a later call begins elsewhere.
    """
    start = after = random.choice(sorted(busy))  # noqa: S311 - no secret
    found: dict[str, Any] = {}
    for _ in range(MOST_STEPS):
        rows = connection.execute(_next_merchants, {"after": after}).all()
        for row in rows:
            found.setdefault(row.merchant, row)
        is_last = len(rows) < DUE_LOOKED_AT
        before, after = after, "" if is_last else rows[-1].merchant
        if before < start and (is_last or after >= start):
            break
    due = [row for row in found.values() if row.is_due and row.merchant not in busy]
    return [Message(*row[:3]) for row in sorted(due, key=lambda row: row.next_attempt_at)]


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
