"""A page's records as rows: what the database knows of them, and how all of them get there in one statement.

One statement for a page and not one for a record, because Python has one interpreter: with each row that SQLite
takes by itself, its thread would have to wait for the thread that reads the next page. To PostgreSQL it is one way
instead of hundreds. Ids go as one JSON text, rows as they are.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Insert,
    Select,
    Text,
    Uuid,
    bindparam,
    case,
    cast,
    column,
    func,
    insert,
    literal_column,
    select,
)

from product_gateway.db.engines.per_dialect import PerDialect
from product_gateway.db.tables import catalog_records, seen_records
from product_gateway.model.syncs import Claim

ROWS_IN_A_STATEMENT = 500  # of SQLite: five parameters each, and it takes no more than 32,766


class Row(NamedTuple):
    """The columns in which the records of a page differ. `size` is the bytes of the document and the product ids."""

    record_id: str
    size: int
    document: str
    product_ids: str | None
    digest: bytes


COLUMNS = Row._fields

_records, _seen = catalog_records.c, seen_records.c
_json = bindparam("ids", type_=Text)
_SENT = {
    "sqlite": func.json_each(_json).table_valued("key", column("value", Text), name="sent"),
    "postgresql": func.json_array_elements_text(cast(_json, JSON))
    .table_valued(column("value", Text), with_ordinality="key", name="sent")
    .render_derived(),
}
_DIGEST = {"sqlite": func.lower(func.hex(_records.digest)), "postgresql": func.encode(_records.digest, "hex")}
_LIST = {"sqlite": func.json_group_array, "postgresql": func.json_agg}


def _make_look_up(dialect: str) -> Select[str, str]:
    """Subqueries of one row each, which PostgreSQL can only answer by the primary key: from a join or EXISTS it would
    make a hash of all that the pull has seen, for each page again, while it takes that for little."""
    in_catalog = (_records.merchant == bindparam("m")) & (_records.entity_type == bindparam("t"))
    in_pull = (_seen.merchant == bindparam("m")) & (_seen.sync_id == bindparam("s"))
    return select(
        _of_each(dialect, _records.record_id, in_catalog, _DIGEST[dialect]),
        _of_each(dialect, _seen.record_id, in_pull, literal_column("1")),
    )


def _of_each(dialect: str, there: Any, where: ColumnElement[bool], value: Any) -> ColumnElement[str | None]:
    """A list of what is found of each id. Null without a look at them where there is none between the smallest and the
    largest: most services send records in their order. Not EXISTS: PostgreSQL would read the table for it."""
    sent = _SENT[dialect]
    found = select(value).where(where, there == sent.c.value).scalar_subquery()
    each = select(found.label("found")).select_from(sent).order_by(sent.c.key).subquery()
    gathered = select(cast(_LIST[dialect](each.c.found), Text)).scalar_subquery()
    first = select(there).where(where, there >= bindparam("low")).order_by(there).limit(1).scalar_subquery()
    return case((first <= bindparam("high"), gathered))


def _make_see(dialect: str) -> Insert:
    rows = select(bindparam("m"), bindparam("s", type_=Uuid), _SENT[dialect].c.value)
    return insert(seen_records).from_select(["merchant", "sync_id", "record_id"], rows)


_look_up = PerDialect(_make_look_up)
_see = PerDialect(_make_see)
_OVERWRITE = "ON CONFLICT (merchant, entity_type, record_id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in COLUMNS[1:]
)
_INTO = f"INSERT INTO catalog_records (merchant, entity_type, {', '.join(COLUMNS)})"
# %b: in binary, for which nothing has to be quoted.
_WRITE_POSTGRESQL = " ".join(
    (
        f"{_INTO} SELECT %(m)s, %(t)s, *",
        "FROM unnest(%(record_id)b::text[], %(size)b::int[], %(document)b::text[], %(product_ids)b::text[],",
        "%(digest)b::bytea[])",
    )
)


def find_digests(connection: Connection, claim: Claim, ids: Sequence[str]) -> tuple[list[str | None], list[bool]]:
    """Of each record, the digest (in hexadecimal) that the catalog has, and whether this pull has seen it before."""
    if not ids:
        return [], []
    statement = _look_up[connection.dialect.name]
    values = {**_key(claim, ids), "t": claim.entity_type, "low": min(ids), "high": max(ids)}
    known, again = connection.execute(statement, values).one()
    nothing = [None] * len(ids)
    digests = nothing if known is None else orjson.loads(known)
    return digests, [each is not None for each in (nothing if again is None else orjson.loads(again))]


def mark_seen(connection: Connection, claim: Claim, ids: Sequence[str]) -> None:
    """The pull has seen these, and had not before."""
    if ids:
        connection.execute(_see[connection.dialect.name], _key(claim, ids))


def write(connection: Connection, claim: Claim, rows: Sequence[Row], *, new: bool) -> None:
    """They are in the catalog: `new` ones, or over what it had of the same ids."""
    end = "" if new else _OVERWRITE  # to look for a conflict takes PostgreSQL half as long again
    if rows and connection.dialect.name == "postgresql":
        columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
        key = {"m": claim.merchant, "t": claim.entity_type}
        connection.exec_driver_sql(f"{_WRITE_POSTGRESQL} {end}", {**key, **columns})
        return
    for start in range(0, len(rows), ROWS_IN_A_STATEMENT):
        some = rows[start : start + ROWS_IN_A_STATEMENT]
        values = (claim.merchant, claim.entity_type, *chain.from_iterable(some))
        connection.exec_driver_sql(_write_sqlite(len(some), end), values)


@lru_cache(maxsize=50)  # a page's is as long as 20 KB
def _write_sqlite(rows: int, end: str) -> str:
    # Only plain `?`: with numbered ones (`?1`) and a sequence of values, Python 3.12 warns of a use that ends in 3.14.
    row = f"({', '.join('?' for _ in COLUMNS)})"
    values = ", ".join([row] * rows)
    # SQLite would take ON CONFLICT after a SELECT without WHERE for a join's condition.
    return f"{_INTO} SELECT ?, ?, * FROM (VALUES {values}) WHERE true {end}"  # noqa: S608 - no values in it


def _key(claim: Claim, ids: Sequence[str]) -> dict[str, Any]:
    return {"m": claim.merchant, "s": claim.sync_id, "ids": orjson.dumps(ids).decode()}
