"""Many syncs asked for at once, of many merchants: the statements are the same, however many they are."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache, partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, select, text
from uuid_utils.compat import uuid7

from product_gateway.db.engines.per_dialect import insert_into
from product_gateway.db.engines.values_table import ValuesTable
from product_gateway.db.merchants import refusal_of
from product_gateway.db.syncs import Wanted, columns, sync_of
from product_gateway.db.tables import ACTIVE, merchants, syncs
from product_gateway.db.types import now
from product_gateway.errors import GatewayError, SyncAlreadyActive
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import Counts, EntityType, Sync, SyncStatus

Outcomes = dict[Wanted, Iterator[Sync | GatewayError]]
"""What each who asked for it has to hear, one after the other."""

WithId = tuple[str, EntityType, UUID]
"""Merchant, entity type, and the id that a new sync of them gets."""

_sent = ValuesTable("merchant", "entity_type", "id")
_NAMES = ["merchant", "id", "entity_type", "status", "queued_at"]


def _make_look_up(dialect: str, *more: ColumnElement[Any]) -> Select[Any]:
    merchant, entity_type, _ = _sent.columns[dialect]
    active = (syncs.c.merchant == merchant) & (syncs.c.entity_type == entity_type) & text(ACTIVE)
    asked = (merchant.label("wanted_by"), entity_type.label("wanted_type"), merchants.c.disabled, merchants.c.platform)
    return select(*asked, *more, *columns).select_from(
        _sent.tables[dialect].outerjoin(merchants, merchants.c.name == merchant).outerjoin(syncs, active)
    )


def _make_insert() -> Any:
    merchant, entity_type, sync_id = _sent.columns["sqlite"]
    # SQLite takes ON for a join's, unless there is a WHERE before it.
    rows = select(merchant, sync_id, entity_type, text("'QUEUED'"), now()).select_from(_sent.tables["sqlite"])
    new = insert_into("sqlite", syncs).from_select(_NAMES, rows.where(text("true")))
    return new.on_conflict_do_nothing().returning(syncs.c.id, syncs.c.merchant, syncs.c.entity_type, syncs.c.queued_at)


def _make_both() -> Select[Any]:
    """The look-up and the INSERT of what may be, in one statement."""
    sync_id = _sent.columns["postgresql"][2]
    asked = _make_look_up("postgresql", sync_id.label("new_id")).cte("asked")
    free = asked.c.id.is_(None) & (asked.c.platform == Platform.BYOP) & ~asked.c.disabled
    at = select(now()).scalar_subquery()  # evaluated once, not for each row
    rows = select(asked.c.wanted_by, asked.c.new_id, asked.c.wanted_type, text("'QUEUED'"), at).where(free)
    # Always in this order: else two batches could wait for each other.
    in_order = rows.order_by(asked.c.wanted_by, asked.c.wanted_type)
    new = insert_into("postgresql", syncs).from_select(_NAMES, in_order).on_conflict_do_nothing()
    made = new.returning(syncs.c.id, syncs.c.queued_at).cte("made")
    found = select(made.c.id.label("made_id"), made.c.queued_at.label("made_at"), *asked.c)
    return found.select_from(asked.outerjoin(made, made.c.id == asked.c.new_id))


# Made when they are first wanted: nobody waits for the other database's at a start.
_look_up, _insert, _both = cache(partial(_make_look_up, "sqlite")), cache(_make_insert), cache(_make_both)


def enqueue_many(connection: Connection, wanted: Sequence[Wanted]) -> list[Sync | GatewayError]:
    """Nothing -> QUEUED for each, or why not: SyncAlreadyActive, UnknownMerchant, MerchantDisabled or
    NotBringYourOwnPlatform. Right with each statement by itself, too.
    """
    outcomes: Outcomes = {}
    enqueue = _look_up_and_insert if connection.dialect.name == "sqlite" else _do_both
    # All rows of a statement have one time: the ids keep the order of the requests, in which claims take the syncs.
    ids = {each: uuid7() for each in dict.fromkeys(wanted)}
    left = sorted(ids)
    while left:
        enqueue(connection, [(*each, ids[each]) for each in left], outcomes)
        left = [each for each in left if each not in outcomes]  # another process was quicker: its sync is seen now
    return [next(outcomes[each]) for each in wanted]


def _look_up_and_insert(connection: Connection, with_ids: Sequence[WithId], outcomes: Outcomes) -> None:
    """Where all are refused, nothing is written."""
    for row in connection.execute(_look_up(), _sent.parameters(connection, with_ids)).all():
        _note(row, outcomes)
    free = [each for each in with_ids if each[:2] not in outcomes]
    if free:
        for row in connection.execute(_insert(), _sent.parameters(connection, free)).all():
            sync = _made(*row)
            outcomes[sync.merchant, sync.entity_type] = _enqueued(sync)


def _do_both(connection: Connection, with_ids: Sequence[WithId], outcomes: Outcomes) -> None:
    """In one statement, and so in one way to PostgreSQL and back."""
    for row in connection.execute(_both(), _sent.parameters(connection, with_ids)).all():
        if row.made_id is None:
            _note(row, outcomes)
        else:
            sync = _made(row.made_id, row.wanted_by, row.wanted_type, row.made_at)
            outcomes[sync.merchant, sync.entity_type] = _enqueued(sync)


def _note(row: Any, outcomes: Outcomes) -> None:
    each = row.wanted_by, EntityType(row.wanted_type)
    if refusal_of(disabled=row.disabled, platform=row.platform):
        outcomes[each] = _refused(row.disabled, row.platform)
    elif row.id is not None:
        outcomes[each] = _active(sync_of(row))


def _made(sync_id: UUID, merchant: str, entity_type: str, queued_at: datetime) -> Sync:
    """As a sync is when it has just been asked for: so the database need not tell."""
    return Sync(
        *(sync_id, merchant, EntityType(entity_type), SyncStatus.QUEUED, queued_at, None, None),
        attempt=0,
        records_read=0,
        records_total=None,
        counts=Counts(),
        failure_code=None,
        failure_detail=None,
        as_of=queued_at,
    )


def _refused(disabled: bool | None, platform: str | None) -> Iterator[GatewayError]:
    while refusal := refusal_of(disabled=disabled, platform=platform):
        yield refusal


def _active(sync: Sync) -> Iterator[GatewayError]:
    while True:
        yield SyncAlreadyActive(sync)


def _enqueued(sync: Sync) -> Iterator[Sync | GatewayError]:
    """The first who asked has it; the others of the same batch meet it."""
    yield sync
    yield from _active(sync)
