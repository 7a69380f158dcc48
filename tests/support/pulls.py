"""Syncs of pages that a test makes, written to the database without a worker."""

from product_gateway.db import catalog, catalog_removal, catalog_write, claims, generations, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import EnqueueRequest, enqueue_many
from product_gateway.model.catalog import Page, Record, Rejection
from product_gateway.model.syncs import Claim, Counts, EntityType, Sync

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
LEASE = 30.0
RULES = (5, 2)  # workers that a sync may lose, syncs of a merchant at once


def started(
    database: Database, merchant: str = "shop", entity_type: EntityType = PRODUCT, publish: str = "AUTOMATIC"
) -> Claim:
    """Enqueue a sync and claim it."""
    [sync] = database.call(enqueue_many, [EnqueueRequest(merchant, entity_type, publish=publish)])
    assert isinstance(sync, Sync), sync
    claim = database.call(claims.claim, "tester", LEASE, *RULES)
    assert claim is not None
    return claim


def page(records: dict[str, str], *rejections: Rejection, cursor: str | None = None) -> Page:
    """Return a page of records with these ids and contents."""
    return Page(tuple(Record(key, f'"{value}"') for key, value in records.items()), rejections, cursor, None)


def write(database: Database, claim: Claim, *pages: Page, step: int = 2) -> None:
    """Write the pages of a sync that does not end. Roll back `step` records at once."""
    earlier = database.call(generations.unpublished_by_another, claim)
    while earlier and not database.call(generations.prepare, claim, earlier, LEASE, step):
        pass
    for each in pages:
        database.call(catalog_write.write_page, claim, each, LEASE)


def pull(database: Database, *pages: Page, claim: Claim | None = None, step: int = 2) -> Counts:
    """Run a sync of the pages. Remove `step` records at once. Return its counts."""
    claim = claim or started(database)
    write(database, claim, *pages, step=step)
    if database.call(claims.may_remove, claim):
        after: str | None = ""
        while after is not None:
            after = database.call(catalog_removal.remove_missing, claim, after, step)
    database.call(generations.succeed, claim)
    return database.call(syncs.get, claim.merchant, claim.sync_id).counts


def contents(database: Database, merchant: str = "shop", entity_type: EntityType = PRODUCT) -> dict[str, str]:
    """Return the contents of all records by id."""
    listing = database.call(catalog.page, merchant, entity_type, "", 500)
    return {each.id: each.document.strip('"') for each in listing.records}
