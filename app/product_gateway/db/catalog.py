"""The catalog: products and collections as the last sync that reached them left them.

Only the holder of a sync's claim writes here, and one sync per merchant and entity type holds one: so a page's
records can be compared first and written then.
"""

import hashlib
from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Row,
    bindparam,
    delete,
    except_,
    func,
    insert,
    select,
    text,
    update,
)

from product_gateway.db import catalog_write, claims, syncs
from product_gateway.db.engines.per_dialect import PerDialect, insert_into
from product_gateway.db.page_budget import MAX_PAGE_BYTES, fitting
from product_gateway.db.tables import ACTIVE, catalog_counts, catalog_records, seen_records
from product_gateway.db.tables import syncs as sync_table
from product_gateway.errors import PullFailed, RecordNotFound
from product_gateway.model.catalog import CatalogPage, CatalogState, Record
from product_gateway.model.lazy_page import DIGEST_BYTES, AnyPage, LazyPage
from product_gateway.model.syncs import Claim, Counts, EntityType, Quota, Sync

_records = catalog_records.c
_seen = seen_records.c
_counts = catalog_counts.c

_in_all = select(_counts.num_records).where(_counts.merchant == bindparam("m"), _counts.entity_type == bindparam("t"))
_NO_ID = "\x01"  # no id has a control character
_LAST_CONTROL_CHARACTER = "\x1f"
_saw_all = select(sync_table.c.id).where(
    (sync_table.c.merchant == bindparam("m")) & (sync_table.c.id == bindparam("i")),
    sync_table.c.created + sync_table.c.updated + sync_table.c.unchanged == _in_all.scalar_subquery(),
)
_insert_counts = PerDialect(lambda dialect: insert_into(dialect, catalog_counts).on_conflict_do_nothing())
_change_count = (
    update(catalog_counts)
    .where(_counts.merchant == bindparam("m"), _counts.entity_type == bindparam("t"))
    .values(
        num_records=_counts.num_records + bindparam("more_records"),
        num_bytes=_counts.num_bytes + bindparam("more_bytes"),
    )
    .returning(_counts.num_records, _counts.num_bytes)
)


class WriteResult(NamedTuple):
    """Of a page: how many records were rejected, and how many were sent in the bytes in which the catalog got them.

    `pages_without_new` counts the pages in a row, up to this one, without a record that is new to the pull.
    """

    rejected: int
    as_before: int
    pages_without_new: int


def write_page(
    connection: Connection,
    claim: Claim,
    page: AnyPage,
    lease_seconds: float,
    repeated: int = 0,
    quota: Quota | None = None,
) -> WriteResult:
    """A page's records and the cursor behind them, in one transaction. Unchanged rows are left alone.

    Raises LeaseLost; PullFailed where the page was not read yet, or would make the catalog larger than its quota.
    Then nothing is written.
    """
    claims.heartbeat(connection, claim, lease_seconds, repeated)  # locks the row: nobody else writes these records
    ids = _ids(page)
    digests, again = catalog_write.find_digests(connection, claim, ids)
    held = {each: digest for each, digest in zip(ids, digests, strict=True) if digest is not None}
    seen = {each for each, before in zip(ids, again, strict=True) if before}
    same: set[str] = set()
    if isinstance(page, LazyPage):
        same = {each for each, sent in page.sent.items() if held.get(each) == sent.hex()}
        page = page.read(same)
    first_seen = list(dict.fromkeys(each for each in ids if each not in seen))
    rows = {each.id: _row(each) for each in page.records}
    same |= {each for each, row in rows.items() if each in held and held[each] == row.digest.hex()}
    doubtful = (rows.keys() & held.keys()) - same
    stored = _stored(connection, claim, doubtful)
    alike = {each.id for each in page.records if stored.get(each.id) == each}
    new = rows.keys() - held.keys()
    of_older_versions = {each for each in alike if len(held[each]) != 2 * DIGEST_BYTES}
    catalog_write.write(connection, claim, [row for each, row in rows.items() if each in new], new=True)
    changed = (doubtful - alike) | of_older_versions
    catalog_write.write(connection, claim, [row for each, row in rows.items() if each in changed], new=False)
    catalog_write.mark_seen(connection, claim, first_seen)
    more_bytes = sum(rows[each].size for each in new | changed) - sum(_row(stored[each]).size for each in changed)
    if new or more_bytes:
        size = _count(connection, claim, len(new), more_bytes)
        if quota is not None and (new or more_bytes > 0):
            _require_room(claim, size, quota)
    counts = Counts(
        created=len(new - seen),
        updated=len(doubtful - alike - seen),
        unchanged=len((same | alike) - seen),
        rejected=len(page.rejections),
    )
    pages_without_new = claims.record_page(connection, claim, page, counts, len(first_seen))
    return WriteResult(len(page.rejections), len(same), pages_without_new)


def _stored(connection: Connection, claim: Claim, ids: Set[str]) -> dict[str, Record]:
    """Return the records of these ids as the catalog has them, by id."""
    return {each.id: each for each in find(connection, claim.merchant, claim.entity_type, list(ids))} if ids else {}


def missing(connection: Connection, claim: Claim, limit: int) -> list[str]:
    """The ids of records that the pull did not see, at most `limit`."""
    if connection.execute(_saw_all, {"m": claim.merchant, "i": claim.sync_id, "t": claim.entity_type}).first():
        return []
    return list(connection.scalars(_unseen(claim).limit(limit)))


def any_seen(connection: Connection, claim: Claim) -> str | None:
    """Return the id of a record that the pull has seen, one without a comma; None where it has seen none."""
    usable = (_seen.record_id > _LAST_CONTROL_CHARACTER) & _seen.record_id.not_like("%,%")
    return connection.scalar(select(_seen.record_id).where(_in_pull(claim), usable).limit(1))


def count_missing(connection: Connection, claim: Claim) -> tuple[int, int, bool]:
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
    next_rows = (
        select(_records.record_id, _records.size)
        .where(here, _records.record_id > after)
        .order_by(_records.record_id)
        .limit(limit)
    )
    sizes: dict[str, int] = {row.record_id: row.size for row in connection.execute(next_rows)}
    ids = list(sizes)
    gone: list[str] = []
    if ids:
        among = _seen.record_id.between(ids[0], ids[-1])
        seen = set(connection.scalars(select(_seen.record_id).where(_in_pull(claim), among)))
        gone = [each for each in ids if each not in seen]
    claims.record_removed(connection, claim, len(gone))
    if gone:
        connection.execute(delete(catalog_records).where(here, _records.record_id.in_(gone)))
        _count(connection, claim, -len(gone), -sum(sizes[each] for each in gone))
    return ids[-1] if len(ids) == limit else None


def remove(connection: Connection, claim: Claim, ids: Sequence[str]) -> None:
    """Remove the records that the catalog has of these ids. Raises LeaseLost."""
    these = _in_catalog(claim.merchant, claim.entity_type) & _records.record_id.in_(ids)
    sizes = list(connection.scalars(select(_records.size).where(these)))
    claims.record_removed(connection, claim, len(sizes))
    connection.execute(delete(catalog_records).where(these))
    _count(connection, claim, -len(sizes), -sum(sizes))


def succeed(connection: Connection, claim: Claim) -> None:
    """The sync ends SUCCEEDED, and the records count as updated then. Raises LeaseLost."""
    finished_at = claims.succeed(connection, claim)
    _count(connection, claim, 0, 0)
    connection.execute(
        update(catalog_counts)
        .where(_counts.merchant == claim.merchant, _counts.entity_type == claim.entity_type)
        .values(updated_at=finished_at, mass_deletion_allowed=False)
    )


def delete_seen(connection: Connection, merchant: str, limit: int) -> bool:
    """Drops ids that ended pulls of the merchant have seen, at most `limit`; False when there are none."""
    active = select(sync_table.c.id).where(sync_table.c.merchant == merchant, text(ACTIVE))
    of_merchant = _seen.merchant == merchant
    ended = connection.scalar(select(_seen.sync_id).where(of_merchant, _seen.sync_id.not_in(active)).limit(1))
    if ended is None:
        return False
    of_sync = of_merchant & (_seen.sync_id == ended)
    behind = select(_seen.record_id).where(of_sync).order_by(_seen.record_id).offset(limit).limit(1)
    first_kept = connection.scalar(behind)
    some = of_sync if first_kept is None else of_sync & (_seen.record_id < first_kept)
    connection.execute(delete(seen_records).where(some))
    return True


def size_in_bytes(connection: Connection, merchant: str, entity_type: EntityType) -> int:
    """Return how many bytes the merchant's records of the entity type have together."""
    here = (_counts.merchant == merchant) & (_counts.entity_type == entity_type)
    return connection.scalar(select(_counts.num_bytes).where(here)) or 0


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
    """Return a collection, a page of its products that the catalog holds, and the id to go on behind.

    The page starts behind the id `after`, or at the beginning if the collection has no such product. It ends after
    `limit` product ids, or earlier where the response would exceed its budget. Raises RecordNotFound.
    """
    record = get(connection, merchant, EntityType.COLLECTION, collection_id)
    start = record.product_ids.index(after) + 1 if after in record.product_ids else 0
    ids = record.product_ids[start : start + limit]
    next_after = ids[-1] if start + limit < len(record.product_ids) else None
    here = _in_catalog(merchant, EntityType.PRODUCT)
    found = connection.execute(select(_records.record_id, _records.size).where(here, _records.record_id.in_(ids)))
    sizes = {row.record_id: row.size for row in found}
    held = [each for each in ids if each in sizes]
    number = fitting((sizes[each] for each in held), MAX_PAGE_BYTES - _row(record).size)
    if number < len(held):
        held = held[:number]
        next_after = held[-1]
    return record, find(connection, merchant, EntityType.PRODUCT, held), next_after


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


def page(connection: Connection, merchant: str, entity_type: EntityType, after: str, limit: int) -> CatalogPage:
    """Return the next records behind the id `after`, in order of id, which keeps paging stable while a sync writes.

    They are at most `limit`, and fewer where they would exceed a response's budget. Sizes are read first, so that no
    document is read that the page does not show.
    """
    here = _in_catalog(merchant, entity_type) & (_records.record_id > after)
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


def _in_catalog(merchant: str, entity_type: EntityType) -> ColumnElement[bool]:
    return (_records.merchant == merchant) & (_records.entity_type == entity_type)


def _in_pull(claim: Claim) -> ColumnElement[bool]:
    return (_seen.merchant == claim.merchant) & (_seen.sync_id == claim.sync_id)


def _unseen(claim: Claim) -> CompoundSelect[str]:
    """Not a join: PostgreSQL does not know how many ids a pull has just seen, takes them for few, and compares each
    record with each id."""
    here = _in_catalog(claim.merchant, claim.entity_type)
    return except_(select(_records.record_id).where(here), select(_seen.record_id).where(_in_pull(claim)))


def _count(connection: Connection, claim: Claim, more_records: int, more_bytes: int) -> Quota:
    """Add to the numbers of records and bytes of the merchant's catalog, and return what they are now."""
    change = {"m": claim.merchant, "t": claim.entity_type, "more_records": more_records, "more_bytes": more_bytes}
    row = connection.execute(_change_count, change).first()
    if row is not None:
        return Quota(row.num_records, row.num_bytes)
    values = {"merchant": claim.merchant, "entity_type": claim.entity_type}
    connection.execute(insert(catalog_counts), {**values, "num_records": more_records, "num_bytes": more_bytes})
    return Quota(more_records, more_bytes)


def _require_room(claim: Claim, size: Quota, quota: Quota) -> None:
    if size.records <= quota.records and size.bytes <= quota.bytes:
        return
    raise PullFailed(
        "CATALOG_FULL",
        f"With the next page, the catalog would have {size.records} records of {claim.entity_type} and {size.bytes} "
        f"bytes. It may have {quota.records} records and {quota.bytes} bytes. That page was not written, and nothing "
        "was removed. Send fewer or smaller records, or ask the gateway's operator for a larger limit.",
    )


def _ids(page: AnyPage) -> list[str]:
    """Of all records. What was sent stands for one without a usable id, so that a pull knows it again."""
    if isinstance(page, LazyPage):
        return list(page.sent)
    rejected = (each.record_id or (each.sent and f"{_NO_ID}{each.sent.hex()}") for each in page.rejections)
    return [*(each.id for each in page.records), *(each for each in rejected if each)]


def _row(record: Record) -> catalog_write.Row:
    product_ids = orjson.dumps(record.product_ids).decode() if record.product_ids else None
    size = _utf8_bytes(record.document) + _utf8_bytes(product_ids or "")
    digest = record.sent or _digest(f"{record.document}\0{product_ids}")
    return catalog_write.Row(record.id, size, record.document, product_ids, digest)


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def _record(row: Row[Any]) -> Record:
    return Record(row.record_id, row.document, tuple(orjson.loads(row.product_ids or "[]")))
