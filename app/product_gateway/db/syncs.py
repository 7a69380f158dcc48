"""The sync table: one function per transition. Whoever writes on a claim's behalf proves first that it still holds."""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Row, bindparam, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from uuid_utils.compat import uuid7

from product_gateway.db.tables import ACTIVE, now, one_active, sync_problems, syncs
from product_gateway.model import (
    Claim,
    Counts,
    EntityType,
    LeaseLost,
    Page,
    Rejection,
    RejectionGroup,
    Sync,
    SyncAlreadyActive,
    SyncNotFound,
    SyncStatus,
)

SAMPLES_PER_CODE = 5

_columns = [*syncs.c, now().label("as_of")]
_of_type = (syncs.c.merchant == bindparam("m")) & (syncs.c.entity_type == bindparam("t"))
_lease_end = now(bindparam("lease"))
_ours = (
    (syncs.c.merchant == bindparam("m"))
    & (syncs.c.id == bindparam("i"))
    & (syncs.c.lease_token == bindparam("token"))
    & (syncs.c.status == text("'IN_PROGRESS'"))
)

_new: dict[str, Any] = {"merchant": bindparam("m"), "id": bindparam("i"), "entity_type": bindparam("t")}
_insert = {
    dialect.dialect.name: module_insert(syncs)
    .values(**_new, status="QUEUED", queued_at=now())
    .on_conflict_do_nothing(index_elements=one_active.expressions, index_where=text(ACTIVE))
    .returning(*_columns)
    for dialect, module_insert in ((sqlite, sqlite.insert), (postgresql, postgresql.insert))
}
_select_active = select(*_columns).where(_of_type, text(ACTIVE))
_select_latest = select(*_columns).where(_of_type).order_by(syncs.c.id.desc()).limit(1)
_select_one = select(*_columns).where(syncs.c.merchant == bindparam("m"), syncs.c.id == bindparam("i"))
_select_finished = select(syncs.c.finished_at).where(syncs.c.merchant == bindparam("m"), syncs.c.id == bindparam("i"))
_select_claimable = (
    select(syncs.c.merchant, syncs.c.id)
    .where(text(ACTIVE), (syncs.c.status == text("'QUEUED'")) | (syncs.c.lease_expires_at < now()))
    .order_by(syncs.c.queued_at)
    .limit(1)
)


def enqueue(connection: Connection, merchant: str, entity_type: EntityType) -> Sync:
    """Nothing -> QUEUED. Raises SyncAlreadyActive where one is queued or in progress (a write)."""
    key = {"m": merchant, "t": entity_type}
    while True:
        row = connection.execute(_insert[connection.dialect.name], {**key, "i": uuid7()}).first()
        if row is not None:
            return _sync(row)
        active = connection.execute(_select_active, key).first()
        if active is not None:  # None: it ended between the two statements, so the next try may succeed
            raise SyncAlreadyActive(_sync(active))


def get(connection: Connection, merchant: str, sync_id: UUID) -> Sync:
    """Raises SyncNotFound, for another merchant's sync too."""
    row = connection.execute(_select_one, {"m": merchant, "i": sync_id}).first()
    if row is None:
        raise SyncNotFound(sync_id)
    return _sync(row)


def latest(connection: Connection, merchant: str, entity_type: EntityType) -> Sync | None:
    """The sync that was asked for last."""
    row = connection.execute(_select_latest, {"m": merchant, "t": entity_type}).first()
    return None if row is None else _sync(row)


def problems(connection: Connection, merchant: str, sync_id: UUID) -> list[RejectionGroup]:
    """The records that the sync rejected, by code, the most frequent first. Raises SyncNotFound."""
    get(connection, merchant, sync_id)
    table = sync_problems.c
    rows = connection.execute(
        select(table.code, table.count, table.samples)
        .where(table.merchant == merchant, table.sync_id == sync_id)
        .order_by(table.count.desc(), table.code)
    )
    return [
        RejectionGroup(code, count, tuple(Rejection(code, *sample) for sample in orjson.loads(samples)))
        for code, count, samples in rows
    ]


def is_any_claimable(connection: Connection) -> bool:
    """Whether a claim is worth a write (a read, so that idle workers disturb nobody)."""
    return connection.execute(_select_claimable).first() is not None


def claim(connection: Connection, owner: str, lease_seconds: float) -> Claim | None:
    """QUEUED -> IN_PROGRESS; or IN_PROGRESS with a lease that has run out -> the same, under a larger token."""
    candidate = connection.execute(_select_claimable.with_for_update(skip_locked=True)).first()
    if candidate is None:
        return None
    row = connection.execute(
        update(syncs)
        .where(syncs.c.merchant == candidate.merchant, syncs.c.id == candidate.id)
        .values(
            status=SyncStatus.IN_PROGRESS,
            started_at=func.coalesce(syncs.c.started_at, now()),
            attempt=syncs.c.attempt + 1,
            lease_token=syncs.c.lease_token + 1,
            lease_owner=owner,
            lease_expires_at=_lease_end,
        )
        .returning(syncs),
        {"lease": lease_seconds},
    ).one()
    return Claim(
        merchant=row.merchant,
        sync_id=row.id,
        entity_type=EntityType(row.entity_type),
        token=row.lease_token,
        attempt=row.attempt,
        cursor=row.cursor,
        records_read=row.records_read,
        pull_complete=row.pull_complete,
    )


def heartbeat(connection: Connection, claim: Claim, lease_seconds: float) -> None:
    """IN_PROGRESS -> IN_PROGRESS: the lease runs on from now. Raises LeaseLost."""
    _write(connection, claim, lease=lease_seconds, lease_expires_at=_lease_end)


def record_page(connection: Connection, claim: Claim, page: Page, counts: Counts) -> None:
    """IN_PROGRESS -> IN_PROGRESS: a page is in the catalog, and the pull goes on behind it. Raises LeaseLost."""
    _write(
        connection,
        claim,
        cursor=page.next_cursor,
        pull_complete=page.next_cursor is None,
        unidentified=syncs.c.unidentified + sum(each.record_id is None for each in page.rejections),
        records_read=syncs.c.records_read + page.size,
        records_total=func.coalesce(page.total, syncs.c.records_total),
        created=syncs.c.created + counts.created,
        updated=syncs.c.updated + counts.updated,
        unchanged=syncs.c.unchanged + counts.unchanged,
        rejected=syncs.c.rejected + counts.rejected,
    )
    if page.rejections:
        _record_problems(connection, claim, page.rejections)


def may_remove(connection: Connection, claim: Claim) -> bool:
    """Whether the pull is complete and every record of it had an id: only then is what it lacks really gone."""
    row = connection.execute(select(syncs.c.pull_complete, syncs.c.unidentified).where(_ours), _key(claim)).first()
    return row is not None and row.pull_complete and row.unidentified == 0


def record_removed(connection: Connection, claim: Claim, removed: int) -> None:
    """IN_PROGRESS -> IN_PROGRESS: so many records are gone from the catalog. Raises LeaseLost."""
    _write(connection, claim, deleted=syncs.c.deleted + removed)


def succeed(connection: Connection, claim: Claim) -> datetime:
    """IN_PROGRESS -> SUCCEEDED; answers when. Raises LeaseLost."""
    _end(connection, claim, SyncStatus.SUCCEEDED, records_total=syncs.c.records_read)
    finished: datetime = connection.execute(_select_finished, {"m": claim.merchant, "i": claim.sync_id}).scalar_one()
    return finished


def fail(connection: Connection, claim: Claim, code: str, detail: str) -> None:
    """IN_PROGRESS -> FAILED, with the reason. Raises LeaseLost."""
    _end(connection, claim, SyncStatus.FAILED, failure_code=code, failure_detail=detail[:8000])


def hand_back(connection: Connection, claim: Claim) -> None:
    """IN_PROGRESS -> QUEUED: another worker goes on where this one stopped. Raises LeaseLost."""
    _write(connection, claim, status=SyncStatus.QUEUED, lease_expires_at=None, lease_owner=None)


def _end(connection: Connection, claim: Claim, status: SyncStatus, **values: Any) -> None:
    _write(connection, claim, status=status, finished_at=now(), lease_expires_at=None, lease_owner=None, **values)


def _write(connection: Connection, claim: Claim, *, lease: float | None = None, **values: Any) -> None:
    parameters = _key(claim) if lease is None else {**_key(claim), "lease": lease}
    if connection.execute(update(syncs).where(_ours).values(**values), parameters).rowcount != 1:
        raise LeaseLost(f"Sync {claim.sync_id} is no longer this worker's: it ended, or another worker took it over.")


def _key(claim: Claim) -> dict[str, Any]:
    return {"m": claim.merchant, "i": claim.sync_id, "token": claim.token}


def _record_problems(connection: Connection, claim: Claim, rejections: tuple[Rejection, ...]) -> None:
    table = sync_problems.c
    of_sync = (table.merchant == claim.merchant) & (table.sync_id == claim.sync_id)
    by_code: dict[str, list[Rejection]] = {}
    for each in rejections:
        by_code.setdefault(each.code, []).append(each)
    for code, group in by_code.items():
        fresh = [[each.record_id, each.pointer, each.message] for each in group[:SAMPLES_PER_CODE]]
        known = connection.execute(
            select(table.count.label("so_far"), table.samples).where(of_sync, table.code == code)
        ).first()
        if known is None:
            connection.execute(
                insert(sync_problems).values(
                    merchant=claim.merchant,
                    sync_id=claim.sync_id,
                    code=code,
                    count=len(group),
                    samples=orjson.dumps(fresh).decode(),
                )
            )
        else:
            samples = [*orjson.loads(known.samples), *fresh][:SAMPLES_PER_CODE]
            connection.execute(
                update(sync_problems)
                .where(of_sync, table.code == code)
                .values(count=known.so_far + len(group), samples=orjson.dumps(samples).decode())
            )


def _sync(row: Row[Any]) -> Sync:
    return Sync(
        id=row.id,
        merchant=row.merchant,
        entity_type=EntityType(row.entity_type),
        status=SyncStatus(row.status),
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        attempt=row.attempt,
        records_read=row.records_read,
        records_total=row.records_total,
        counts=Counts(row.created, row.updated, row.unchanged, row.deleted, row.rejected),
        failure_code=row.failure_code,
        failure_detail=row.failure_detail,
        as_of=row.as_of,
    )
