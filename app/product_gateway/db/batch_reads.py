"""What many clients ask for at once, read with one statement: of one moment, and each with the merchant's admission."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from product_gateway.db.engines.per_dialect import PerDialect
from product_gateway.db.engines.values_table import ValuesTable
from product_gateway.db.merchants import refusal_of
from product_gateway.db.syncs import Key, Wanted, columns, sync_of
from product_gateway.db.tables import catalog_counts, merchants, syncs
from product_gateway.errors import GatewayError, SyncNotFound
from product_gateway.model.catalog import CatalogState
from product_gateway.model.syncs import Sync

State = tuple[CatalogState, Sync | None]
"""A catalog's, and the sync of it that was asked for last."""

_by_id = ValuesTable("merchant", "id")
_by_type = ValuesTable("merchant", "entity_type")
_admission = [merchants.c.disabled, merchants.c.platform]


def _select_syncs(dialect: str) -> Select[Any]:
    merchant, sync_id = _by_id.columns[dialect]
    return (
        select(*_admission, *columns)
        .select_from(
            _by_id.tables[dialect]
            .outerjoin(merchants, merchants.c.name == merchant)
            .outerjoin(syncs, (syncs.c.merchant == merchant) & (syncs.c.id == sync_id))
        )
        .order_by(_by_id.place[dialect])
    )


def _select_states(dialect: str) -> Select[Any]:
    merchant, entity_type = _by_type.columns[dialect]
    each = syncs.alias()
    latest = (
        select(each.c.id)
        .where(each.c.merchant == merchant, each.c.entity_type == entity_type)
        .order_by(each.c.queued_at.desc(), each.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    counts = catalog_counts.c
    return (
        select(*_admission, counts.num_records, counts.updated_at, *columns)
        .select_from(
            _by_type.tables[dialect]
            .outerjoin(merchants, merchants.c.name == merchant)
            .outerjoin(catalog_counts, (counts.merchant == merchant) & (counts.entity_type == entity_type))
            .outerjoin(syncs, (syncs.c.merchant == merchant) & (syncs.c.id == latest))
        )
        .order_by(_by_type.place[dialect])
    )


_syncs = PerDialect(_select_syncs)
_states = PerDialect(_select_states)


def get_syncs(connection: Connection, wanted: Sequence[Key]) -> list[Sync | GatewayError]:
    """The sync of each, or why not: SyncNotFound, UnknownMerchant, MerchantDisabled or NotBringYourOwnPlatform."""
    rows = connection.execute(_syncs[connection.dialect.name], _by_id.parameters(connection, wanted)).all()
    return [_refused(row) or _one(row, key) for row, key in zip(rows, wanted, strict=True)]


def get_states(connection: Connection, wanted: Sequence[Wanted]) -> list[State | GatewayError]:
    """The state of each, or why not: UnknownMerchant, MerchantDisabled or NotBringYourOwnPlatform."""
    rows = connection.execute(_states[connection.dialect.name], _by_type.parameters(connection, wanted)).all()
    return [_refused(row) or _state(row) for row in rows]


def _refused(row: Row[Any]) -> GatewayError | None:
    return refusal_of(disabled=row.disabled, platform=row.platform)


def _one(row: Row[Any], key: Key) -> Sync | GatewayError:
    return SyncNotFound(key[1]) if row.id is None else sync_of(row)


def _state(row: Row[Any]) -> State:
    return CatalogState(row.num_records or 0, row.updated_at), None if row.id is None else sync_of(row)
