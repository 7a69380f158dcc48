"""Queries of the operators' monitor over all merchants: active syncs, failures and history.

Each query takes a fixed number of statements, and each statement reads an index from one end.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, or_, select, text, tuple_, union_all

from product_gateway.db import catalog, catalog_removal, events, freshness, generations, reverts, syncs, webhooks
from product_gateway.db.admission import require_active
from product_gateway.db.enqueue import enqueue
from product_gateway.db.syncs import Place, columns, sync_of
from product_gateway.db.tables import catalog_counts, merchants, waits_since
from product_gateway.db.tables import syncs as table
from product_gateway.db.types import now
from product_gateway.errors import SyncNotFound
from product_gateway.model.catalog import RejectionGroup, StaleCatalog
from product_gateway.model.syncs import ActiveSyncs, CatalogSize, EntityType, Sync, SyncEvent, SyncStatus
from product_gateway.model.webhooks import Delivery

MOST_ACTIVE = 50  # syncs on the overview; all others are in the list
MOST_FAILURES = 500  # latest failures in which failure streaks are searched
MOST_FAILING = 8  # failure streaks on the overview
MOST_LAPSED = 8  # catalogs older than their max age, on the overview
MOST_CATALOGS = 200  # oldest catalogs in which those of active merchants are searched
MOST_STALE = 10  # catalogs on the overview


@dataclass(frozen=True, slots=True)
class SyncRow:
    """A sync and its worker's lease."""

    sync: Sync
    lease_owner: str | None
    lease_expires_at: datetime | None
    heartbeat_at: datetime | None
    lost_workers: int

    @property
    def is_stuck(self) -> bool:
        """Whether the lease has expired."""
        return self.lease_expires_at is not None and self.lease_expires_at < self.sync.as_of


@dataclass(frozen=True, slots=True)
class FailureStreak:
    """Consecutive failures of a merchant's entity type: the last one, their number, and when they began."""

    last: Sync
    times: int
    since: datetime
    runs_again: bool


@dataclass(frozen=True, slots=True)
class Freshness:
    """A merchant's catalog of one entity type, and when its last successful sync finished."""

    merchant: str
    entity_type: EntityType
    updated_at: datetime
    records: int


@dataclass(frozen=True, slots=True)
class Overview:
    """Active syncs, failures and oldest catalogs now. `groups` counts all active syncs; the other lists are limited."""

    groups: list[ActiveSyncs]
    active: list[SyncRow]
    stuck: list[SyncRow]
    failing: list[FailureStreak]
    failing_in_all: int
    stale: list[StaleCatalog]
    stale_in_all: int
    stalest: list[Freshness]
    as_of: datetime


@dataclass(frozen=True, slots=True)
class SyncDetail:
    """One sync with its events, deliveries and problems, and the size of its merchant's catalog."""

    run: SyncRow
    events: list[SyncEvent]
    deliveries: list[Delivery]
    problems: list[RejectionGroup]
    catalog: dict[EntityType, CatalogSize]


_status = table.c.status
_lease_columns = (table.c.lease_owner, table.c.lease_expires_at, table.c.heartbeat_at, table.c.lost_workers)
_stuck = (
    select(*_lease_columns, *columns)
    .where(_status == text("'IN_PROGRESS'"), table.c.lease_expires_at < now())
    .order_by(table.c.queued_at, table.c.id)
    .limit(MOST_ACTIVE)
)
_active = [
    select(*_lease_columns, *columns).where(_status == text(f"'{each}'")).order_by(since, table.c.id).limit(MOST_ACTIVE)
    for each, since in ((SyncStatus.IN_PROGRESS, table.c.queued_at), (SyncStatus.QUEUED, waits_since))
]
_newest_first = (table.c.queued_at.desc(), table.c.id.desc())
_oldest = (
    select(*(catalog_counts.c[name] for name in ("merchant", "entity_type", "updated_at", "num_records")))
    .where(catalog_counts.c.updated_at.is_not(None))
    .order_by(catalog_counts.c.updated_at, catalog_counts.c.merchant, catalog_counts.c.entity_type)
    .limit(MOST_CATALOGS)
    .subquery()
)
_stalest = (
    select(_oldest)
    .join(merchants, merchants.c.name == _oldest.c.merchant)
    .where(~merchants.c.disabled, merchants.c.platform == text("'BYOP'"))
    .order_by(_oldest.c.updated_at, _oldest.c.merchant, _oldest.c.entity_type)
    .limit(MOST_STALE)
)
_now = select(now())


def _failures(entity_type: EntityType) -> tuple[Select[Any], Select[Any]]:
    """Select the time of the oldest failure to look at, and the failures since then that no success has followed.

    A success is a later sync of the same merchant and entity type that succeeded.
    """
    of_type = text(f"'{entity_type}'")
    failed = (_status == text("'FAILED'")) & (table.c.entity_type == of_type)
    oldest = select(table.c.queued_at).where(failed).order_by(*_newest_first).offset(MOST_FAILURES - 1).limit(1)
    later = table.alias()
    resolved = (
        select(later.c.id)
        .where(
            later.c.merchant == table.c.merchant,
            later.c.status == text("'SUCCEEDED'"),
            later.c.entity_type == of_type,
            later.c.queued_at > table.c.queued_at,
        )
        .exists()
    )
    chosen = select(table.c.merchant, table.c.id, table.c.entity_type, table.c.queued_at)
    return oldest, chosen.where(failed, ~resolved).order_by(*_newest_first).limit(MOST_FAILURES)


_all_failures = [_failures(each) for each in EntityType]


def overview(connection: Connection) -> Overview:
    groups = syncs.active(connection)
    stuck = [_sync_row(row) for row in connection.execute(_stuck)]
    active = [_sync_row(row) for each in _active for row in connection.execute(each)]
    streaks: dict[tuple[str, str], list[Row[Any]]] = {}  # each newest first
    for select_oldest, unresolved in _all_failures:
        oldest = connection.scalar(select_oldest)
        since = () if oldest is None else (table.c.queued_at >= oldest,)
        for row in connection.execute(unresolved.where(*since)):
            streaks.setdefault((row.merchant, row.entity_type), []).append(row)
    shown = sorted(streaks.items(), key=lambda streak: streak[1][0].queued_at, reverse=True)[:MOST_FAILING]
    last = _get_rows(connection, [(rows[0].merchant, rows[0].id) for _, rows in shown])
    found = {each.sync.id: each.sync for each in last}
    again = _active_keys(connection, [key for key, _ in shown])
    failing = [
        FailureStreak(found[rows[0].id], len(rows), rows[-1].queued_at, key in again)
        for key, rows in shown
        if rows[0].id in found
    ]
    as_of = connection.execute(_now).scalar_one()
    stalest = [Freshness(row[0], EntityType(row[1]), row[2], row[3]) for row in connection.execute(_stalest)]
    stale = freshness.stale(connection, MOST_LAPSED)
    stale_in_all = sum(freshness.count_stale(connection).values()) if stale else 0
    return Overview(groups, active[:MOST_ACTIVE], stuck, failing, len(streaks), stale, stale_in_all, stalest, as_of)


def recent(
    connection: Connection,
    merchant: str | None,
    entity_type: EntityType | None,
    status: SyncStatus | None,
    before: Place | None,
    limit: int,
) -> tuple[list[SyncRow], Place | None]:
    """Return syncs, newest first, and the place of the last one if more follow.

    A union of one branch for each entity type and status: with any filter, each branch reads an index from one end.
    """
    branch = select(table.c.merchant, table.c.id, table.c.queued_at).order_by(*_newest_first).limit(limit + 1)
    filters: list[ColumnElement[bool]] = [] if merchant is None else [table.c.merchant == merchant]
    if before is not None:
        filters.append(tuple_(table.c.queued_at, table.c.id) < tuple_(*before))
    branches = [
        branch.where(_status == text(f"'{state}'"), table.c.entity_type == text(f"'{kind}'"), *filters)
        for kind in (EntityType if entity_type is None else (entity_type,))
        for state in (SyncStatus if status is None else (status,))
    ]
    ids = union_all(*(select(each.subquery()) for each in branches)).subquery()
    found = connection.execute(select(ids).order_by(ids.c.queued_at.desc(), ids.c.id.desc()).limit(limit + 1)).all()
    rows = _get_rows(connection, [(row.merchant, row.id) for row in found])
    rows.sort(key=lambda run: (run.sync.queued_at, run.sync.id), reverse=True)
    shown = rows[:limit]
    more = len(rows) > limit
    return shown, (shown[-1].sync.queued_at, shown[-1].sync.id) if more else None


def sync_detail(connection: Connection, merchant: str, sync_id: UUID) -> SyncDetail:
    """Return a sync with all its details. Raises SyncNotFound."""
    runs = _get_rows(connection, [(merchant, sync_id)])
    if not runs:
        raise SyncNotFound(sync_id)
    return SyncDetail(
        runs[0],
        events.of_sync(connection, merchant, sync_id),
        webhooks.of_sync(connection, merchant, sync_id),
        syncs.problems(connection, merchant, sync_id),
        catalog.sizes(connection, merchant),
    )


def cancel(connection: Connection, merchant: str, sync_id: UUID, who: str) -> Sync:
    """QUEUED or IN_PROGRESS -> CANCELLED by an operator. Raises SyncNotFound, NoActiveSync."""
    sync = syncs.get(connection, merchant, sync_id)
    return syncs.cancel(connection, merchant, sync.entity_type, sync_id, f"by an operator at {who}")


def run_again(connection: Connection, merchant: str, sync_id: UUID) -> Sync:
    """Nothing -> QUEUED: enqueue a sync of the same kind. Raises SyncNotFound, NotAllowed, SyncAlreadyActive."""
    sync = syncs.get(connection, merchant, sync_id)
    return enqueue(connection, merchant, sync.entity_type)


def allow_mass_deletion(connection: Connection, merchant: str, sync_id: UUID, who: str) -> Sync:
    """Let the next successful sync of the same kind remove any number of records. Raises SyncNotFound, NotAllowed."""
    sync = syncs.get(connection, merchant, sync_id)
    require_active(connection, merchant)
    catalog_removal.allow_mass_deletion(connection, merchant, sync.entity_type)
    _record(connection, sync, events.MASS_DELETION_ALLOWED, who)
    return sync


def revert(connection: Connection, merchant: str, sync_id: UUID, who: str) -> Sync:
    """Nothing -> QUEUED: a sync that reverts this one. Raises what `reverts.request` does, and NotAllowed."""
    made = reverts.request(connection, merchant, sync_id)
    _record(connection, syncs.get(connection, merchant, sync_id), events.REVERTED, who)
    return made


def publish(connection: Connection, merchant: str, sync_id: UUID, who: str) -> Sync:
    """STAGED -> PUBLISHED by an operator. Raises SyncNotFound, NotPublishable."""
    sync = generations.publish(connection, merchant, sync_id)
    _record(connection, sync, events.PUBLISHED, who)
    return sync


def discard(connection: Connection, merchant: str, sync_id: UUID, who: str) -> Sync:
    """STAGED -> DISCARDED by an operator. Raises SyncNotFound, NotPublishable."""
    sync = generations.discard(connection, merchant, sync_id)
    _record(connection, sync, events.DISCARDED, who)
    return sync


def _record(connection: Connection, sync: Sync, kind: str, who: str) -> None:
    detail = f"by an operator at {who}"
    events.append(connection, sync.merchant, sync.id, kind, detail=detail, most=events.MOST + 1)


def _get_rows(connection: Connection, keys: list[tuple[str, UUID]]) -> list[SyncRow]:
    if not keys:
        return []
    these = or_(*((table.c.merchant == merchant) & (table.c.id == sync_id) for merchant, sync_id in keys))
    return [_sync_row(row) for row in connection.execute(select(*_lease_columns, *columns).where(these))]


def _active_keys(connection: Connection, keys: list[tuple[str, str]]) -> set[tuple[str, str]]:
    if not keys:
        return set()
    these = or_(*((table.c.merchant == merchant) & (table.c.entity_type == kind) for merchant, kind in keys))
    active = select(table.c.merchant, table.c.entity_type).where(text("status IN ('QUEUED', 'IN_PROGRESS')"), these)
    return {(row.merchant, row.entity_type) for row in connection.execute(active)}


def _sync_row(row: Row[Any]) -> SyncRow:
    return SyncRow(sync_of(row), *row[: len(_lease_columns)])
