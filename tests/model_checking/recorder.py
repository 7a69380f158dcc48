"""Triggers that record every change of the sync table and of what is unpublished, on both databases.

A change is two JSON arrays, before and after, in the order in which the rows changed. The triggers run in the
transactions of the gateway: a change that is rolled back leaves nothing.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, create_engine, make_url, text

from tests.support.database_faults import is_postgresql

_TABLE = """CREATE TABLE transitions (
    number {number}, of TEXT, merchant TEXT, entity_type TEXT, sync_id TEXT, was TEXT, became TEXT, expired BOOLEAN,
    unpublished TEXT, others BIGINT
);
"""
_INTO = "INSERT INTO transitions (of, merchant, entity_type, sync_id, was, became, expired, unpublished, others)"
# What a transition of a sync depends on, of the sync and beside it.
_SYNC = "coalesce({0}.publication, {0}.status), {0}.lease_token, {0}.lost_workers, {0}.pages_read, {0}.publish"
_UNPUBLISHED = """coalesce((SELECT CASE WHEN unpublished_sync = {0}.id THEN 'this' ELSE 'other' END FROM catalog_counts
    WHERE merchant = {0}.merchant AND entity_type = {0}.entity_type AND unpublished_sync IS NOT NULL), 'none')"""
_OTHERS = """(SELECT count(*) FROM syncs s WHERE s.merchant = {0}.merchant AND s.entity_type = {0}.entity_type
    AND s.id <> {0}.id AND s.status IN ('QUEUED', 'IN_PROGRESS'))"""
_NOTED = """{0}.generation, {0}.unpublished_sync, (SELECT coalesce(publication, status) FROM syncs
    WHERE merchant = {0}.merchant AND id = {0}.unpublished_sync)"""
_EXPIRED = "OLD.status = 'IN_PROGRESS' AND OLD.lease_expires_at < {now}"


def _sync(array: str, text_of: str, now: str, was: str, became: str) -> str:
    row = "NEW" if became else "OLD"
    before = f"{array}({_SYNC.format(was)}){text_of}" if was else "NULL"
    after = f"{array}({_SYNC.format(became)}){text_of}" if became else "NULL"
    expired = _EXPIRED.format(now=now) if was else "false"
    of = f"'sync', {row}.merchant, {row}.entity_type, {row}.id"
    return f"{_INTO} VALUES ({of}, {before}, {after}, {expired}, {_UNPUBLISHED.format(row)}, {_OTHERS.format(row)});"


def _catalog(array: str, text_of: str, was: str) -> str:
    before = f"{array}({_NOTED.format(was)}){text_of}" if was else "NULL"
    after = f"{array}({_NOTED.format('NEW')}){text_of}"
    of = "'catalog', NEW.merchant, NEW.entity_type, NULL"
    return f"{_INTO} VALUES ({of}, {before}, {after}, NULL, NULL, NULL);"


def _postgresql() -> str:
    array, text_of, now = "json_build_array", "::text", "clock_timestamp()"
    syncs = [_sync(array, text_of, now, *rows) for rows in (("", "NEW"), ("OLD", ""), ("OLD", "NEW"))]
    catalogs = [_catalog(array, text_of, was) for was in ("", "OLD")]
    return f"""{_TABLE.format(number="BIGINT GENERATED ALWAYS AS IDENTITY")}
CREATE FUNCTION record_sync() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' THEN {syncs[0]} ELSIF TG_OP = 'DELETE' THEN {syncs[1]} ELSE {syncs[2]} END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON syncs FOR EACH ROW EXECUTE FUNCTION record_sync();
CREATE FUNCTION record_catalog() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' THEN {catalogs[0]}
    ELSIF (OLD.generation, OLD.unpublished_sync) IS DISTINCT FROM (NEW.generation, NEW.unpublished_sync) THEN
        {catalogs[1]}
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER record AFTER INSERT OR UPDATE ON catalog_counts FOR EACH ROW EXECUTE FUNCTION record_catalog();
"""


def _sqlite() -> str:
    now = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
    differs = "OLD.generation <> NEW.generation OR OLD.unpublished_sync IS NOT NEW.unpublished_sync"
    made = _TABLE.format(number="INTEGER PRIMARY KEY")
    for operation, *rows in (("INSERT", "", "NEW"), ("DELETE", "OLD", ""), ("UPDATE", "OLD", "NEW")):
        body = _sync("json_array", "", now, *rows)
        made += f"CREATE TRIGGER record_sync_{operation} AFTER {operation} ON syncs BEGIN {body} END;\n"
    for operation, was, when in (("INSERT", "", ""), ("UPDATE", "OLD", f"WHEN {differs}")):
        body = _catalog("json_array", "", was)
        made += (
            f"CREATE TRIGGER record_catalog_{operation} AFTER {operation} ON catalog_counts {when} BEGIN {body} END;\n"
        )
    return made


class Recorded(NamedTuple):
    """A change of a row of `syncs` or of `catalog_counts`, as the triggers have recorded it."""

    of: str
    merchant: str
    entity_type: str
    sync_id: str | None
    was: tuple[object, ...] | None
    became: tuple[object, ...] | None
    expired: bool = False
    unpublished: str | None = None
    others: int | None = None


def install(url: str) -> None:
    """Create the table and the triggers."""
    if not is_postgresql(url):
        with closing(sqlite3.connect(str(make_url(url).database), timeout=30)) as file:
            file.executescript(_sqlite())
        return
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql(_postgresql())
    engine.dispose()


def recorded(connection: Connection) -> Iterator[Recorded]:
    """Return all changes, in order. The order of changes of one row is that of their commits."""
    columns = ", ".join(Recorded._fields)
    rows = text(f"SELECT {columns} FROM transitions ORDER BY number").execution_options(stream_results=True)
    for row in connection.execute(rows):
        was, became = (each if each is None else tuple(orjson.loads(each)) for each in (row.was, row.became))
        of = (row.of, row.merchant, row.entity_type, row.sync_id)
        yield Recorded(*of, was, became, bool(row.expired), row.unpublished, row.others)
