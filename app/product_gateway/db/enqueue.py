"""Enqueue syncs: one statement (two on SQLite) for any number of requests, of any merchants."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache, partial
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, select, text
from uuid_utils.compat import uuid7

from product_gateway.db.admission import ADMISSION_COLUMNS, refusal_of
from product_gateway.db.engines.dialects import PerDialect, ValuesTable, insert_into
from product_gateway.db.executor import autocommit
from product_gateway.db.syncs import columns, sync_of
from product_gateway.db.tables import ACTIVE, AUTOMATIC, merchants, syncs
from product_gateway.db.types import now
from product_gateway.errors import GatewayError, InvalidRequest, SyncAlreadyActive
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType, Sync, SyncStatus


class EnqueueRequest(NamedTuple):
    """A request for a sync. `traceparent` is its trace context (W3C Trace Context); `publish`, AUTOMATIC or MANUAL."""

    merchant: str
    entity_type: EntityType
    idempotency_key: str | None = None
    traceparent: str | None = None
    publish: str = AUTOMATIC


_NewRow = tuple[str, EntityType, str | None, str | None, str, UUID]
_Attempt = tuple[Row[Any], datetime | None]
"""The row that the look-up found, and when the request's sync was inserted, if it was."""

_requests = ValuesTable("merchant", "entity_type", "idempotency_key", "traceparent", "publish", "id")
_keys = ValuesTable("merchant", "idempotency_key")
_INSERTED = ["merchant", "entity_type", "idempotency_key", "traceparent", "publish", "id", "status", "queued_at"]


def _make_look_up(dialect: str, *more: ColumnElement[Any]) -> Select[Any]:
    """Return each request with its merchant's admission and the active sync in its way, in order."""
    merchant, entity_type, *_ = _requests.columns[dialect]
    active = and_(
        *(syncs.c.merchant == merchant, syncs.c.entity_type == entity_type, text(ACTIVE)),
        _requests.is_one(dialect, merchant=syncs.c.merchant),
    )
    return (
        select(*more, *ADMISSION_COLUMNS, *columns)
        .select_from(
            _requests.tables[dialect].outerjoin(merchants, merchants.c.name == merchant).outerjoin(syncs, active)
        )
        .order_by(_requests.place[dialect])
    )


def _make_insert() -> Any:
    rows = select(*_requests.columns["sqlite"], text("'QUEUED'"), now()).select_from(_requests.tables["sqlite"])
    # SQLite would read the ON as a join's, were there no WHERE before it.
    new = insert_into("sqlite", syncs).from_select(_INSERTED, rows.where(text("true")))
    return new.on_conflict_do_nothing().returning(syncs.c.id, syncs.c.queued_at)


def _make_look_up_and_insert() -> Select[Any]:
    """Combine both statements, which saves PostgreSQL a round trip."""
    merchant, entity_type, key, traceparent, publish, sync_id = _requests.columns["postgresql"]
    request = (
        merchant.label("for_merchant"),
        entity_type.label("for_type"),
        key.label("with_key"),
        traceparent.label("of_trace"),
        publish.label("to_publish"),
        sync_id.label("new_id"),
        _requests.place["postgresql"].label("place"),
    )
    found = _make_look_up("postgresql", *request).cte("found")
    free = found.c.id.is_(None) & (found.c.platform == Platform.BYOP) & ~found.c.disabled
    new_row = ("for_merchant", "for_type", "with_key", "of_trace", "to_publish", "new_id")
    rows = select(*(found.c[name] for name in new_row), text("'QUEUED'"), now())
    # One order for all batches: otherwise two of them could deadlock.
    in_order = rows.where(free).order_by(found.c.for_merchant, found.c.for_type, found.c.place)
    new = insert_into("postgresql", syncs).from_select(_INSERTED, in_order).on_conflict_do_nothing()
    inserted = new.returning(syncs.c.id, syncs.c.queued_at).cte("inserted")
    return (
        select(inserted.c.queued_at.label("inserted_at"), *found.c)
        .select_from(found.outerjoin(inserted, inserted.c.id == found.c.new_id))
        .order_by(found.c.place)
    )


def _make_find_keys(dialect: str) -> Select[Any]:
    merchant, key = _keys.columns[dialect]
    return select(syncs.c.idempotency_key, syncs.c.publish, *columns).join_from(
        _keys.tables[dialect], syncs, (syncs.c.merchant == merchant) & (syncs.c.idempotency_key == key)
    )


# Built at first use: a start does not build the other database's statements.
_look_up, _insert = cache(partial(_make_look_up, "sqlite")), cache(_make_insert)
_look_up_and_insert = cache(_make_look_up_and_insert)
_find_keys = PerDialect(_make_find_keys)


def enqueue(connection: Connection, merchant: str, entity_type: EntityType, idempotency_key: str | None = None) -> Sync:
    """Nothing -> QUEUED. Raise what `enqueue_many` returns instead of a sync."""
    [outcome] = enqueue_many(connection, [EnqueueRequest(merchant, entity_type, idempotency_key)])
    if isinstance(outcome, GatewayError):
        raise outcome
    return outcome


@autocommit
def enqueue_many(connection: Connection, requests: Sequence[EnqueueRequest]) -> list[Sync | GatewayError]:
    """Nothing -> QUEUED for each request; return its sync, or why there is none.

    A known idempotency key returns its sync in its current state, or InvalidRequest if that has another entity type or
    is published otherwise.
    Other errors: SyncAlreadyActive, UnknownMerchant, MerchantDisabled, NotBringYourOwnPlatform.
    """
    attempt = _attempt_sqlite if connection.dialect.name == "sqlite" else _attempt_postgresql
    # All rows of a statement have one time: the ids keep the order of the requests, in which claims take the syncs.
    ids = [uuid7() for _ in requests]
    outcomes: dict[int, Sync | GatewayError] = {}
    # A second round sees what the first one lost to: a request of the same batch, or another process.
    while left := [place for place in range(len(requests)) if place not in outcomes]:
        rows = attempt(connection, [(*requests[place], ids[place]) for place in left])
        refused: list[tuple[int, Row[Any]]] = []
        for place, (row, inserted_at) in zip(left, rows, strict=True):
            if inserted_at is None:
                refused.append((place, row))
            else:
                of_request = requests[place][:2]
                outcomes[place] = Sync(ids[place], *of_request, SyncStatus.QUEUED, inserted_at, inserted_at)
        known = _find_keys_of(connection, [requests[place] for place, _ in refused])
        for place, row in refused:
            request = requests[place]
            if refusal := refusal_of(row):
                outcomes[place] = refusal
            elif of_key := known.get((request.merchant, request.idempotency_key or "")):
                outcomes[place] = _sync_of_key(of_key, request)
            elif row.id is not None:
                outcomes[place] = SyncAlreadyActive(sync_of(row))
    return [outcomes[place] for place in range(len(requests))]


def _attempt_sqlite(connection: Connection, rows: Sequence[_NewRow]) -> list[_Attempt]:
    """Insert only where the look-up allows it: refusals then need no write lock."""
    found = connection.execute(_look_up(), _requests.parameters(connection, rows)).all()
    free = [new for new, row in zip(rows, found, strict=True) if row.id is None and not refusal_of(row)]
    inserted: dict[UUID, datetime] = {}
    if free:
        new_rows = connection.execute(_insert(), _requests.parameters(connection, free)).all()
        inserted = {row.id: row.queued_at for row in new_rows}
    return [(row, inserted.get(new[-1])) for new, row in zip(rows, found, strict=True)]


def _attempt_postgresql(connection: Connection, rows: Sequence[_NewRow]) -> list[_Attempt]:
    found = connection.execute(_look_up_and_insert(), _requests.parameters(connection, rows)).all()
    return [(row, row.inserted_at) for row in found]


def _find_keys_of(connection: Connection, requests: Sequence[EnqueueRequest]) -> dict[tuple[str, str], Row[Any]]:
    keys = [(each.merchant, each.idempotency_key) for each in requests if each.idempotency_key is not None]
    if not keys:
        return {}
    rows = connection.execute(_find_keys[connection.dialect.name], _keys.parameters(connection, keys)).all()
    return {(row.merchant, row.idempotency_key): row for row in rows}


def _sync_of_key(row: Row[Any], request: EnqueueRequest) -> Sync | InvalidRequest:
    """Return the key's sync, unless the request wants another one: it must not be taken for what it asked for."""
    sync = sync_of(row)
    if sync.entity_type is request.entity_type and row.publish == request.publish:
        return sync
    other = f" with publish={row.publish.lower()}" if sync.entity_type is request.entity_type else ""
    return InvalidRequest(f"Header Idempotency-Key: this key stands for a sync of {sync.entity_type}{other} already.")
