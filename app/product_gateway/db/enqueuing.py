"""Many syncs asked for at once, of many merchants: written with two statements, however many they are."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, select, text
from uuid_utils.compat import uuid7

from product_gateway.db.dialects import ByDialect, insert_into
from product_gateway.db.merchants import why_not
from product_gateway.db.sent import Sent
from product_gateway.db.syncs import Wanted, columns, sync_of
from product_gateway.db.tables import ACTIVE, merchants, now, syncs
from product_gateway.errors import GatewayError, SyncAlreadyActive
from product_gateway.model import EntityType, Sync

_looked_up = Sent("merchant", "entity_type")
_new = Sent("merchant", "entity_type", "id")


def _make_select(dialect: str) -> Select[Any]:
    merchant, entity_type = _looked_up.columns[dialect]
    active = (syncs.c.merchant == merchant) & (syncs.c.entity_type == entity_type) & text(ACTIVE)
    of_merchant = (merchants.c.disabled, merchants.c.platform)
    return select(merchant.label("wanted_by"), entity_type.label("wanted_type"), *of_merchant, *columns).select_from(
        _looked_up.tables[dialect].outerjoin(merchants, merchants.c.name == merchant).outerjoin(syncs, active)
    )


def _make_insert(dialect: str) -> Any:
    merchant, entity_type, sync_id = _new.columns[dialect]
    # SQLite takes ON for a join's, unless there is a WHERE before it.
    rows = select(merchant, sync_id, entity_type, text("'QUEUED'"), now()).select_from(_new.tables[dialect])
    names = ["merchant", "id", "entity_type", "status", "queued_at"]
    new = insert_into(dialect, syncs).from_select(names, rows.where(text("true")))
    return new.on_conflict_do_nothing().returning(*columns)


_select = ByDialect(_make_select)
_insert = ByDialect(_make_insert)


def enqueue_all(connection: Connection, wanted: Sequence[Wanted]) -> list[Sync | GatewayError]:
    """Nothing -> QUEUED for each, or why not: SyncAlreadyActive, UnknownMerchant, MerchantDisabled or
    NotBringYourOwnPlatform.

    The merchants, and what is active, are looked up first: where all are refused, nothing is written.
    """
    outcomes: dict[Wanted, Iterator[Sync | GatewayError]] = {}
    left = sorted(set(wanted))  # always in this order: else two batches could wait for each other
    while left:
        free = []
        for row in connection.execute(_select[connection.dialect.name], _looked_up.parameters(connection, left)).all():
            each = row.wanted_by, EntityType(row.wanted_type)
            if why_not(disabled=row.disabled, platform=row.platform):
                outcomes[each] = _refused(row.disabled, row.platform)
            elif row.id is not None:
                outcomes[each] = _active(sync_of(row))
            else:
                free.append(each)
        if free:
            free.sort()
            with_ids = [(*each, uuid7()) for each in free]
            rows = connection.execute(_insert[connection.dialect.name], _new.parameters(connection, with_ids))
            for each_new in map(sync_of, rows.all()):
                outcomes[each_new.merchant, each_new.entity_type] = _enqueued(each_new)
        left = [each for each in free if each not in outcomes]  # somebody else was quicker: who, is to be seen now
    return [next(outcomes[each]) for each in wanted]


def _refused(disabled: bool | None, platform: str | None) -> Iterator[GatewayError]:
    while refusal := why_not(disabled=disabled, platform=platform):
        yield refusal


def _active(sync: Sync) -> Iterator[GatewayError]:
    while True:
        yield SyncAlreadyActive(sync)


def _enqueued(sync: Sync) -> Iterator[Sync | GatewayError]:
    """The first who asked has it; the others of the same batch meet it."""
    yield sync
    yield from _active(sync)
