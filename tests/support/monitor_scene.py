"""A database for tests of the monitor's pages, with one of each kind of problem."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, bindparam, select, update

from product_gateway.db import catalog_write, claims, generations, merchants, tables, types
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.catalog import Page as Read
from product_gateway.model.catalog import Record, Rejection
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import Claim, EntityType

REFUSED = "PRODUCT_SERVICE_UNAUTHORIZED"
WHY_REFUSED = "Page 1 of /products could not be read: the product service answered 401."


def paint(database: Database) -> None:
    """Insert merchants and their syncs."""
    for name in ("acme", "bluebird-coffee", "corner-books", "dora", "elm-street-tea", "globex"):
        database.call(merchants.add, name, Platform.BYOP, "https://shop.example")
    days = (("dora", 90000, 4298), ("corner-books", 9000, 1204), ("bluebird-coffee", 5400, 812), ("dora", 3600, 4310))
    for name, age, records in days:
        sync = begun(database, name, EntityType.PRODUCT)
        read(database, sync, 1, records, records)
        database.call(generations.succeed, sync)
        database.call(aged, sync.sync_id, age, records / 95)
    for age in (3100, 1900, 720):
        sync = begun(database, "acme", EntityType.PRODUCT)
        database.call(claims.fail, sync, REFUSED, WHY_REFUSED)
        database.call(aged, sync.sync_id, age, 1.0)
    sync = begun(database, "globex", EntityType.PRODUCT)
    for page in range(1, 7):
        database.call(back, sync.sync_id, 3.0 + page % 3)
        read(database, sync, page, 250, 1500, rejected=40)
    database.call(
        claims.fail, sync, "TOO_MANY_REJECTED", "240 of 1500 records do not fit the contract.", ["503", "429"]
    )
    for name, pages in (("bluebird-coffee", 4), ("dora", 2)):
        sync = begun(database, name, EntityType.COLLECTION)
        for page in range(1, pages + 1):
            database.call(back, sync.sync_id, 4.0)
            read(database, sync, page, 250, 1500)
        database.call(claims.heartbeat, sync, 86400.0)
    for name in ("corner-books", "elm-street-tea"):
        database.call(enqueue, name, EntityType.PRODUCT)


def begun(database: Database, merchant: str, entity_type: EntityType) -> Claim:
    """Insert a sync in progress."""
    database.call(enqueue, merchant, entity_type)
    claim = database.call(claims.claim, "worker-1:4711", 86400.0, 5, 2)
    assert claim is not None
    return claim


def read(database: Database, claim: Claim, number: int, size: int, total: int, rejected: int = 0) -> None:
    """Write a page of `size` records."""
    records = tuple(Record(f"{number:04d}{n:06d}", "{}") for n in range(size - rejected))
    message = "'12.50' is not of type 'integer'"
    bad = tuple(Rejection("INVALID_FIELD", f"mug-{number}{n}", "/listPrice", message) for n in range(rejected))
    database.call(catalog_write.write_page, claim, Read(records, bad, str(number), total), 86400.0)


def back(connection: Connection, sync_id: UUID, seconds: float) -> None:
    """Move all events of the sync back in time."""
    for table, key in ((tables.syncs, tables.syncs.c.id), (tables.sync_events, tables.sync_events.c.sync_id)):
        names = [name for name in ("queued_at", "started_at", "at") if name in table.c]
        for row in connection.execute(select(table).where(key == sync_id)).all():
            earlier = {name: getattr(row, name) - timedelta(seconds=seconds) for name in names}
            connection.execute(update(table).where(key == sync_id, table.c.id == row.id).values(earlier))


def aged(connection: Connection, sync_id: UUID, age: float, took: float) -> None:
    """Move the request of the sync back in time."""
    began, ended = types.now(bindparam("began")), types.now(bindparam("ended"))
    values = {"queued_at": began, "started_at": began, "finished_at": ended}
    changed = update(tables.syncs).where(tables.syncs.c.id == sync_id)
    connection.execute(changed.values(values), {"began": -age, "ended": took - age})
    of_sync = select(tables.syncs.c.merchant).where(tables.syncs.c.id == sync_id).scalar_subquery()
    counts = update(tables.catalog_counts).where(tables.catalog_counts.c.merchant == of_sync)
    connection.execute(
        counts.where(tables.catalog_counts.c.updated_at.is_not(None)).values(updated_at=ended), {"ended": took - age}
    )
