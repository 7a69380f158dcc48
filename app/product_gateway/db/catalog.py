"""The catalog as readers see it: products and collections of one generation, by default the published one.

While a sync writes the next generation, readers combine `catalog_records` with `catalog_history`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    ColumnClause,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Table,
    and_,
    bindparam,
    column,
    literal_column,
    select,
    text,
    true,
    union_all,
)

from product_gateway.db import syncs
from product_gateway.db.admission import ADMISSION_COLUMNS, refusal_of
from product_gateway.db.engines.dialects import is_among
from product_gateway.db.executor import autocommit
from product_gateway.db.page_budget import MAX_PAGE_BYTES, fitting
from product_gateway.db.tables import catalog_counts, catalog_history, catalog_records, max_ages, merchants
from product_gateway.errors import GatewayError, GenerationGone, RecordNotFound
from product_gateway.model.catalog import CatalogPage, CatalogState, Record
from product_gateway.model.syncs import CatalogSize, EntityType, Sync

_records, _history, _counts = catalog_records.c, catalog_history.c, catalog_counts.c

_published = _counts.generation.label("published")
_select_view = select(_counts.generation, _counts.oldest_generation, _counts.unpublished_sync).where(
    _counts.merchant == bindparam("m"), _counts.entity_type == bindparam("t")
)
# A distributed PostgreSQL has no subqueries that refer to a list of keys, so each key has its own.
_KEY = (
    "SELECT {n} AS place, CAST(:m{n} AS VARCHAR(128)) AS of_merchant, CAST(:t{n} AS VARCHAR(16)) AS of_type, latest.* "
    "FROM (SELECT 1) AS one LEFT JOIN (SELECT {columns} FROM syncs WHERE merchant = :m{n} AND entity_type = :t{n} "
    "ORDER BY queued_at DESC, id DESC LIMIT 1) AS latest ON true"
)
*_of_sync, _as_of = syncs.columns


@lru_cache(maxsize=20)
def _select_states(dialect: str, number: int) -> Select[Any]:
    """Select the states of a number of keys, the parameters `m0` and `t0` to `m9` and `t9`, and of `merchants`."""
    columns = ", ".join(each.name for each in _of_sync)
    keys = text(" UNION ALL ".join(_KEY.format(n=n, columns=columns) for n in range(number)))
    of_key: list[ColumnClause[Any]] = [column("place"), column("of_merchant"), column("of_type")]
    sent = keys.columns(*of_key, *(column(each.name, each.type) for each in _of_sync)).subquery("sent").c

    def of_sent(table: Table, *conditions: ColumnElement[bool]) -> tuple[Table, ColumnElement[bool]]:
        return table, and_(table.c.merchant == sent.of_merchant, is_among(dialect, table.c.merchant), *conditions)

    return (
        select(
            *ADMISSION_COLUMNS,
            _counts.num_records,
            _counts.updated_at,
            max_ages.c.seconds,
            _counts.generation.label("published"),
            *(sent[each.name] for each in _of_sync),
            _as_of,
        )
        .select_from(
            sent.place.table.outerjoin(merchants, merchants.c.name == sent.of_merchant)
            .outerjoin(*of_sent(catalog_counts, _counts.entity_type == sent.of_type))
            .outerjoin(*of_sent(max_ages, max_ages.c.entity_type == sent.of_type))
        )
        .order_by(sent.place)
    )


StateAndLatest = tuple[CatalogState, Sync | None]
"""A catalog's state, and the latest sync of its entity type."""


def state(connection: Connection, merchant: str, entity_type: EntityType) -> CatalogState:
    """Return the state of the published generation. Reads one row, however many records there are."""
    columns = (_counts.num_records, _counts.updated_at, _counts.generation)
    row = connection.execute(select(*columns).where(in_catalog(catalog_counts, merchant, entity_type))).first()
    return CatalogState(0, None) if row is None else CatalogState(*row)


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
    asked = list(dict.fromkeys(keys))
    number = 1 << (len(asked) - 1).bit_length()  # few different statements, as PostgreSQL prepares each one
    padded = [*asked, *[("", "")] * (number - len(asked))]
    values = {f"{name}{n}": value for n, key in enumerate(padded) for name, value in zip("mt", key, strict=True)}
    of_merchants = {"merchants": [merchant for merchant, _ in asked]} if connection.dialect.name != "sqlite" else {}
    rows = connection.execute(_select_states(connection.dialect.name, number), values | of_merchants).all()
    found = dict(zip(padded, rows, strict=True))
    return [
        refusal_of(row)
        or (
            CatalogState(row.num_records or 0, row.updated_at, row.published or 0, row.seconds),
            None if row.id is None else syncs.sync_of(row),
        )
        for row in map(found.__getitem__, keys)
    ]


class View(NamedTuple):
    """What readers of a generation see. With `is_current`, `catalog_records` is exactly this generation.

    Otherwise the versions that a later generation has replaced are in `catalog_history`; with `is_published`, these are
    the versions that the next generation replaces.
    """

    merchant: str
    entity_type: EntityType
    generation: int
    published: int
    is_current: bool

    @property
    def is_published(self) -> bool:
        return self.generation == self.published


def view(connection: Connection, merchant: str, entity_type: EntityType, generation: int | None = None) -> View:
    """Return what readers of the generation see; None: the published one. Raise GenerationGone.

    Views of one read transaction stay true in it.
    """
    row = connection.execute(_select_view, {"m": merchant, "t": entity_type}).first()
    published, oldest, unpublished_sync = row or (0, 0, None)
    if generation is None:
        generation = published
    if not oldest <= generation <= published:
        raise GenerationGone(f"Generation {generation} of the catalog is no longer kept. Start again without a cursor.")
    is_current = generation == published and unpublished_sync is None
    return View(merchant, entity_type, generation, published, is_current)


def collection(
    connection: Connection,
    merchant: str,
    collection_id: str,
    after: str,
    limit: int,
    generations: Sequence[int] | None = None,
) -> tuple[Record, list[Record], str | None, tuple[int, int]]:
    """Return a collection, a page of its products that the catalog holds, and the id after which the next page starts.

    The page starts after the product id `after`, or at the first product if the collection has no such product. It
    ends after `limit` product ids, or earlier at the byte budget of a response. Also returns the generations that were
    read, of collections and of products. Raises RecordNotFound, and GenerationGone for `generations` of a cursor.
    """
    of_collections, of_products = generations or (None, None)
    sees = view(connection, merchant, EntityType.COLLECTION, of_collections)
    sees_products = view(connection, merchant, EntityType.PRODUCT, of_products)
    record = _get(connection, sees, collection_id)
    start = record.product_ids.index(after) + 1 if after in record.product_ids else 0
    ids = record.product_ids[start : start + limit]
    next_after = ids[-1] if start + limit < len(record.product_ids) else None
    sizes = {
        row.record_id: row.size
        for row in versions(connection, sees_products, ("record_id", "size"), lambda c: c.record_id.in_(ids))
    }
    held = [each for each in ids if each in sizes]
    collection_size = stored_size(record.document, product_ids_as_json(record.product_ids))
    number = fitting((sizes[each] for each in held), MAX_PAGE_BYTES - collection_size)
    if number < len(held):
        held = held[:number]
        next_after = held[-1]
    return record, _find(connection, sees_products, held), next_after, (sees.generation, sees_products.generation)


def get(connection: Connection, merchant: str, entity_type: EntityType, record_id: str) -> tuple[Record, int]:
    """Return a record of the published generation, and the generation. Raises RecordNotFound."""
    sees = view(connection, merchant, entity_type)
    return _get(connection, sees, record_id), sees.generation


def find(connection: Connection, merchant: str, entity_type: EntityType, record_ids: Sequence[str]) -> list[Record]:
    """Return the records that the published generation holds, in the order of the given ids."""
    return _find(connection, view(connection, merchant, entity_type), record_ids)


def page(
    connection: Connection,
    merchant: str,
    entity_type: EntityType,
    after: str,
    limit: int,
    generation: int | None = None,
) -> CatalogPage:
    """Return the records of a generation after the id `after`, in order of id. Raise GenerationGone.

    Returns at most `limit` records, and fewer at the byte budget of a response. Reads the sizes first, so that it
    reads only the documents that it returns.
    """
    sees = view(connection, merchant, entity_type, generation)
    sizes = _sizes(connection, sees, after, limit + 1)
    number = fitting(row.size for row in sizes[:limit])
    if number == 0:
        return CatalogPage((), None, sees.generation)
    last = sizes[number - 1].record_id
    columns = ("record_id", "document")
    rows = versions(connection, sees, columns, lambda c: (c.record_id > after) & (c.record_id <= last))
    shown = tuple(Record(row.record_id, row.document) for row in rows)
    return CatalogPage(shown, last if number < len(sizes) else None, sees.generation)


def versions(
    connection: Connection, sees: View, columns: Sequence[str], where: Callable[[Any], ColumnElement[bool]]
) -> Sequence[Any]:
    """Return the versions of records that a reader sees, in order of id. A column must be the id."""
    parts = [part.where(where(table.c)) for table, part in _parts(sees, columns)]
    return connection.execute(union_all(*parts).order_by("record_id")).all() if parts else []


def _sizes(connection: Connection, sees: View, after: str, limit: int) -> list[Any]:
    """Return id and size of the first `limit` versions after the id, in order of id."""
    found: list[Any] = []
    for table, part in _parts(sees, ("record_id", "size")):
        # No further than the past versions: a running sync may have replaced all records from there on.
        as_far = table.c.record_id <= found[-1].record_id if len(found) == limit else true()
        in_order = part.where(table.c.record_id > after, as_far).order_by(table.c.record_id)
        found += connection.execute(in_order.limit(limit)).all()
    return sorted(found)[:limit]


def _parts(sees: View, columns: Sequence[str]) -> list[tuple[Table, Select[Any]]]:
    """Return the tables that have the versions that a reader sees, with a query for them."""

    def of(table: Table, *conditions: ColumnElement[bool]) -> tuple[Table, Select[Any]]:
        here = in_catalog(table, sees.merchant, sees.entity_type)
        return table, select(*(table.c[name] for name in columns)).where(here, *conditions)

    if sees.is_current:
        return [of(catalog_records)]
    if sees.generation == 0:
        return []
    replaced_later = _history.to_generation > sees.generation
    if sees.is_published:  # by an index in order of id
        replaced_later = _history.to_generation == sees.generation + 1
    return [
        of(catalog_history, _history.from_generation <= sees.generation, replaced_later),
        of(catalog_records, _records.generation + 0 <= sees.generation),  # not by an index that is not in order of id
    ]


def _get(connection: Connection, sees: View, record_id: str) -> Record:
    found = _find(connection, sees, [record_id])
    if not found:
        raise RecordNotFound(sees.entity_type, record_id)
    return found[0]


def _find(connection: Connection, sees: View, record_ids: Sequence[str]) -> list[Record]:
    rows = versions(connection, sees, ("record_id", "document", "product_ids"), lambda c: c.record_id.in_(record_ids))
    by_id = {row.record_id: record_of(row) for row in rows}
    return [by_id[each] for each in record_ids if each in by_id]


def is_found(*where: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether a row is found. Not EXISTS: PostgreSQL would join both tables, and compare each row with each."""
    return select(literal_column("1")).where(*where).limit(1).scalar_subquery().is_not(None)


def in_catalog(table: FromClause, merchant: Any, entity_type: Any) -> ColumnElement[bool]:
    """Return whether a row of a table of the catalog belongs to the merchant and entity type: values or columns."""
    return and_(table.c.merchant == merchant, table.c.entity_type == entity_type)


def product_ids_as_json(product_ids: Sequence[str]) -> str | None:
    """Return a collection's product ids as the catalog stores them."""
    return orjson.dumps(product_ids).decode() if product_ids else None


def stored_size(document: str, product_ids: str | None) -> int:
    """Return the bytes of a record's JSON texts in UTF-8."""
    text = document + (product_ids or "")
    return len(text) if text.isascii() else len(text.encode())


def record_of(row: Any) -> Record:
    """Return the record of a row with its id, document and product ids."""
    return Record(row.record_id, row.document, tuple(orjson.loads(row.product_ids or "[]")))
