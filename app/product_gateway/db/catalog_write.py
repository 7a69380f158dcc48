"""Writing pages into the catalog. Only the holder of a sync's claim writes the records of its merchant and entity type.

Each page takes one statement per step, not one per record. SQLite's thread then releases the interpreter lock while it
works, and PostgreSQL needs one round trip. Ids travel as one JSON text.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from product_gateway.db import claims, generations
from product_gateway.db.catalog import in_catalog, product_ids_as_json, stored_size
from product_gateway.db.engines.dialects import SENT_IDS, PerDialect
from product_gateway.db.executor import autocommit
from product_gateway.db.tables import catalog_records, seen_records
from product_gateway.errors import PullFailed
from product_gateway.model.catalog import DIGEST_BYTES, Page, Record
from product_gateway.model.syncs import CatalogSize, Claim, Counts

ROWS_IN_A_STATEMENT = 500  # SQLite allows 32,766 parameters, and a row has five
_NO_ID = "\x01"  # marks the digest of a record without a usable id; ids have no control characters


class Row(NamedTuple):
    """The columns in which the records of a page differ. `size` is the bytes of the document and the product ids."""

    record_id: str
    size: int
    document: str
    product_ids: str | None
    digest: bytes


class KnownIds(NamedTuple):
    """What the database knows about the ids of a page: digests of stored records, and ids that the pull has seen.

    The pull has seen the records that it has written, and the ids in `seen_records`.
    """

    ids: Sequence[str]
    digests: Mapping[str, bytes]
    seen: Collection[str]


class Changes(NamedTuple):
    """The ids of a page's records by what they change in the catalog."""

    new: list[str]
    changed: list[str]
    unchanged: list[str]


class WriteResult(NamedTuple):
    """The outcome of a page: numbers of rejected records, and of records whose raw bytes are the same as before.

    `pages_without_new` counts the pages in a row, up to this one, without a record that is new to the pull.
    """

    rejected: int
    same_bytes: int
    pages_without_new: int


COLUMNS = Row._fields

_records, _seen = catalog_records.c, seen_records.c
_DIGEST = {"sqlite": sa.func.lower(sa.func.hex(_records.digest)), "postgresql": sa.func.encode(_records.digest, "hex")}
_LIST = {"sqlite": sa.func.json_group_array, "postgresql": sa.func.json_agg}


def _make_find_digests(dialect: str) -> sa.Select[str, str, str]:
    # Scalar subqueries, because PostgreSQL answers them by the primary key. From a join or EXISTS it would build a hash
    # of all ids that the pull has seen, for every page, as long as it underestimates their number.
    here = in_catalog(catalog_records, sa.bindparam("m"), sa.bindparam("t"))
    in_pull = (_seen.merchant == sa.bindparam("m")) & (_seen.sync_id == sa.bindparam("s"))
    unpublished = generations.unpublished(sa.bindparam("m"), sa.bindparam("t"))
    is_written = here & (_records.generation == unpublished)
    # Both columns of the index are compared: with the primary key, PostgreSQL would read all records after `low`.
    by, low = (_records.generation, _records.record_id), sa.tuple_(unpublished, sa.bindparam("low"))
    first_written = sa.select(_records.record_id).where(here, sa.tuple_(*by) >= low).order_by(*by).limit(1)
    one: sa.ColumnElement[int] = sa.literal_column("1")
    return sa.select(
        _of_each(dialect, _first(_records.record_id, here), _records.record_id, here, _DIGEST[dialect]),
        _of_each(dialect, first_written, _records.record_id, is_written, one),
        _of_each(dialect, _first(_seen.record_id, in_pull), _seen.record_id, in_pull, one),
    )


def _first(there: Any, where: sa.ColumnElement[bool]) -> sa.Select[str]:
    return sa.select(there).where(where, there >= sa.bindparam("low")).order_by(there).limit(1)


def _of_each(
    dialect: str, first: sa.Select[str], there: Any, where: sa.ColumnElement[bool], value: Any
) -> sa.ColumnElement[str | None]:
    """Build a JSON array with one value or null per id; null if the table has no id between the smallest and largest.

    `first` selects its first id from the smallest on. Most services send records in order of id, so that a page of new
    records costs one probe of the index. The probe is not EXISTS, for which PostgreSQL would scan the table.
    """
    sent = SENT_IDS[dialect]
    found = sa.select(value).where(where, there == sent.c.value).scalar_subquery()
    each = sa.select(found.label("found")).select_from(sent).order_by(sent.c.key).subquery()
    gathered = sa.select(sa.cast(_LIST[dialect](each.c.found), sa.Text)).scalar_subquery()
    return sa.case((first.scalar_subquery() <= sa.bindparam("high"), gathered))


def _make_insert_seen(dialect: str) -> sa.Insert:
    rows = sa.select(sa.bindparam("m"), sa.bindparam("s", type_=sa.Uuid), SENT_IDS[dialect].c.value)
    return sa.insert(seen_records).from_select(["merchant", "sync_id", "record_id"], rows)


_find_digests = PerDialect(_make_find_digests)
_insert_seen = PerDialect(_make_insert_seen)
_OVERWRITE = "ON CONFLICT (merchant, entity_type, record_id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in ("generation", *COLUMNS[1:])
)
_INTO = f"INSERT INTO catalog_records (merchant, entity_type, generation, {', '.join(COLUMNS)})"
# %b: psycopg sends these parameters in binary, which needs no quoting.
_FROM_POSTGRESQL = (
    "SELECT %(m)s, %(t)s, %(g)s, * FROM unnest(%(record_id)b::text[], %(size)b::int[], %(document)b::text[], "
    "%(product_ids)b::text[], %(digest)b::bytea[])"
)


@autocommit
def find_digests(connection: sa.Connection, claim: Claim, ids: Sequence[str]) -> KnownIds:
    """Return the digests of the stored records with these ids, and which of the ids the pull has seen."""
    if not ids:
        return KnownIds(ids, {}, ())
    statement = _find_digests[connection.dialect.name]
    values = {**_key(claim, ids), "t": claim.entity_type, "low": min(ids), "high": max(ids)}
    digests, *seen = (json and orjson.loads(json) for json in connection.execute(statement, values).one())
    return KnownIds(
        ids,
        {each: bytes.fromhex(digest) for each, digest in zip(ids, digests or (), strict=False) if digest is not None},
        {each for some in seen for each, found in zip(ids, some or (), strict=False) if found is not None},
    )


def classify(rows: Mapping[str, Row], digests: Mapping[str, bytes], stored: Mapping[str, Row]) -> Changes:
    """Compare a page's rows with the catalog.

    `stored` has the stored rows whose digests differ. If only the digest differs, the record is unchanged: the product
    service sent other bytes, such as a field that the catalog does not keep.
    """
    changes = Changes([], [], [])
    for record_id, row in rows.items():
        if record_id not in digests:
            changes.new.append(record_id)
        elif record_id in stored and row[:-1] != stored[record_id][:-1]:
            changes.changed.append(record_id)
        else:
            changes.unchanged.append(record_id)
    return changes


def write_page(
    connection: sa.Connection,
    claim: Claim,
    page: Page,
    lease_seconds: float,
    retries: Sequence[str] = (),
    quota: CatalogSize | None = None,
    known: KnownIds | None = None,
) -> WriteResult:
    """Write a page's records and the cursor of the next page. Does not rewrite unchanged rows.

    `known` is the result of an earlier find_digests for this claim and page. It is still valid: only the holder of the
    claim changes it. Raises LeaseLost, and PullFailed if the catalog would exceed its quota; then nothing is written.
    """
    claims.heartbeat(connection, claim, lease_seconds, retries)  # the fence: locks the sync's row
    ids, digests, seen = known or find_digests(connection, claim, _ids(page))
    rows = {each.id: _row(each) for each in page.records}
    differing = [each for each, row in rows.items() if digests.get(each, row.digest) != row.digest]
    stored = _find_rows(connection, claim, differing)
    new, changed, unchanged = classify(rows, digests, stored)
    more_bytes = sum(rows[each].size for each in (*new, *changed)) - sum(stored[each].size for each in changed)
    if new or changed:
        generation, size = generations.add(connection, claim, len(new), more_bytes)
        if quota is not None and (new or more_bytes > 0):
            _require_room(claim, size, quota)
        _insert_rows(connection, claim, generation, [rows[each] for each in new])
    if changed:
        generations.supersede(connection, claim, generation, changed)
        _insert_rows(connection, claim, generation, [rows[each] for each in changed], overwrite=True)
    first_seen = dict.fromkeys(each for each in ids if each not in seen)
    written = {*new, *changed}
    if not_written := [each for each in first_seen if each not in written]:
        connection.execute(_insert_seen[connection.dialect.name], _key(claim, not_written))
    counts = Counts(
        created=sum(each not in seen for each in new),
        updated=sum(each not in seen for each in changed),
        unchanged=sum(each not in seen for each in (*unchanged, *page.skipped)),
        rejected=len(page.rejections),
    )
    pages_without_new = claims.record_page(connection, claim, page, counts, len(first_seen))
    same_bytes = len(rows) - len(new) - len(stored) + len(page.skipped)
    return WriteResult(len(page.rejections), same_bytes, pages_without_new)


def _find_rows(connection: sa.Connection, claim: Claim, ids: Collection[str]) -> dict[str, Row]:
    if not ids:
        return {}
    here = in_catalog(catalog_records, claim.merchant, claim.entity_type) & _records.record_id.in_(ids)
    found = connection.execute(sa.select(*(_records[each] for each in COLUMNS)).where(here))
    return {row.record_id: Row(*row) for row in found}


def _insert_rows(
    connection: sa.Connection, claim: Claim, generation: int, rows: Sequence[Row], *, overwrite: bool = False
) -> None:
    end = _OVERWRITE if overwrite else ""  # checking for conflicts takes PostgreSQL half as long again
    if rows and connection.dialect.name == "postgresql":
        columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
        key = {"m": claim.merchant, "t": claim.entity_type, "g": generation}
        connection.exec_driver_sql(f"{_INTO} {_FROM_POSTGRESQL} {end}", {**key, **columns})
        return
    for start in range(0, len(rows), ROWS_IN_A_STATEMENT):
        some = rows[start : start + ROWS_IN_A_STATEMENT]
        values = (claim.merchant, claim.entity_type, generation, *chain.from_iterable(some))
        connection.exec_driver_sql(_write_sqlite(len(some), end), values)


@lru_cache(maxsize=50)  # a statement has up to 20 KB
def _write_sqlite(rows: int, end: str) -> str:
    # Plain `?`: Python 3.12 deprecates numbered placeholders (`?1`) with a sequence of values.
    row = f"({', '.join('?' for _ in COLUMNS)})"
    values = ", ".join([row] * rows)
    # WHERE true: after a SELECT without WHERE, SQLite parses ON CONFLICT as a join condition.
    return f"{_INTO} SELECT ?, ?, ?, * FROM (VALUES {values}) WHERE true {end}"  # noqa: S608 - no values in it


def _key(claim: Claim, ids: Sequence[str]) -> dict[str, Any]:
    return {"m": claim.merchant, "s": claim.sync_id, "ids": orjson.dumps(ids).decode()}


def _require_room(claim: Claim, size: CatalogSize, quota: CatalogSize) -> None:
    if size.records <= quota.records and size.bytes <= quota.bytes:
        return
    raise PullFailed(
        "CATALOG_FULL",
        f"With the next page, the catalog would have {size.records} records of {claim.entity_type} and {size.bytes} "
        f"bytes. It may have {quota.records} records and {quota.bytes} bytes. That page was not written, and nothing "
        "was removed. Send fewer or smaller records, or ask the gateway's operator for a larger limit.",
    )


def _ids(page: Page) -> list[str]:
    # The digest of a rejected record without a usable id serves as its id, so that a pull recognises a repetition.
    rejected = (
        each.record_id or (each.payload_digest and f"{_NO_ID}{each.payload_digest.hex()}") for each in page.rejections
    )
    return [*(each.id for each in page.records), *(each for each in rejected if each)]


def _row(record: Record) -> Row:
    product_ids = product_ids_as_json(record.product_ids)
    digest = record.payload_digest
    if not digest:
        digest = hashlib.blake2b(f"{record.document}\0{product_ids}".encode(), digest_size=DIGEST_BYTES).digest()
    return Row(record.id, stored_size(record.document, product_ids), record.document, product_ids, digest)
