"""The catalog as readers see it: products and collections as the last page written left them."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Row, Select, select

from product_gateway.db import syncs
from product_gateway.db.admission import ADMISSION_COLUMNS, refusal_of
from product_gateway.db.engines.dialects import PerDialect, ValuesTable
from product_gateway.db.executor import autocommit
from product_gateway.db.page_budget import MAX_PAGE_BYTES, fitting
from product_gateway.db.tables import catalog_counts, catalog_records, max_ages, merchants
from product_gateway.db.tables import syncs as sync_table
from product_gateway.errors import GatewayError, RecordNotFound
from product_gateway.model.catalog import CatalogPage, CatalogState, Record
from product_gateway.model.syncs import CatalogSize, EntityType, Sync

_records = catalog_records.c
_counts = catalog_counts.c
_by_type = ValuesTable("merchant", "entity_type")


def _make_select_states(dialect: str) -> Select[Any]:
    merchant, entity_type = _by_type.columns[dialect]
    each = sync_table.alias()
    latest = (
        select(each.c.id)
        .where(each.c.merchant == merchant, each.c.entity_type == entity_type)
        .order_by(each.c.queued_at.desc(), each.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return (
        select(*ADMISSION_COLUMNS, _counts.num_records, _counts.updated_at, max_ages.c.seconds, *syncs.columns)
        .select_from(
            _by_type.tables[dialect]
            .outerjoin(merchants, merchants.c.name == merchant)
            .outerjoin(catalog_counts, (_counts.merchant == merchant) & (_counts.entity_type == entity_type))
            .outerjoin(max_ages, (max_ages.c.merchant == merchant) & (max_ages.c.entity_type == entity_type))
            .outerjoin(sync_table, (sync_table.c.merchant == merchant) & (sync_table.c.id == latest))
        )
        .order_by(_by_type.place[dialect])
    )


_select_states = PerDialect(_make_select_states)

StateAndLatest = tuple[CatalogState, Sync | None]
"""A catalog's state, and the latest sync of its entity type."""


def state(connection: Connection, merchant: str, entity_type: EntityType) -> CatalogState:
    """Return the number of records and when a sync last succeeded. Reads one row, however many records there are."""
    row = connection.execute(
        select(_counts.num_records, _counts.updated_at).where(
            _counts.merchant == merchant, _counts.entity_type == entity_type
        )
    ).first()
    return CatalogState(0, None) if row is None else CatalogState(row.num_records, row.updated_at)


def state_and_latest_sync(connection: Connection, merchant: str, entity_type: EntityType) -> StateAndLatest:
    """Return the state and the latest sync. In one read transaction they are of one moment."""
    return state(connection, merchant, entity_type), syncs.latest(connection, merchant, entity_type)


def sizes(connection: Connection, merchant: str) -> dict[EntityType, CatalogSize]:
    """Return the size of the merchant's catalog for each entity type. Reads a row for each, not the records."""
    found = connection.execute(
        select(_counts.entity_type, _counts.num_records, _counts.num_bytes).where(_counts.merchant == merchant)
    )
    empty = dict.fromkeys(EntityType, CatalogSize(0, 0))
    return empty | {EntityType(row.entity_type): CatalogSize(row.num_records, row.num_bytes) for row in found}


@autocommit
def states(connection: Connection, keys: Sequence[tuple[str, EntityType]]) -> list[StateAndLatest | GatewayError]:
    """Return state and latest sync of each merchant and entity type, or the merchant's refusal."""
    rows = connection.execute(_select_states[connection.dialect.name], _by_type.parameters(connection, keys)).all()
    return [
        refusal_of(row)
        or (
            CatalogState(row.num_records or 0, row.updated_at, row.seconds),
            None if row.id is None else syncs.sync_of(row),
        )
        for row in rows
    ]


def collection(
    connection: Connection, merchant: str, collection_id: str, after: str, limit: int
) -> tuple[Record, list[Record], str | None]:
    """Return a collection, a page of its products that the catalog holds, and the id after which the next page starts.

    The page starts after the product id `after`, or at the first product if the collection has no such product. It
    ends after `limit` product ids, or earlier at the byte budget of a response. Raises RecordNotFound.
    """
    record = get(connection, merchant, EntityType.COLLECTION, collection_id)
    start = record.product_ids.index(after) + 1 if after in record.product_ids else 0
    ids = record.product_ids[start : start + limit]
    next_after = ids[-1] if start + limit < len(record.product_ids) else None
    found = connection.execute(
        select(_records.record_id, _records.size).where(
            in_catalog(merchant, EntityType.PRODUCT), _records.record_id.in_(ids)
        )
    )
    sizes = {row.record_id: row.size for row in found}
    held = [each for each in ids if each in sizes]
    collection_size = stored_size(record.document, product_ids_as_json(record.product_ids))
    number = fitting((sizes[each] for each in held), MAX_PAGE_BYTES - collection_size)
    if number < len(held):
        held = held[:number]
        next_after = held[-1]
    return record, find(connection, merchant, EntityType.PRODUCT, held), next_after


def get(connection: Connection, merchant: str, entity_type: EntityType, record_id: str) -> Record:
    """Return a record. Raises RecordNotFound."""
    found = find(connection, merchant, entity_type, [record_id])
    if not found:
        raise RecordNotFound(entity_type, record_id)
    return found[0]


def find(connection: Connection, merchant: str, entity_type: EntityType, record_ids: Sequence[str]) -> list[Record]:
    """Return the records that the catalog holds, in the order of the given ids."""
    rows = connection.execute(
        select(catalog_records).where(in_catalog(merchant, entity_type), _records.record_id.in_(record_ids))
    )
    by_id = {row.record_id: _record(row) for row in rows}
    return [by_id[each] for each in record_ids if each in by_id]


def page(connection: Connection, merchant: str, entity_type: EntityType, after: str, limit: int) -> CatalogPage:
    """Return the records after the id `after`, in order of id. This order keeps paging stable while a sync writes.

    Returns at most `limit` records, and fewer at the byte budget of a response. Reads the sizes first, so that it
    reads only the documents that it returns.
    """
    here = in_catalog(merchant, entity_type) & (_records.record_id > after)
    in_order = select(_records.record_id, _records.size).where(here).order_by(_records.record_id)
    sizes = connection.execute(in_order.limit(limit + 1)).all()
    number = fitting(row.size for row in sizes[:limit])
    if number == 0:
        return CatalogPage((), None)
    last = sizes[number - 1].record_id
    rows = connection.execute(
        select(_records.record_id, _records.document)
        .where(here, _records.record_id <= last)
        .order_by(_records.record_id)
    )
    shown = tuple(Record(row.record_id, row.document) for row in rows)
    return CatalogPage(shown, last if number < len(sizes) else None)


def in_catalog(merchant: str, entity_type: EntityType) -> ColumnElement[bool]:
    return (_records.merchant == merchant) & (_records.entity_type == entity_type)


def product_ids_as_json(product_ids: Sequence[str]) -> str | None:
    """Return a collection's product ids as the catalog stores them."""
    return orjson.dumps(product_ids).decode() if product_ids else None


def stored_size(document: str, product_ids: str | None) -> int:
    """Return the bytes of a record's JSON texts in UTF-8."""
    text = document + (product_ids or "")
    return len(text) if text.isascii() else len(text.encode())


def _record(row: Row[Any]) -> Record:
    return Record(row.record_id, row.document, tuple(orjson.loads(row.product_ids or "[]")))
