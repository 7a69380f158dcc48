"""The catalog: products and collections as the last sync that reached them left them.

Only the holder of a sync's claim writes here, and one sync per merchant and entity type holds one: so a page's
records can be compared first and written then.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Row,
    delete,
    except_,
    false,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from product_gateway.db import claims, syncs
from product_gateway.db.tables import ACTIVE, catalog_counts, catalog_records, seen_records
from product_gateway.db.tables import syncs as sync_table
from product_gateway.errors import RecordNotFound
from product_gateway.model import CatalogState, Claim, Counts, EntityType, Listing, Page, Record, Sync

_records = catalog_records.c
_seen = seen_records.c
_counts = catalog_counts.c

_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def _upsert(insert: Any) -> Any:
    changed = {name: insert.excluded[name] for name in ("document", "product_ids", "digest")}
    return insert.on_conflict_do_update(index_elements=["merchant", "entity_type", "record_id"], set_=changed)


_upsert_records = {name: _upsert(insert(catalog_records)) for name, insert in _INSERT.items()}
_insert_seen = {name: insert(seen_records).on_conflict_do_nothing() for name, insert in _INSERT.items()}
_insert_counts = {name: insert(catalog_counts).on_conflict_do_nothing() for name, insert in _INSERT.items()}


def write_page(connection: Connection, claim: Claim, page: Page, lease_seconds: float) -> None:
    """A page's records and the cursor behind them, in one transaction. Unchanged rows are left alone.

    Raises LeaseLost, and then nothing is written.
    """
    claims.heartbeat(connection, claim, lease_seconds)  # locks the sync's row: nobody else writes these records now
    ids = [each.id for each in page.records]
    kept = [*ids, *(each.record_id for each in page.rejections if each.record_id is not None)]
    here = _in_catalog(claim.merchant, claim.entity_type)
    known = dict(
        connection.execute(select(_records.record_id, _records.digest).where(here, _records.record_id.in_(ids))).all()
    )
    again = set(connection.scalars(select(_seen.record_id).where(_in_pull(claim), _seen.record_id.in_(kept))).all())
    rows = [_row(claim, each) for each in page.records]
    created = [row for row in rows if row["record_id"] not in known]
    changed = [row for row in rows if row["record_id"] in known and known[row["record_id"]] != row["digest"]]
    if created or changed:
        connection.execute(_upsert_records[connection.dialect.name], created + changed)
    if kept:
        connection.execute(
            _insert_seen[connection.dialect.name],
            [{"merchant": claim.merchant, "sync_id": claim.sync_id, "record_id": each} for each in kept],
        )
    _count(connection, claim, len(created))
    new = _not_in(again, created)
    counts = Counts(
        created=new,
        updated=_not_in(again, changed),
        unchanged=len(set(ids) - again) - new - _not_in(again, changed),
        rejected=len(page.rejections),
    )
    claims.record_page(connection, claim, page, counts)


def missing(connection: Connection, claim: Claim, limit: int) -> list[str]:
    """The ids of records that the pull did not see, at most `limit`."""
    return list(connection.scalars(_unseen(claim).limit(limit)))


def size_of_removal(connection: Connection, claim: Claim) -> tuple[int, int, bool]:
    """How many records the pull did not see, of how many, and whether the operator allows a mass deletion."""
    unseen = select(func.count()).select_from(_unseen(claim).subquery())
    counted = connection.execute(
        select(_counts.num_records, _counts.mass_deletion_allowed).where(
            _counts.merchant == claim.merchant, _counts.entity_type == claim.entity_type
        )
    ).first()
    if counted is None:
        return 0, 0, False
    return connection.execute(unseen).scalar_one(), counted.num_records, counted.mass_deletion_allowed


def allow_mass_deletion(connection: Connection, merchant: str, entity_type: EntityType) -> None:
    """The next successful sync of the entity type may remove as much as it likes; the one after it may not."""
    key = {"merchant": merchant, "entity_type": entity_type}
    connection.execute(_insert_counts[connection.dialect.name], {**key, "num_records": 0})
    connection.execute(
        update(catalog_counts)
        .where(_counts.merchant == merchant, _counts.entity_type == entity_type)
        .values(mass_deletion_allowed=True)
    )


def remove_missing(connection: Connection, claim: Claim, after: str, limit: int) -> str | None:
    """Removes what the pull did not see among the next `limit` records behind the id `after`.

    Answers the id to go on behind, None at the end. Raises LeaseLost.
    """
    here = _in_catalog(claim.merchant, claim.entity_type)
    ids = connection.scalars(
        select(_records.record_id).where(here, _records.record_id > after).order_by(_records.record_id).limit(limit)
    ).all()
    among = _seen.record_id.between(ids[0], ids[-1]) if ids else false()
    seen = set(connection.scalars(select(_seen.record_id).where(_in_pull(claim), among)))
    gone = [each for each in ids if each not in seen]
    claims.record_removed(connection, claim, len(gone))
    if gone:
        connection.execute(delete(catalog_records).where(here, _records.record_id.in_(gone)))
        _count(connection, claim, -len(gone))
    return ids[-1] if len(ids) == limit else None


def succeed(connection: Connection, claim: Claim) -> None:
    """The sync ends SUCCEEDED, and the records count as updated then. Raises LeaseLost."""
    finished_at = claims.succeed(connection, claim)
    _count(connection, claim, 0)
    connection.execute(
        update(catalog_counts)
        .where(_counts.merchant == claim.merchant, _counts.entity_type == claim.entity_type)
        .values(updated_at=finished_at, mass_deletion_allowed=False)
    )


def forget_seen(connection: Connection, merchant: str, limit: int) -> bool:
    """Drops ids that ended pulls of the merchant have seen, at most `limit`; True where more are left."""
    active = select(sync_table.c.id).where(sync_table.c.merchant == merchant, text(ACTIVE))
    ended = (_seen.merchant == merchant) & _seen.sync_id.not_in(active)
    rows = connection.execute(select(_seen.sync_id, _seen.record_id).where(ended).limit(limit)).all()
    by_sync: dict[Any, list[str]] = {}
    for row in rows:
        by_sync.setdefault(row.sync_id, []).append(row.record_id)
    for sync_id, ids in by_sync.items():
        connection.execute(
            delete(seen_records).where(_seen.merchant == merchant, _seen.sync_id == sync_id, _seen.record_id.in_(ids))
        )
    return len(rows) == limit


def state(connection: Connection, merchant: str, entity_type: EntityType) -> CatalogState:
    """How many records there are, and when a sync last finished; one row, whatever their number."""
    row = connection.execute(
        select(_counts.num_records, _counts.updated_at).where(
            _counts.merchant == merchant, _counts.entity_type == entity_type
        )
    ).first()
    return CatalogState(0, None) if row is None else CatalogState(row.num_records, row.updated_at)


def state_and_latest_sync(
    connection: Connection, merchant: str, entity_type: EntityType
) -> tuple[CatalogState, Sync | None]:
    """Both as of one moment."""
    return state(connection, merchant, entity_type), syncs.latest(connection, merchant, entity_type)


def collection(
    connection: Connection, merchant: str, collection_id: str, after: str, limit: int
) -> tuple[Record, list[Record], str | None]:
    """A collection, those of its next `limit` products behind `after` that the catalog holds, and where to go on.

    An `after` that the collection does not have (any more) starts from the beginning. Raises RecordNotFound.
    """
    record = get(connection, merchant, EntityType.COLLECTION, collection_id)
    start = record.product_ids.index(after) + 1 if after in record.product_ids else 0
    ids = record.product_ids[start : start + limit]
    more = start + limit < len(record.product_ids)
    return record, find(connection, merchant, EntityType.PRODUCT, ids), ids[-1] if more else None


def get(connection: Connection, merchant: str, entity_type: EntityType, record_id: str) -> Record:
    """Raises RecordNotFound."""
    found = find(connection, merchant, entity_type, [record_id])
    if not found:
        raise RecordNotFound(entity_type, record_id)
    return found[0]


def find(connection: Connection, merchant: str, entity_type: EntityType, record_ids: Sequence[str]) -> list[Record]:
    """Those of the records that the catalog holds, in the order asked for."""
    rows = connection.execute(
        select(catalog_records).where(_in_catalog(merchant, entity_type), _records.record_id.in_(record_ids))
    )
    by_id = {row.record_id: _record(row) for row in rows}
    return [by_id[each] for each in record_ids if each in by_id]


def page(connection: Connection, merchant: str, entity_type: EntityType, after: str, limit: int) -> Listing:
    """The next `limit` records behind the id `after`, in order of id: stable while a sync writes."""
    rows = connection.execute(
        select(_records.record_id, _records.document)
        .where(_in_catalog(merchant, entity_type), _records.record_id > after)
        .order_by(_records.record_id)
        .limit(limit + 1)
    ).all()
    shown = tuple(Record(row.record_id, row.document) for row in rows[:limit])
    return Listing(shown, shown[-1].id if len(rows) > limit else None)


def _in_catalog(merchant: str, entity_type: EntityType) -> ColumnElement[bool]:
    return (_records.merchant == merchant) & (_records.entity_type == entity_type)


def _in_pull(claim: Claim) -> ColumnElement[bool]:
    return (_seen.merchant == claim.merchant) & (_seen.sync_id == claim.sync_id)


def _unseen(claim: Claim) -> CompoundSelect[str]:
    """Not a join: PostgreSQL does not know how many ids a pull has just seen, takes them for few, and compares each
    record with each id."""
    here = _in_catalog(claim.merchant, claim.entity_type)
    return except_(select(_records.record_id).where(here), select(_seen.record_id).where(_in_pull(claim)))


def _not_in(ids: set[str], rows: list[dict[str, Any]]) -> int:
    return sum(row["record_id"] not in ids for row in rows)


def _count(connection: Connection, claim: Claim, change: int) -> None:
    key = {"merchant": claim.merchant, "entity_type": claim.entity_type}
    connection.execute(_insert_counts[connection.dialect.name], {**key, "num_records": 0})
    if change:
        connection.execute(
            update(catalog_counts)
            .where(_counts.merchant == claim.merchant, _counts.entity_type == claim.entity_type)
            .values(num_records=_counts.num_records + change)
        )


def _row(claim: Claim, record: Record) -> dict[str, Any]:
    product_ids = orjson.dumps(record.product_ids).decode() if record.product_ids else None
    content = f"{record.document}\0{product_ids}".encode()
    return {
        "merchant": claim.merchant,
        "entity_type": claim.entity_type,
        "record_id": record.id,
        "document": record.document,
        "product_ids": product_ids,
        "digest": hashlib.blake2b(content, digest_size=16).digest(),
    }


def _record(row: Row[Any]) -> Record:
    return Record(row.record_id, row.document, tuple(orjson.loads(row.product_ids or "[]")))
