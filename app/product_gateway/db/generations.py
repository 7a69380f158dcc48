"""Generations of a catalog: how a sync's writes are published or rolled back, and how old generations are pruned.

A generation is the catalog as one successful sync left it. Readers see the published one, `catalog_counts.generation`.
One merchant and entity type has one writer at a time, so their generations have no gaps. A sync writes the next
generation into `catalog_records` and moves the versions that it replaces or removes to `catalog_history`. To publish it
is to increase `catalog_counts.generation`.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from product_gateway.db import claims, freshness
from product_gateway.db.catalog import in_catalog
from product_gateway.db.engines.dialects import is_sent
from product_gateway.db.executor import autocommit
from product_gateway.db.syncs import get
from product_gateway.db.tables import catalog_counts, catalog_generations, catalog_history, catalog_records, syncs
from product_gateway.db.types import now
from product_gateway.db.webhooks import SYNC_PUBLISHED, enqueue_delivery
from product_gateway.errors import NotPublishable
from product_gateway.model.syncs import CatalogSize, Claim, EntityType, Publication, Sync, SyncStatus

CONTENT = ("size", "document", "product_ids", "digest")

_records, _history, _counts, _generations = (
    catalog_records.c,
    catalog_history.c,
    catalog_counts.c,
    catalog_generations.c,
)
_of_type = (_counts.merchant == sa.bindparam("m")) & (_counts.entity_type == sa.bindparam("t"))
_add = (
    sa.update(catalog_counts)
    .where(_of_type, sa.func.coalesce(_counts.unpublished_sync, sa.bindparam("s")) == sa.bindparam("s", type_=sa.Uuid))
    .values(
        working_records=_counts.working_records + sa.bindparam("more_records"),
        working_bytes=_counts.working_bytes + sa.bindparam("more_bytes"),
        unpublished_sync=sa.bindparam("s"),
    )
    .returning(_counts.generation, _counts.working_records, _counts.working_bytes)
)
_publish = (
    sa.update(catalog_counts)
    .where(_of_type)
    .values(
        generation=_counts.generation + 1,
        num_records=_counts.working_records,
        num_bytes=_counts.working_bytes,
        updated_at=sa.bindparam("at"),
        unpublished_sync=None,
        mass_deletion_allowed=False,
    )
    .returning(_counts.generation)
)
_lock = sa.select(_counts.generation, _counts.unpublished_sync).where(_of_type).with_for_update()


def number(generation: int) -> sa.ColumnElement[int]:
    """Return the generation as a column of a SELECT."""
    return sa.literal(generation, sa.BigInteger)


def is_unpublished(merchant: Any, entity_type: Any) -> sa.ColumnElement[bool]:
    """Return the condition that a record of the catalog was written since the last publication: by the running sync."""
    return _records.generation == unpublished(merchant, entity_type)


def unpublished(merchant: Any, entity_type: Any) -> sa.ScalarSelect[int]:
    """Return the generation that the running sync writes."""
    here = in_catalog(catalog_counts, merchant, entity_type)
    return sa.select(_counts.generation + 1).where(here).scalar_subquery()


def add(connection: sa.Connection, claim: Claim, records: int, size: int) -> tuple[int, CatalogSize]:
    """Add records and bytes to what the claim's sync has written. Return the next generation, and the new sizes.

    Called in each transaction that writes records, before it does.
    """
    values = {"m": claim.merchant, "t": claim.entity_type, "s": claim.sync_id}
    row = connection.execute(_add, {**values, "more_records": records, "more_bytes": size}).first()
    if row is not None:
        return row.generation + 1, CatalogSize(row.working_records, row.working_bytes)
    new = {"merchant": claim.merchant, "entity_type": claim.entity_type, "unpublished_sync": claim.sync_id}
    connection.execute(sa.insert(catalog_counts), {**new, "working_records": records, "working_bytes": size})
    return 1, CatalogSize(records, size)


def supersede(connection: sa.Connection, claim: Claim, generation: int, ids: Sequence[str]) -> None:
    """Copy the records' versions of earlier generations to the history, before they are replaced or removed."""
    these, values = is_sent(connection, _records.record_id, ids)
    versions = sa.select(
        *(_records.merchant, _records.entity_type, _records.record_id, _records.generation),
        *(number(generation), *(_records[name] for name in CONTENT)),
    ).where(
        in_catalog(catalog_records, claim.merchant, claim.entity_type),
        these,
        _records.generation + 0 < generation,  # not by the index of generations
    )
    key = ("merchant", "entity_type", "record_id", "from_generation", "to_generation")
    connection.execute(sa.insert(catalog_history).from_select([*key, *CONTENT], versions), values)


def succeed(connection: sa.Connection, claim: Claim) -> None:
    """IN_PROGRESS -> SUCCEEDED, and publish or stage what was written. Raises LeaseLost."""
    finished_at = claims.succeed(connection, claim)
    add(connection, claim, 0, 0)  # creates the row after a sync without records
    if not claim.is_staged:
        _publish_at(connection, claim.merchant, claim.entity_type, finished_at)


def publish(connection: sa.Connection, merchant: str, sync_id: UUID) -> Sync:
    """STAGED -> PUBLISHED. Raise NotPublishable unless the sync is staged, and the newest of its entity type.

    Raise SyncNotFound, too.
    """
    sync = get(connection, merchant, sync_id)
    newer = syncs.alias()
    is_newest = ~sa.exists().where(
        newer.c.merchant == merchant,
        newer.c.entity_type == sync.entity_type,
        sa.tuple_(newer.c.queued_at, newer.c.id) > sa.tuple_(syncs.c.queued_at, syncs.c.id),
    )
    if not _end_staging(connection, merchant, sync.id, Publication.PUBLISHED, is_newest):
        raise NotPublishable(
            f"Sync {sync.id} cannot be published: its result is not staged any more, or a later sync of "
            f"{sync.entity_type} was requested."
        )
    at = connection.scalar(sa.select(now()))
    _publish_at(connection, merchant, sync.entity_type, at)
    enqueue_delivery(connection, merchant, sync_id, SYNC_PUBLISHED)
    return get(connection, merchant, sync_id)


def discard(connection: sa.Connection, merchant: str, sync_id: UUID) -> Sync:
    """STAGED -> DISCARDED; the worker rolls back what the sync wrote. Raise SyncNotFound, or NotPublishable."""
    get(connection, merchant, sync_id)
    if not _end_staging(connection, merchant, sync_id, Publication.DISCARDED):
        raise NotPublishable(f"Sync {sync_id} has no staged result to discard.")
    return get(connection, merchant, sync_id)


@autocommit
def unpublished_by_another(connection: sa.Connection, claim: Claim) -> UUID | None:
    """Return the earlier sync of the entity type that has left unpublished records; None: the claim may write."""
    values = {"m": claim.merchant, "t": claim.entity_type}
    found = connection.scalar(sa.select(_counts.unpublished_sync).where(_of_type), values)
    return None if found == claim.sync_id else found


def prepare(connection: sa.Connection, claim: Claim, earlier: UUID, lease_seconds: float, limit: int) -> bool:
    """Roll back at most `limit` records that the earlier sync left unpublished. Return whether nothing is left.

    Discards a staged result. Raises LeaseLost.
    """
    claims.heartbeat(connection, claim, lease_seconds)
    _end_staging(connection, claim.merchant, earlier, Publication.DISCARDED)
    return roll_back(connection, claim.merchant, claim.entity_type, earlier, limit)


def left_behind(connection: sa.Connection) -> list[tuple[str, EntityType, UUID]]:
    """Return what syncs have written that failed, were cancelled, discarded or deleted: merchant, entity type, sync."""
    of_sync = (syncs.c.merchant == _counts.merchant) & (syncs.c.id == _counts.unpublished_sync)
    is_left = sa.or_(
        syncs.c.id.is_(None),
        syncs.c.status.in_((SyncStatus.FAILED, SyncStatus.CANCELLED)),
        syncs.c.publication == Publication.DISCARDED,
    )
    rows = connection.execute(
        sa.select(_counts.merchant, _counts.entity_type, _counts.unpublished_sync)
        .select_from(catalog_counts.outerjoin(syncs, of_sync))
        .where(_counts.unpublished_sync.is_not(None), is_left)
        .limit(100)
    )
    return [(row.merchant, EntityType(row.entity_type), row.unpublished_sync) for row in rows]


def roll_back(connection: sa.Connection, merchant: str, entity_type: EntityType, sync_id: UUID, limit: int) -> bool:
    """Undo at most `limit` of the records that the ended sync wrote. Return whether nothing is left."""
    row = connection.execute(_lock, {"m": merchant, "t": entity_type}).first()
    if row is None or row.unpublished_sync != sync_id:
        return True
    written = in_catalog(catalog_records, merchant, entity_type) & (_records.generation > row.generation)
    of_records = (_records.generation, _records.record_id)
    if _some(connection, of_records, written, limit, lambda some: sa.delete(catalog_records).where(some)):
        return False
    replaced = in_catalog(catalog_history, merchant, entity_type) & (_history.to_generation > row.generation)
    versions = (_history.merchant, _history.entity_type, _history.record_id, _history.from_generation)
    into = ("merchant", "entity_type", "record_id", "generation", *CONTENT)
    content = (_history[name] for name in CONTENT)
    restored = sa.select(*versions, *content)
    if _some(
        connection,
        (_history.to_generation, _history.record_id),
        replaced,
        limit,
        lambda some: sa.insert(catalog_records).from_select(into, restored.where(some)),
        lambda some: sa.delete(catalog_history).where(some),
    ):
        return False
    connection.execute(
        sa.update(catalog_counts)
        .where(in_catalog(catalog_counts, merchant, entity_type))
        .values(working_records=_counts.num_records, working_bytes=_counts.num_bytes, unpublished_sync=None)
    )
    return True


def prune(connection: sa.Connection, days: float, limit: int) -> bool:
    """Drop versions of at most `limit` records that only generations have which were replaced more than `days` ago.

    Return False if there is nothing to drop. `catalog_generations` keeps the generations that are younger, so that the
    search reads no others.
    """
    age = {"age": -days * 86400}
    is_old = _generations.published_at < now(sa.bindparam("age"))
    some = sa.select(_generations.merchant, _generations.entity_type).where(is_old).order_by(_generations.published_at)
    first = connection.execute(some.limit(1), age).first()
    if first is None:
        return False
    key = tuple(first)
    newest = sa.select(sa.func.max(_generations.generation)).where(in_catalog(catalog_generations, *key), is_old)
    oldest = connection.execute(newest, age).scalar_one()
    # First, so that no reader gets a generation of which a part is gone.
    connection.execute(
        sa.update(catalog_counts)
        .where(in_catalog(catalog_counts, *key), _counts.oldest_generation < oldest)
        .values(oldest_generation=oldest)
    )
    past = in_catalog(catalog_history, *key) & (_history.to_generation <= oldest)
    in_order = sa.select(_history.record_id).where(past).order_by(_history.to_generation, _history.record_id)
    ids = connection.scalars(in_order.limit(limit)).all()
    if ids:
        is_one, values = is_sent(connection, _history.record_id, ids)
        connection.execute(sa.delete(catalog_history).where(past, is_one), values)
    if len(ids) < limit:
        connection.execute(
            sa.delete(catalog_generations).where(
                in_catalog(catalog_generations, *key), _generations.generation <= oldest
            )
        )
    return True


def _publish_at(connection: sa.Connection, merchant: str, entity_type: EntityType, at: Any) -> None:
    generation = connection.scalar(_publish, {"m": merchant, "t": entity_type, "at": at})
    key = {"merchant": merchant, "entity_type": entity_type, "generation": generation}
    connection.execute(sa.insert(catalog_generations), {**key, "published_at": at})
    freshness.published(connection, merchant, entity_type)


def _end_staging(
    connection: sa.Connection, merchant: str, sync_id: UUID, publication: Publication, *where: sa.ColumnElement[bool]
) -> bool:
    this = (syncs.c.merchant == merchant) & (syncs.c.id == sync_id) & (syncs.c.publication == Publication.STAGED)
    changed = connection.execute(sa.update(syncs).where(this, *where).values(publication=publication))
    return changed.rowcount == 1


def _some(
    connection: sa.Connection,
    by: tuple[sa.Column[int], sa.Column[str]],
    where: sa.ColumnElement[bool],
    limit: int,
    *statements: Any,
) -> bool:
    """Run the statements for the first `limit` records of a generation; return whether there were any.

    `by` are the generation and the id. The order names the generation, so that PostgreSQL reads the index that starts
    with it: with the ids' own index, it would read all records of the other generations.
    """
    record_id = by[1]
    ids = connection.scalars(sa.select(record_id).where(where).order_by(*by).limit(limit)).all()
    if ids:
        for make in statements:
            connection.execute(make(where & (record_id <= ids[-1])))
    return bool(ids)
