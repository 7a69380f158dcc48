"""The sync table for clients and operators: its queries, and one function per state transition."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa

from product_gateway.db import events
from product_gateway.db.admission import ADMISSION_COLUMNS, refusal_of
from product_gateway.db.engines.dialects import PerDialect, ValuesTable
from product_gateway.db.executor import autocommit
from product_gateway.db.page_budget import fitting
from product_gateway.db.tables import ACTIVE, merchants, metadata, sync_problems, syncs, waits_since
from product_gateway.db.types import now
from product_gateway.db.webhooks import EVENTS, enqueue_delivery, pending
from product_gateway.errors import GatewayError, NoActiveSync, SyncNotFound
from product_gateway.model.catalog import Rejection, RejectionGroup
from product_gateway.model.syncs import ActiveSyncs, Counts, EntityType, Publication, Sync, SyncStatus
from product_gateway.model.webhooks import PendingDeliveries

Place = tuple[datetime, UUID]
"""A sync's place in the history: the time of its request, and its id."""

Key = tuple[str, UUID]
"""A sync's merchant and its id."""

KEYS_AT_ONCE = 1000
MAX_CANCELLED_KEPT = 1000  # of each merchant and entity type
SYNC_BODY_BYTES = 1500  # at most, without the detail of a failure

_of_syncs = [table for table in metadata.tables.values() if "sync_id" in table.c]
_sent = ValuesTable("merchant", "id")


def _is_sent(dialect: str) -> sa.ColumnElement[bool]:
    merchant, sync_id = _sent.columns[dialect]
    is_one = _sent.is_one(dialect, merchant=syncs.c.merchant, id=syncs.c.id)
    return sa.and_(syncs.c.merchant == merchant, syncs.c.id == sync_id, is_one)


# In the order in which sync_of takes them.
_told = "id merchant entity_type status queued_at started_at finished_at attempt records_read records_total"
_counted = "created updated unchanged deleted rejected"
_ended = "unidentified not_removed failure_code failure_detail publication generation reverts"
columns = [*(syncs.c[name] for name in f"{_told} {_counted} {_ended}".split()), now().label("as_of")]
# In a tenth of the time of EntityType(…).
_entity_types, _statuses = {each.value: each for each in EntityType}, {each.value: each for each in SyncStatus}
_of_type = (syncs.c.merchant == sa.bindparam("m")) & (syncs.c.entity_type == sa.bindparam("t"))

_select_all_active = (
    sa.select(syncs.c.entity_type, syncs.c.status, sa.func.count(), sa.func.min(syncs.c.queued_at))
    .where(sa.text(ACTIVE))
    .group_by(syncs.c.entity_type, syncs.c.status)
)
_select_first_in_line = (
    sa.select(waits_since).where(syncs.c.status == sa.text("'QUEUED'")).order_by(waits_since, syncs.c.id).limit(1)
)
_select_now = sa.select(now())
_select_latest = sa.select(*columns).where(_of_type).order_by(syncs.c.queued_at.desc(), syncs.c.id.desc()).limit(1)
_select_one = sa.select(*columns).where(syncs.c.merchant == sa.bindparam("m"), syncs.c.id == sa.bindparam("i"))


def ended(status: SyncStatus) -> dict[str, Any]:
    """Return what an UPDATE sets to end a sync."""
    return {"status": status, "finished_at": now(), "lease_expires_at": None, "lease_owner": None}


# By a statement of its own: the end is then later than what its row has waited for, such as its start.
_lock_active = sa.select(syncs.c.id).where(_of_type, sa.text(ACTIVE)).with_for_update()
# As of its end: the time of a statement is the same everywhere in it.
_cancel = (
    sa.update(syncs)
    .where(_of_type, sa.text(ACTIVE))
    .values(**ended(SyncStatus.CANCELLED))
    .returning(*columns[:-1], syncs.c.finished_at.label("as_of"))
)
_cancel_all = (
    sa.update(syncs)
    .where(syncs.c.merchant == sa.bindparam("m"), sa.text(ACTIVE))
    .values(**ended(SyncStatus.CANCELLED))
    .returning(syncs.c.id)
)


def _make_select_wanted(dialect: str) -> sa.Select[Any]:
    merchant, sync_id = _sent.columns[dialect]
    wanted = (merchant.label("wanted_of"), sa.type_coerce(sync_id, sa.Uuid).label("wanted_id"))
    return sa.select(*wanted, *columns).select_from(_sent.tables[dialect].outerjoin(syncs, _is_sent(dialect)))


_select_wanted = PerDialect(_make_select_wanted)
_is_gone_or_ended = sa.or_(syncs.c.id.is_(None), syncs.c.finished_at.is_not(None))
_select_ended = PerDialect(lambda dialect: _select_wanted[dialect].where(_is_gone_or_ended))


def _make_select_many(dialect: str) -> sa.Select[Any]:
    merchant, _ = _sent.columns[dialect]
    admitted = _sent.tables[dialect].outerjoin(merchants, merchants.c.name == merchant)
    return (
        sa.select(*ADMISSION_COLUMNS, *columns)
        .select_from(admitted.outerjoin(syncs, _is_sent(dialect)))
        .order_by(_sent.place[dialect])
    )


_select_many = PerDialect(_make_select_many)
_select_surplus = (
    sa.select(syncs.c.merchant, syncs.c.id)
    .where(_of_type, syncs.c.status == sa.text("'CANCELLED'"))
    .order_by(syncs.c.queued_at.desc(), syncs.c.id.desc())
    .offset(MAX_CANCELLED_KEPT)
    .limit(10)
)


def cancel(
    connection: sa.Connection,
    merchant: str,
    entity_type: EntityType,
    sync_id: UUID | None = None,
    why: str | None = None,
) -> Sync:
    """QUEUED or IN_PROGRESS -> CANCELLED; with an id, only if it is that one. Raises NoActiveSync.

    Drops cancelled syncs beyond the newest MAX_CANCELLED_KEPT, so that a client that enqueues and cancels in a loop
    does not fill the database.
    """
    key = {"m": merchant, "t": entity_type}
    this = _cancel if sync_id is None else _cancel.where(syncs.c.id == sync_id)
    row = connection.execute(this, key).first() if connection.execute(_lock_active, key).first() else None
    if row is None:
        raise NoActiveSync(entity_type)
    record_end(connection, merchant, row.id, SyncStatus.CANCELLED, why)
    _drop(connection, connection.execute(_select_surplus, key).all())
    return sync_of(row)


def cancel_all(connection: sa.Connection, merchant: str, why: str) -> None:
    """QUEUED or IN_PROGRESS -> CANCELLED, for every active sync of the merchant."""
    for sync_id in connection.scalars(_cancel_all, {"m": merchant}).all():
        record_end(connection, merchant, sync_id, SyncStatus.CANCELLED, why)


def record_end(connection: sa.Connection, merchant: str, sync_id: UUID, status: SyncStatus, why: str | None) -> None:
    """Enqueue the webhook message of a sync that ends, and append its last event."""
    enqueue_delivery(connection, merchant, sync_id, EVENTS[status])
    events.append(connection, merchant, sync_id, status, detail=why, most=events.MOST + 1)


def get(connection: sa.Connection, merchant: str, sync_id: UUID) -> Sync:
    """Return the sync. Raises SyncNotFound, also for another merchant's sync."""
    row = connection.execute(_select_one, {"m": merchant, "i": sync_id}).first()
    if row is None:
        raise SyncNotFound(sync_id)
    return sync_of(row)


@autocommit
def get_many(connection: sa.Connection, keys: Sequence[Key]) -> list[Sync | GatewayError]:
    """Return the sync of each key, or why there is none: SyncNotFound or the merchant's refusal."""
    rows = connection.execute(_select_many[connection.dialect.name], _sent.parameters(connection, keys)).all()
    return [
        refusal_of(row) or (SyncNotFound(sync_id) if row.id is None else sync_of(row))
        for row, (_, sync_id) in zip(rows, keys, strict=True)
    ]


def ended_among(
    connection: sa.Connection, waited_for: Sequence[Key], in_any_status: Sequence[Key]
) -> tuple[list[Sync], list[Key]]:
    """Return the syncs found and the keys that are gone.

    A sync of `waited_for` is returned only if it has ended; a sync of `in_any_status` is always returned. A sync is
    gone when its merchant was removed. Only rows with these keys are read.
    """
    found: list[Sync] = []
    gone: list[Key] = []
    for select, keys in ((_select_ended, waited_for), (_select_wanted, in_any_status)):
        for first in range(0, len(keys), KEYS_AT_ONCE):
            some = _sent.parameters(connection, keys[first : first + KEYS_AT_ONCE])
            for row in connection.execute(select[connection.dialect.name], some):
                if row.id is None:
                    gone.append((row.wanted_of, row.wanted_id))
                else:
                    found.append(sync_of(row))
    return found, gone


def latest(connection: sa.Connection, merchant: str, entity_type: EntityType) -> Sync | None:
    """Return the sync that was requested last."""
    row = connection.execute(_select_latest, {"m": merchant, "t": entity_type}).first()
    return None if row is None else sync_of(row)


def active(connection: sa.Connection) -> list[ActiveSyncs]:
    """Return the numbers of queued and running syncs of all merchants. Reads only the index of active syncs."""
    groups = connection.execute(_select_all_active).all()
    # The groups are read from an index without `released_at`. No sync has waited longer than the first in line.
    waits = connection.scalar(_select_first_in_line) if groups else None
    as_of = connection.execute(_select_now).scalar_one()
    return [
        ActiveSyncs(
            EntityType(entity_type),
            SyncStatus(status),
            number,
            max(0.0, (as_of - (max(oldest, waits) if status == "QUEUED" and waits else oldest)).total_seconds()),
        )
        for entity_type, status, number, oldest in groups
    ]


def unfinished(connection: sa.Connection) -> tuple[list[ActiveSyncs], PendingDeliveries]:
    """Return the active syncs and the pending webhook messages, as of one moment."""
    return active(connection), pending(connection)


def problems(connection: sa.Connection, merchant: str, sync_id: UUID) -> list[RejectionGroup]:
    """Return the records that the sync rejected by code, the most frequent first. Raises SyncNotFound."""
    get(connection, merchant, sync_id)
    table = sync_problems.c
    rows = connection.execute(
        sa.select(table.code, table.count, table.samples)
        .where(table.merchant == merchant, table.sync_id == sync_id)
        .order_by(table.count.desc(), table.code)
    )
    return [
        RejectionGroup(code, count, tuple(Rejection(code, *sample) for sample in orjson.loads(samples)))
        for code, count, samples in rows
    ]


def history(
    connection: sa.Connection,
    merchant: str,
    entity_type: EntityType | None,
    status: SyncStatus | None,
    before: Place | None,
    limit: int,
) -> tuple[list[Sync], Place | None]:
    """Return the merchant's syncs, newest first, and the place of the last one if more follow.

    Returns at most `limit`, and fewer if their failure details exceed the byte budget of a response. Selects each
    entity type by itself, so that one index serves with and without the filter.
    """
    conditions: list[sa.ColumnElement[bool]] = [] if status is None else [syncs.c.status == status]
    if before is not None:
        conditions.append(sa.tuple_(syncs.c.queued_at, syncs.c.id) < sa.tuple_(*before))
    found: list[Sync] = []
    for each in EntityType if entity_type is None else (entity_type,):
        rows = connection.execute(
            sa.select(*columns)
            .where(_of_type, *conditions)
            .order_by(syncs.c.queued_at.desc(), syncs.c.id.desc())
            .limit(limit + 1),
            {"m": merchant, "t": each},
        )
        found += [sync_of(row) for row in rows]
    found.sort(key=lambda sync: (sync.queued_at, sync.id), reverse=True)
    sizes = (SYNC_BODY_BYTES + len((each.failure_detail or "").encode()) for each in found[:limit])
    shown = found[: fitting(sizes)]
    return shown, (shown[-1].queued_at, shown[-1].id) if len(found) > len(shown) else None


def prune(connection: sa.Connection, days: float, limit: int, cancelled_days: float | None = None) -> int:
    """Ended -> deleted: syncs that ended more than `days` ago, and cancelled ones after `cancelled_days`.

    Deletes at most `limit` with everything about them, and returns their number. Keeps the latest sync of each merchant
    and entity type, because the catalog's state refers to it.
    """
    newer = syncs.alias()
    is_newer = sa.and_(
        newer.c.merchant == syncs.c.merchant,
        newer.c.entity_type == syncs.c.entity_type,
        sa.tuple_(newer.c.queued_at, newer.c.id) > sa.tuple_(syncs.c.queued_at, syncs.c.id),
    )
    is_old = (syncs.c.finished_at < now(sa.bindparam("age"))) & sa.select(newer.c.id).where(is_newer).exists()
    old = sa.select(syncs.c.merchant, syncs.c.id).where(is_old).limit(limit)
    dropped = _drop(connection, connection.execute(old, {"age": -days * 86400}).all())
    if cancelled_days is None or cancelled_days >= days:
        return dropped
    # By the index of each status, which is in the order of queued_at: it also bounds finished_at, which is later.
    for entity_type in EntityType:
        of_status = (syncs.c.status == sa.text("'CANCELLED'")) & (syncs.c.entity_type == sa.text(f"'{entity_type}'"))
        cancelled = old.where(of_status, syncs.c.queued_at < now(sa.bindparam("age"))).limit(limit - dropped)
        dropped += _drop(connection, connection.execute(cancelled, {"age": -cancelled_days * 86400}).all())
    return dropped


def _drop(connection: sa.Connection, keys: Sequence[sa.Row[str, UUID]]) -> int:
    for merchant, sync_id in keys:
        for table in _of_syncs:
            connection.execute(sa.delete(table).where(table.c.merchant == merchant, table.c.sync_id == sync_id))
        connection.execute(sa.delete(syncs).where(syncs.c.merchant == merchant, syncs.c.id == sync_id))
    return len(keys)


def sync_of(row: sa.Row[Any]) -> Sync:
    """Return the sync of a row that ends with `columns`. Takes them by place, in a third of the time of names."""
    sync_id, merchant, entity_type, status, queued_at, *more, as_of = row[-len(columns) :]
    of_sync = (sync_id, merchant, _entity_types[entity_type], _statuses[status], queued_at, as_of)
    *failure, publication, generation, reverts = more[10:]
    outcome = (*failure, publication and Publication(publication), generation, reverts)
    return Sync(*of_sync, *(*more[:5], Counts(*more[5:10]), *outcome))
