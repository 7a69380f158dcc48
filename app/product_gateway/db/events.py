"""What happened to a sync, in order: each event is appended in the transaction that makes it true.

That it was asked for is its first event, and no row: the sync itself says when.

A sync has no more than some hundred events, however long it runs: pages are sampled, and repetitions stop being told.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, insert, select, text
from uuid_utils.compat import uuid7

from product_gateway.db.tables import sync_events, syncs
from product_gateway.db.types import now
from product_gateway.model.syncs import SyncEvent

# What happens before the end, which is called as the status is.
QUEUED = "QUEUED"
CLAIMED = "CLAIMED"  # number: which attempt; detail: the worker
PAGE = "PAGE"  # number: records read by then; detail: pages
REPEATED = "REPEATED"  # number: requests to the product service that had to be made again
LEASE_LOST = "LEASE_LOST"  # detail: the worker that was not heard of any more
HANDED_BACK = "HANDED_BACK"
RELEASED = "RELEASED"
MASS_DELETION_ALLOWED = "MASS_DELETION_ALLOWED"  # detail: by whom

FIRST_PAGES = 32  # each of them is told; of those behind, as many as are half of these for each doubling
MOST_REPEATED = 249  # pages and repetitions
MOST = 299  # the first and the end come on top
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
_asked_for = select(syncs.c.queued_at).where(syncs.c.merchant == bindparam("m"), syncs.c.id == bindparam("i"))
# Before, it was a row as well.
_behind = select(sync_events).where(_of_sync, _table.kind != text(f"'{QUEUED}'")).order_by(_table.at, _table.id)


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
    """One more event, unless the sync has `most`. What `number` and `detail` mean depends on the kind."""
    values: dict[str, Any] = {"m": merchant, "i": sync_id, "id": uuid7(), "kind": kind, "most": most}
    connection.execute(_append, {**values, "number": number, "detail": detail and detail[:LONGEST_DETAIL]})


def is_told(pages_read: int) -> bool:
    """Whether the page is one of those that stand for the pages around it.

    The first ones all do; behind them the steps grow with the number, so that any pull has some dozens.
    """
    step = 1 << max(0, pages_read.bit_length() - FIRST_PAGES.bit_length() + 1)
    return pages_read <= FIRST_PAGES or pages_read % step == 0


def of_sync(connection: Connection, merchant: str, sync_id: UUID) -> list[SyncEvent]:
    """In the order in which they happened; none where there is no such sync."""
    key = {"m": merchant, "i": sync_id}
    first = [SyncEvent(at, QUEUED, None, None) for at in connection.scalars(_asked_for, key)]
    return first + [SyncEvent(row.at, row.kind, row.number, row.detail) for row in connection.execute(_behind, key)]
