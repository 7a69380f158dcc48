"""The event log of a sync. Each event is appended in the transaction of the change that it describes.

The first event, QUEUED, has no row: it is derived from the sync. The number of events is bounded, however long a sync
runs: pages are sampled, and repeated kinds stop at a limit.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, insert, select
from uuid_utils.compat import uuid7

from product_gateway.db.tables import sync_events, syncs
from product_gateway.db.types import now
from product_gateway.model.syncs import SyncEvent

# The kinds of events. The last event of a sync has its final status as its kind.
QUEUED = "QUEUED"
CLAIMED = "CLAIMED"  # number: attempt; detail: worker
PAGE = "PAGE"  # number: records read so far; detail: pages read so far
REPEATED = "REPEATED"  # number: retried requests to the product service; detail: the status before each
LEASE_LOST = "LEASE_LOST"  # detail: the lost worker
HANDED_BACK = "HANDED_BACK"
RELEASED = "RELEASED"
MASS_DELETION_ALLOWED = "MASS_DELETION_ALLOWED"  # detail: the operator
PUBLISHED = "PUBLISHED"  # detail: the operator
DISCARDED = "DISCARDED"  # detail: the operator
REVERTED = "REVERTED"  # detail: the operator

FIRST_PAGES = 32  # are all recorded; after them, half as many for each doubling of the number of pages
MOST_REPEATED = 249  # limit for kinds that repeat
MOST = 299  # limit for other kinds, without the first and the last event
LONGEST_DETAIL = 1000

_table = sync_events.c
_of_sync = (_table.merchant == bindparam("m")) & (_table.sync_id == bindparam("i"))
_number = select(func.count()).select_from(sync_events).where(_of_sync).scalar_subquery()
_new = select(
    bindparam("m", type_=_table.merchant.type),
    bindparam("i", type_=_table.sync_id.type),
    bindparam("id", type_=_table.id.type),
    now(),
    bindparam("kind", type_=_table.kind.type),
    bindparam("number", type_=_table.number.type),
    bindparam("detail", type_=_table.detail.type),
).where(_number < bindparam("most"))
_append = insert(sync_events).from_select(["merchant", "sync_id", "id", "at", "kind", "number", "detail"], _new)
_queued_at = select(syncs.c.queued_at).where(syncs.c.merchant == bindparam("m"), syncs.c.id == bindparam("i"))
_rows = select(sync_events).where(_of_sync).order_by(_table.at, _table.id)


def append(
    connection: Connection,
    merchant: str,
    sync_id: UUID,
    kind: str,
    *,
    number: int | None = None,
    detail: str | None = None,
    most: int = MOST,
) -> None:
    """Append an event, unless the sync has `most` events. The kind defines the meaning of `number` and `detail`."""
    values: dict[str, Any] = {"m": merchant, "i": sync_id, "id": uuid7(), "kind": kind, "most": most}
    connection.execute(_append, {**values, "number": number, "detail": detail and detail[:LONGEST_DETAIL]})


def is_sampled(pages_read: int) -> bool:
    """Return whether the page gets an event: every one of the first pages, then at steps that grow with the number."""
    step = 1 << max(0, pages_read.bit_length() - FIRST_PAGES.bit_length() + 1)
    return pages_read <= FIRST_PAGES or pages_read % step == 0


def of_sync(connection: Connection, merchant: str, sync_id: UUID) -> list[SyncEvent]:
    """Return the events of a sync, oldest first; none if there is no such sync."""
    key = {"m": merchant, "i": sync_id}
    first = [SyncEvent(at, QUEUED, None, None) for at in connection.scalars(_queued_at, key)]
    return first + [SyncEvent(row.at, row.kind, row.number, row.detail) for row in connection.execute(_rows, key)]
