"""The sync table for workers: claims, leases and progress. One function per state transition.

Every write on behalf of a claim checks the claim's fencing token in the same statement.
"""

import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa

from product_gateway.db import events
from product_gateway.db.syncs import ended, record_end
from product_gateway.db.tables import ACTIVE, MANUAL, catalog_counts, sync_problems, syncs, waits_since
from product_gateway.db.types import now
from product_gateway.errors import LeaseLost
from product_gateway.model.catalog import Page, Rejection
from product_gateway.model.syncs import Claim, Counts, Demand, EntityType, Publication, SyncStatus

SAMPLES_PER_CODE = 5
WORKER_LOST = "WORKER_LOST"
SPREAD = 128  # of the oldest candidates, over which processes spread that have lost a race
MOST_TRIES = 20  # of one claim

_lease_end = now(sa.bindparam("lease"))
_ours = (
    (syncs.c.merchant == sa.bindparam("m"))
    & (syncs.c.id == sa.bindparam("i"))
    & (syncs.c.lease_token == sa.bindparam("token"))
    & (syncs.c.status == sa.text("'IN_PROGRESS'"))
)
_release = (
    sa.update(syncs)
    .where(_ours)
    .values(
        status=SyncStatus.QUEUED, lease_expires_at=None, lease_owner=None, released_at=now(sa.bindparam("one_tick"))
    )
)
# Built once, because these two statements run for every page.
_renew = sa.update(syncs).where(_ours).values(lease_expires_at=_lease_end, heartbeat_at=now())
_add_page = (
    sa.update(syncs)
    .where(_ours)
    .values(
        cursor=sa.bindparam("new_cursor"),
        pull_complete=sa.bindparam("complete"),
        unidentified=syncs.c.unidentified + sa.bindparam("without_id"),
        pages_without_new=sa.case((sa.bindparam("first_seen") > 0, 0), else_=syncs.c.pages_without_new + 1),
        pages_read=syncs.c.pages_read + 1,
        records_read=syncs.c.records_read + sa.bindparam("size"),
        records_total=sa.func.coalesce(sa.bindparam("total", type_=sa.BigInteger), syncs.c.records_total),
        created=syncs.c.created + sa.bindparam("new"),
        updated=syncs.c.updated + sa.bindparam("other"),
        unchanged=syncs.c.unchanged + sa.bindparam("same"),
        rejected=syncs.c.rejected + sa.bindparam("unfit"),
    )
    .returning(syncs.c.pages_read, syncs.c.records_read, syncs.c.pull_complete, syncs.c.pages_without_new)
)
_published = sa.select(catalog_counts.c.generation).where(
    catalog_counts.c.merchant == sa.bindparam("m"), catalog_counts.c.entity_type == syncs.c.entity_type
)
_next_generation = sa.func.coalesce(_published.scalar_subquery(), 0) + 1
_select_finished = sa.select(syncs.c.finished_at).where(
    syncs.c.merchant == sa.bindparam("m"), syncs.c.id == sa.bindparam("i")
)


def _is_running(table: sa.FromClause) -> sa.ColumnElement[bool]:
    return (table.c.status == sa.text("'IN_PROGRESS'")) & (table.c.lease_expires_at >= now())


_other = syncs.alias()
_merchant_is_busy = sa.select(_other.c.id).where(_other.c.merchant == syncs.c.merchant, _is_running(_other)).exists()
# One statement each, so that each reads the first rows of its own index. For one statement with OR, PostgreSQL sorts a
# long queue for every claim until its statistics are up to date.
_next_lost = (syncs.c.status == sa.text("'IN_PROGRESS'")) & (syncs.c.lease_expires_at < now())
_next_queued = syncs.c.status == sa.text("'QUEUED'")


def _oldest(which: sa.ColumnElement[bool], since: sa.ColumnElement[datetime]) -> sa.Select[Any]:
    of_sync = (syncs.c.merchant, syncs.c.id, syncs.c.entity_type, syncs.c.status, syncs.c.started_at)
    of_lease = (syncs.c.lost_workers, syncs.c.lease_owner, syncs.c.lease_token)
    # SQLite stores milliseconds, so that times can be equal; then the ids decide.
    return sa.select(*of_sync, *of_lease).where(which).order_by(since, syncs.c.id).limit(sa.bindparam("few"))


_lost, _queued = _oldest(_next_lost, syncs.c.queued_at), _oldest(_next_queued, waits_since)
_of_others = [
    _oldest(_next_lost & ~_merchant_is_busy, syncs.c.queued_at),
    _oldest(_next_queued & ~_merchant_is_busy, waits_since),
]
# In order of priority: merchants without a sync in progress come first.
_candidates = {True: _of_others, False: [*_of_others, _lost, _queued]}
_is_any = {True: _of_others, False: [_lost, _queued]}
_waiting = (
    sa.select(syncs.c.merchant)
    .where(_next_queued, ~_merchant_is_busy, waits_since < now(sa.bindparam("age")))
    .order_by(waits_since, syncs.c.id)
    .limit(sa.bindparam("most"))
)
_in_progress = sa.select(syncs.c.merchant, syncs.c.id).where(_is_running(syncs))
_READ = {"m": syncs.c.merchant, "i": syncs.c.id, "read_status": syncs.c.status, "read_token": syncs.c.lease_token}
# The row as it was read: each claim increments the fencing token. A heartbeat may have renewed the lease meanwhile.
_as_read = sa.and_(
    *(column == sa.bindparam(name, type_=column.type) for name, column in _READ.items()),
    sa.or_(syncs.c.lease_expires_at.is_(None), syncs.c.lease_expires_at < now()),
)
_take_again = (
    sa.update(syncs)
    .where(_as_read)
    .values(
        status=SyncStatus.IN_PROGRESS,
        attempt=syncs.c.attempt + 1,
        lost_workers=sa.bindparam("lost"),
        lease_token=syncs.c.lease_token + 1,
        lease_owner=sa.bindparam("owner"),
        lease_expires_at=_lease_end,
        heartbeat_at=now(),
    )
    .returning(syncs)
)
_take_first = _take_again.values(started_at=now())
# Locks both of a merchant's active syncs, and returns them as they are then.
_lock_active = (
    sa.select(syncs.c.id, _is_running(syncs).label("is_running"))
    .where(syncs.c.merchant == sa.bindparam("m"), sa.text(ACTIVE))
    .order_by(syncs.c.id)
    .with_for_update()
)


class Place:
    """A process's place in the queue: the number of candidates, the oldest ones, that it leaves to other processes.

    0 until it loses a race, so that one process claims in order. Then a random number, less one for each claim, so that
    processes keep apart and the oldest candidates do not wait for long.
    """

    def __init__(self) -> None:
        self.left_out = 0

    def choose(self, candidates: Sequence[sa.Row[Any]]) -> sa.Row[Any]:
        if self.left_out < len(candidates):
            return candidates[self.left_out]
        return random.choice(candidates)  # noqa: S311 - no secret

    def won(self) -> None:
        self.left_out = max(0, self.left_out - 1)

    def lost(self) -> None:
        self.left_out = random.randrange(SPREAD)  # noqa: S311 - no secret


def has_claimable(connection: sa.Connection, at_once: int) -> bool:
    """Return whether there is a sync to claim. Only reads, so that idle workers do not take SQLite's write lock."""
    return any(connection.execute(each, {"few": 1}).first() is not None for each in _is_any[_is_alone(at_once)])


def claim(
    connection: sa.Connection,
    owner: str,
    lease_seconds: float,
    max_lost_workers: int,
    at_once: int,
    expired: list[EntityType] | None = None,
    place: Place | None = None,
) -> Claim | None:
    """IN_PROGRESS with an expired lease -> IN_PROGRESS with a larger fencing token; else QUEUED -> IN_PROGRESS.

    A sync that has lost `max_lost_workers` workers goes IN_PROGRESS -> FAILED instead, with the code WORKER_LOST. Its
    entity type is added to `expired`. At most `at_once` syncs of a merchant are in progress, and only one while other
    merchants wait.

    Optimistic: reads candidates without a lock, and updates one only if it is still as it was read. After a race that
    another worker has won, it tries another candidate. `place` is the process's place in the queue.
    """
    place = place or Place()
    for _ in range(MOST_TRIES):
        candidates = _find_candidates(connection, at_once, place.left_out + 1)
        if not candidates:
            return None
        candidate = place.choose(candidates)
        if not _within_limit(connection, candidate.merchant, at_once):
            return None
        if candidate.status == SyncStatus.IN_PROGRESS and candidate.lost_workers + 1 >= max_lost_workers:
            if _give_up(connection, candidate) and expired is not None:
                expired.append(EntityType(candidate.entity_type))
            continue
        claimed = _take(connection, candidate, owner, lease_seconds)
        if claimed is not None:
            place.won()
            return claimed
        place.lost()
    return None


def _is_alone(at_once: int) -> bool:
    """Return whether the limit can make a merchant's sync wait for another one: each entity type has at most one."""
    return at_once < len(EntityType)


def _find_candidates(connection: sa.Connection, at_once: int, few: int) -> Sequence[sa.Row[Any]]:
    """Return the oldest syncs of the first kind that has any."""
    found = (connection.execute(each, {"few": few}).all() for each in _candidates[_is_alone(at_once)])
    return next(filter(None, found), [])


def _within_limit(connection: sa.Connection, merchant: str, at_once: int) -> bool:
    # Two workers may choose two syncs of one merchant at once. The lock lets the second worker see the first claim.
    if not _is_alone(at_once):
        return True
    active = connection.execute(_lock_active, {"m": merchant}).all()
    return len([each for each in active if each.is_running]) < at_once


def _read(candidate: sa.Row[Any]) -> dict[str, Any]:
    """Return the parameters of _as_read."""
    return {name: candidate._mapping[column] for name, column in _READ.items()}


def _take(connection: sa.Connection, candidate: sa.Row[Any], owner: str, lease_seconds: float) -> Claim | None:
    """QUEUED or IN_PROGRESS -> IN_PROGRESS; None if another worker was first."""
    taken_over = candidate.status == SyncStatus.IN_PROGRESS
    statement = _take_first if candidate.started_at is None else _take_again
    values = {"owner": owner, "lease": lease_seconds, "lost": candidate.lost_workers + taken_over}
    row = connection.execute(statement, {**_read(candidate), **values}).first()
    if row is None:
        return None
    if taken_over:
        events.append(connection, row.merchant, row.id, events.LEASE_LOST, detail=candidate.lease_owner)
    most = events.MOST if row.released_at is None else events.MOST_REPEATED
    events.append(connection, row.merchant, row.id, events.CLAIMED, number=row.attempt, detail=owner, most=most)
    seconds_since_start = max(0.0, (row.heartbeat_at - row.started_at).total_seconds())
    return Claim(
        *(row.merchant, row.id, EntityType(row.entity_type), row.lease_token, row.attempt),
        *(row.cursor, row.pages_read, row.records_read, row.rejected, row.pull_complete),
        *(taken_over, seconds_since_start, row.traceparent, row.publish == MANUAL, row.restores),
    )


def _give_up(connection: sa.Connection, candidate: sa.Row[Any]) -> bool:
    """IN_PROGRESS -> FAILED: WORKER_LOST. Return False if another worker was first."""
    lost = candidate.lost_workers + 1
    detail = (
        f"{lost} workers were lost while they ran this sync, the last one {candidate.lease_owner}. Whether the "
        "sync was the cause, their logs may show."
    )
    values = {"lost_workers": lost, "failure_code": WORKER_LOST, "failure_detail": detail}
    failed = sa.update(syncs).where(_as_read).values(**ended(SyncStatus.FAILED), **values)
    if connection.execute(failed, _read(candidate)).rowcount == 0:
        return False
    events.append(connection, candidate.merchant, candidate.id, events.LEASE_LOST, detail=candidate.lease_owner)
    record_end(connection, candidate.merchant, candidate.id, SyncStatus.FAILED, f"{WORKER_LOST}: {detail}")
    return True


def heartbeat(connection: sa.Connection, claim: Claim, lease_seconds: float, retries: Sequence[str] = ()) -> None:
    """IN_PROGRESS -> IN_PROGRESS with a lease that starts now. Raises LeaseLost.

    `retries` has the HTTP status that led to each retry since the last heartbeat, or "no answer".
    """
    _require_ours(claim, connection.execute(_renew, {**_key(claim), "lease": lease_seconds}))
    _record_retries(connection, claim, retries)


def record_page(connection: sa.Connection, claim: Claim, page: Page, counts: Counts, first_seen: int = 1) -> int:
    """IN_PROGRESS -> IN_PROGRESS with the next page's cursor and the page's counts. Raises LeaseLost.

    `first_seen` is the number of the page's records that are new to the pull. Returns the number of pages in a row, up
    to this one, without such a record.
    """
    values = {
        "new_cursor": page.next_cursor,
        "complete": page.next_cursor is None,
        "first_seen": first_seen,
        "without_id": sum(each.record_id is None for each in page.rejections),
        "size": page.size,
        "total": page.total,
        "new": counts.created,
        "other": counts.updated,
        "same": counts.unchanged,
        "unfit": counts.rejected,
    }
    row = connection.execute(_add_page, {**_key(claim), **values}).first()
    if row is None:
        raise _lease_lost(claim)
    if row.pull_complete or events.is_sampled(row.pages_read):
        _append(connection, claim, events.PAGE, number=row.records_read, detail=f"{row.pages_read}")
    if page.rejections:
        _record_problems(connection, claim, page.rejections)
    return int(row.pages_without_new)


def may_remove(connection: sa.Connection, claim: Claim) -> bool:
    """Return whether the pull is complete and all its records had ids. Only then are missing records really gone."""
    row = connection.execute(sa.select(syncs.c.pull_complete, syncs.c.unidentified).where(_ours), _key(claim)).first()
    return row is not None and row.pull_complete and row.unidentified == 0


def record_not_removed(connection: sa.Connection, claim: Claim, number: int) -> None:
    """IN_PROGRESS -> IN_PROGRESS with the number of missing records that stay in the catalog. Raises LeaseLost.

    They stay because the list may have them without an id.
    """
    _write(connection, claim, not_removed=number)


def record_restored(connection: sa.Connection, claim: Claim, counts: Counts, cursor: str | None) -> None:
    """IN_PROGRESS -> IN_PROGRESS with more records of a revert, and its cursor. Raises LeaseLost."""
    more = {name: syncs.c[name] + getattr(counts, name) for name in ("created", "updated", "deleted")}
    read = counts.created + counts.updated + counts.deleted
    _write(connection, claim, **more, records_read=syncs.c.records_read + read, cursor=cursor)


def record_removed(connection: sa.Connection, claim: Claim, removed: int) -> None:
    """IN_PROGRESS -> IN_PROGRESS with more records deleted from the catalog. Raises LeaseLost."""
    _write(connection, claim, deleted=syncs.c.deleted + removed)


def succeed(connection: sa.Connection, claim: Claim) -> datetime:
    """IN_PROGRESS -> SUCCEEDED with the next generation, published or staged. Returns the time. Raises LeaseLost."""
    publication = Publication.STAGED if claim.is_staged else Publication.PUBLISHED
    values = {"records_total": syncs.c.records_read, "publication": publication, "generation": _next_generation}
    _end(connection, claim, SyncStatus.SUCCEEDED, None, **values)
    finished: datetime = connection.execute(_select_finished, {"m": claim.merchant, "i": claim.sync_id}).scalar_one()
    return finished


def fail(connection: sa.Connection, claim: Claim, code: str, detail: str, retries: Sequence[str] = ()) -> None:
    """IN_PROGRESS -> FAILED. Raises LeaseLost."""
    _record_retries(connection, claim, retries)
    _end(connection, claim, SyncStatus.FAILED, f"{code}: {detail}", failure_code=code, failure_detail=detail[:8000])


def hand_back(connection: sa.Connection, claim: Claim) -> None:
    """IN_PROGRESS -> QUEUED at its old place: another worker continues from the cursor. Raises LeaseLost."""
    _write(connection, claim, status=SyncStatus.QUEUED, lease_expires_at=None, lease_owner=None)
    _append(connection, claim, events.HANDED_BACK, most=events.MOST)


def release(connection: sa.Connection, claim: Claim) -> None:
    """IN_PROGRESS -> QUEUED at the end of the queue, so that other merchants have their turn. Raises LeaseLost."""
    # SQLite's clock has milliseconds: one more puts the sync behind a request of this millisecond.
    _require_ours(claim, connection.execute(_release, {**_key(claim), "one_tick": 0.001}))
    _append(connection, claim, events.RELEASED)


def demand(connection: sa.Connection, seconds: float, most: int) -> Demand:
    """Return up to `most` merchants that have waited for `seconds` without a sync in progress, and second syncs."""
    waiting = frozenset(connection.scalars(_waiting, {"age": -seconds, "most": most * len(EntityType)}))
    if not waiting:
        return Demand(waiting, frozenset())
    first: dict[str, UUID] = {}
    second_syncs: set[UUID] = set()
    for merchant, sync_id in sorted((row.merchant, row.id) for row in connection.execute(_in_progress)):
        if first.setdefault(merchant, sync_id) != sync_id:
            second_syncs.add(sync_id)
    return Demand(waiting, frozenset(second_syncs))


def _end(connection: sa.Connection, claim: Claim, status: SyncStatus, why: str | None, **values: Any) -> None:
    _write(connection, claim, **ended(status), **values)
    record_end(connection, claim.merchant, claim.sync_id, status, why)


def _record_retries(connection: sa.Connection, claim: Claim, retries: Sequence[str]) -> None:
    if retries:
        _append(connection, claim, events.REPEATED, number=len(retries), detail=", ".join(retries))


def _append(
    connection: sa.Connection, claim: Claim, kind: str, *, most: int = events.MOST_REPEATED, **values: Any
) -> None:
    events.append(connection, claim.merchant, claim.sync_id, kind, most=most, **values)


def _write(connection: sa.Connection, claim: Claim, **values: Any) -> None:
    _require_ours(claim, connection.execute(sa.update(syncs).where(_ours).values(**values), _key(claim)))


def _require_ours(claim: Claim, written: sa.CursorResult[Any]) -> None:
    if written.rowcount != 1:
        raise _lease_lost(claim)


def _lease_lost(claim: Claim) -> LeaseLost:
    return LeaseLost(f"Sync {claim.sync_id} is no longer this worker's: it ended, or another worker took it over.")


def _key(claim: Claim) -> dict[str, Any]:
    return {"m": claim.merchant, "i": claim.sync_id, "token": claim.token}


def _record_problems(connection: sa.Connection, claim: Claim, rejections: tuple[Rejection, ...]) -> None:
    table = sync_problems.c
    of_sync = (table.merchant == claim.merchant) & (table.sync_id == claim.sync_id)
    by_code: dict[str, list[Rejection]] = {}
    for each in rejections:
        by_code.setdefault(each.code, []).append(each)
    for code, group in by_code.items():
        fresh = [[each.record_id, each.pointer, each.message] for each in group[:SAMPLES_PER_CODE]]
        this = of_sync & (table.code == code)
        known = connection.execute(sa.select(table.count.label("so_far"), table.samples).where(this)).first()
        so_far, samples = known or (0, "[]")
        samples = orjson.dumps([*orjson.loads(samples), *fresh][:SAMPLES_PER_CODE]).decode()
        values = {"count": so_far + len(group), "samples": samples}
        if known is None:
            key = {"merchant": claim.merchant, "sync_id": claim.sync_id, "code": code}
            connection.execute(sa.insert(sync_problems).values(**key, **values))
        else:
            connection.execute(sa.update(sync_problems).where(this).values(**values))
