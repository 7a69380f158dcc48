"""Many syncs asked for at once, of many merchants: written with three statements, however many they are."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from sqlalchemy import ARRAY, Connection, String, Text, Uuid, bindparam, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.selectable import FromClause
from uuid_utils.compat import uuid7

from product_gateway.db import events
from product_gateway.db.merchants import why_not
from product_gateway.db.syncs import sync_of
from product_gateway.db.tables import ACTIVE, merchants, now, syncs
from product_gateway.errors import GatewayError, SyncAlreadyActive, UnknownMerchant
from product_gateway.model import EntityType, Sync

Wanted = tuple[str, EntityType]
"""Merchant and entity type."""

_columns = [*syncs.c, now().label("as_of")]
_each = func.json_each(bindparam("wanted", type_=Text)).table_valued("value", name="wanted")
_element = [func.json_extract(_each.c.value, f"$[{at}]", type_=String) for at in range(3)]
_unnested = func.unnest(
    bindparam("merchants", type_=ARRAY(Text)),
    bindparam("types", type_=ARRAY(Text)),
    bindparam("ids", type_=ARRAY(Uuid)),
)
_row = _unnested.table_valued("merchant", "entity_type", "id", name="wanted").render_derived()

# By dialect: what is wanted, as a table, and its merchant, entity type and id.
_wanted: dict[str, tuple[FromClause, Any, Any, Any]] = {
    "sqlite": (_each, _element[0], _element[1], _element[2]),
    "postgresql": (_row, _row.c.merchant, _row.c.entity_type, _row.c.id),
}
_select = {
    dialect: select(
        merchant.label("wanted_by"), entity_type.label("wanted_type"), merchants.c.disabled, merchants.c.platform,
        *_columns,
    )
    .select_from(
        table.outerjoin(merchants, merchants.c.name == merchant).outerjoin(
            syncs, (syncs.c.merchant == merchant) & (syncs.c.entity_type == entity_type) & text(ACTIVE)
        )
    )
    for dialect, (table, merchant, entity_type, _) in _wanted.items()
}  # fmt: skip


def _insert_of(insert: Any, table: FromClause, merchant: Any, entity_type: Any, sync_id: Any) -> Any:
    # SQLite takes ON for a join's, unless there is a WHERE before it.
    new = select(merchant, sync_id, entity_type, text("'QUEUED'"), now()).select_from(table).where(text("true"))
    columns = ["merchant", "id", "entity_type", "status", "queued_at"]
    return insert(syncs).from_select(columns, new).on_conflict_do_nothing().returning(*_columns)


_insert = {
    "sqlite": _insert_of(sqlite.insert, *_wanted["sqlite"]),
    "postgresql": _insert_of(postgresql.insert, *_wanted["postgresql"]),
}


def enqueue_all(connection: Connection, wanted: Sequence[Wanted]) -> list[Sync | GatewayError]:
    """Nothing -> QUEUED for each, or why not: SyncAlreadyActive, UnknownMerchant, MerchantDisabled or
    NotBringYourOwnPlatform.

    The merchants, and what is active, are looked up first: where all are refused, nothing is written.
    """
    outcomes: dict[Wanted, Iterator[Sync | GatewayError]] = {}
    left = sorted(set(wanted))  # always in this order: else two batches could wait for each other
    while left:
        free = []
        for row in connection.execute(_select[connection.dialect.name], _parameters(connection, left)):
            each = row.wanted_by, EntityType(row.wanted_type)
            if row.platform is None:
                outcomes[each] = _repeated(UnknownMerchant)
            elif why_not(disabled=row.disabled, platform=row.platform):
                outcomes[each] = _refused(row.disabled, row.platform)
            elif row.id is not None:
                outcomes[each] = _active(sync_of(row))
            else:
                free.append(each)
        if free:
            free.sort()
            rows = connection.execute(_insert[connection.dialect.name], _parameters(connection, free))
            new = [sync_of(row) for row in rows]
            if new:
                events.append_first(connection, [(each.merchant, each.id, each.queued_at) for each in new])
            for each_new in new:
                outcomes[each_new.merchant, each_new.entity_type] = _enqueued(each_new)
        left = [each for each in free if each not in outcomes]  # somebody else was quicker: who, is to be seen now
    return [next(outcomes[each]) for each in wanted]


def _parameters(connection: Connection, wanted: Sequence[Wanted]) -> dict[str, Any]:
    ids = [uuid7() for _ in wanted]
    if connection.dialect.name == "sqlite":
        rows = [(merchant, entity_type, each.hex) for (merchant, entity_type), each in zip(wanted, ids, strict=True)]
        return {"wanted": orjson.dumps(rows).decode()}
    return {"merchants": [each[0] for each in wanted], "types": [each[1].value for each in wanted], "ids": ids}


def _repeated(refusal: type[UnknownMerchant]) -> Iterator[GatewayError]:
    while True:
        yield refusal()


def _refused(disabled: bool, platform: str) -> Iterator[GatewayError]:
    while refusal := why_not(disabled=disabled, platform=platform):
        yield refusal


def _active(sync: Sync) -> Iterator[GatewayError]:
    while True:
        yield SyncAlreadyActive(sync)


def _enqueued(sync: Sync) -> Iterator[Sync | GatewayError]:
    """The first who asked has it; the others of the same batch meet it."""
    yield sync
    yield from _active(sync)
