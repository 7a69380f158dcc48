"""A page's records as rows: what the database knows of them, and how all of them get there in one statement.

One statement for a page and not one for a record, because Python has one interpreter: with each row that SQLite
takes by itself, its thread would have to wait for the thread that reads the next page. To PostgreSQL it is one way
instead of hundreds. Ids go as one JSON text, rows as they are.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Uuid, bindparam, text

from product_gateway.model import Claim

ROWS_IN_A_STATEMENT = 500  # of SQLite: four parameters each, and it takes no more than 32,766


class Row(NamedTuple):
    """What differs between the records of a page."""

    record_id: str
    document: str
    product_ids: str | None
    digest: bytes


# Subqueries of one row each, which PostgreSQL can only answer by the primary key. From a join or EXISTS it would make
# a hash of all that the pull has seen, for each page again, while it takes that for little.
_KEPT = "FROM catalog_records AS r WHERE r.merchant = :m AND r.entity_type = :t AND r.record_id = sent.value"
_SEEN = "FROM seen_records AS r WHERE r.merchant = :m AND r.sync_id = :s AND r.record_id = sent.value"
_EACH = {
    "sqlite": "json_each(:ids) AS sent",
    "postgresql": "json_array_elements_text(CAST(:ids AS json)) WITH ORDINALITY AS sent (value, key)",
}
_look_up = {
    "sqlite": "SELECT json_group_array(known), json_group_array(again) FROM "
    f"(SELECT (SELECT lower(hex(r.digest)) {_KEPT}) AS known, (SELECT 1 {_SEEN}) AS again "
    f"FROM {_EACH['sqlite']} ORDER BY sent.key)",
    "postgresql": "SELECT CAST(json_agg(known ORDER BY key) AS text), CAST(json_agg(again ORDER BY key) AS text) FROM "
    f"(SELECT sent.key, (SELECT encode(r.digest, 'hex') {_KEPT}) AS known, (SELECT 1 {_SEEN}) AS again "
    f"FROM {_EACH['postgresql']}) AS found",
}
_sync_id = bindparam("s", type_=Uuid)
_LOOK_UP = {dialect: text(sql).bindparams(_sync_id) for dialect, sql in _look_up.items()}
_SEE = {
    dialect: text(
        "INSERT INTO seen_records (merchant, sync_id, record_id) "
        f"SELECT :m, :s, sent.value FROM {each} WHERE true ON CONFLICT DO NOTHING"  # WHERE: or ON could be a join's
    ).bindparams(_sync_id)
    for dialect, each in _EACH.items()
}
_OVERWRITE = "ON CONFLICT (merchant, entity_type, record_id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in Row._fields[1:]
)
_INTO = f"INSERT INTO catalog_records (merchant, entity_type, {', '.join(Row._fields)})"
# %b: in binary, for which nothing has to be quoted.
_WRITE_POSTGRESQL = (
    f"{_INTO} SELECT %(m)s, %(t)s, sent.* FROM unnest("
    "%(record_id)b::text[], %(document)b::text[], %(product_ids)b::text[], %(digest)b::bytea[]) AS sent " + _OVERWRITE
)


def look_up(connection: Connection, claim: Claim, ids: Sequence[str]) -> tuple[list[str | None], list[bool]]:
    """Of each record, the digest (in hexadecimal) that the catalog has, and whether this pull has seen it before."""
    if not ids:
        return [], []
    statement = _LOOK_UP[connection.dialect.name]
    known, again = connection.execute(statement, {**_key(claim, ids), "t": claim.entity_type}).one()
    return orjson.loads(known), [each is not None for each in orjson.loads(again)]


def see(connection: Connection, claim: Claim, ids: Sequence[str]) -> None:
    """The pull has seen these, if it had not before."""
    if ids:
        connection.execute(_SEE[connection.dialect.name], _key(claim, ids))


def write(connection: Connection, claim: Claim, rows: Sequence[Row]) -> None:
    """They are in the catalog, over what it had of the same ids."""
    if rows and connection.dialect.name == "postgresql":
        columns = dict(zip(Row._fields, map(list, zip(*rows, strict=True)), strict=True))
        connection.exec_driver_sql(_WRITE_POSTGRESQL, {"m": claim.merchant, "t": claim.entity_type, **columns})
        return
    for start in range(0, len(rows), ROWS_IN_A_STATEMENT):
        some = rows[start : start + ROWS_IN_A_STATEMENT]
        values = [claim.merchant, claim.entity_type, *(value for row in some for value in row)]
        connection.exec_driver_sql(_write_sqlite(len(some)), tuple(values))


@cache
def _write_sqlite(rows: int) -> str:
    width = len(Row._fields)
    places = [", ".join(f"?{3 + row * width + place}" for place in range(width)) for row in range(rows)]
    return f"{_INTO} VALUES {', '.join(f'(?1, ?2, {each})' for each in places)} {_OVERWRITE}"


def _key(claim: Claim, ids: Sequence[str]) -> dict[str, Any]:
    return {"m": claim.merchant, "s": claim.sync_id, "ids": orjson.dumps(ids).decode()}
