"""Reverts: syncs that restore an earlier generation of the catalog, from the history."""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, insert, select, tuple_, update

from product_gateway.db import claims, generations, syncs
from product_gateway.db.catalog import in_catalog, is_found, view
from product_gateway.db.engines.dialects import is_sent
from product_gateway.db.enqueue import enqueue
from product_gateway.db.generations import CONTENT
from product_gateway.db.tables import catalog_history, catalog_records
from product_gateway.db.tables import syncs as sync_table
from product_gateway.errors import GenerationGone, NotPublishable, PullFailed
from product_gateway.model.syncs import Claim, Counts, Publication, Sync

_records, _history = catalog_records.c, catalog_history.c


def request(connection: Connection, merchant: str, sync_id: UUID) -> Sync:
    """Nothing -> QUEUED: a sync that restores the catalog as it was before this one.

    Raise SyncNotFound, SyncAlreadyActive, NotPublishable if the sync has published nothing, and GenerationGone.
    """
    sync = syncs.get(connection, merchant, sync_id)
    if sync.publication is not Publication.PUBLISHED or sync.generation is None:
        raise NotPublishable(f"Sync {sync_id} has published nothing, so there is nothing to revert.")
    if sync.generation > 1:
        view(connection, merchant, sync.entity_type, sync.generation - 1)
    revert = enqueue(connection, merchant, sync.entity_type)
    this = (sync_table.c.merchant == merchant) & (sync_table.c.id == revert.id)
    connection.execute(update(sync_table).where(this).values(reverts=sync_id, restores=sync.generation - 1))
    return syncs.get(connection, merchant, revert.id)


def restore(
    connection: Connection, claim: Claim, generation: int, after: str, lease_seconds: float, limit: int
) -> str | None:
    """Restore at most `limit` records of the generation. Return where to continue, None at the end.

    First the records that later generations created or updated, then those that they deleted, from the place `after`.
    Raises LeaseLost, and PullFailed if the generation is no longer kept.
    """
    claims.heartbeat(connection, claim, lease_seconds)
    try:
        # Generation 0 is empty, and needs no history.
        published = view(connection, claim.merchant, claim.entity_type, generation or None).published
    except GenerationGone as error:
        raise PullFailed("HISTORY_GONE", error.detail) from None
    here = in_catalog(catalog_records, claim.merchant, claim.entity_type)
    past = in_catalog(catalog_history, claim.merchant, claim.entity_type)
    # + 0: SQLite 3.40 finds wrong rows where it searches an index for a list of ids and then a range (OP_SeekScan).
    was_there = past & (_history.from_generation + 0 <= generation) & (_history.to_generation > generation)
    later = here & (_records.generation > generation) & (_records.generation <= published)
    in_order = select(_records.record_id, _records.size).where(later).order_by(_records.generation, _records.record_id)
    replaced = {row.record_id: row.size for row in connection.execute(in_order.limit(limit))}
    if replaced:
        is_one, values = is_sent(connection, _history.record_id, list(replaced))
        found = connection.execute(select(_history.record_id, _history.size).where(was_there, is_one), values)
        sizes = {row.record_id: row.size for row in found}
        more = len(sizes) - len(replaced), sum(sizes.values()) - sum(replaced.values())
        counts, cursor = Counts(updated=len(sizes), deleted=len(replaced) - len(sizes)), after
    else:
        place = tuple_(_history.to_generation, _history.record_id)
        start = (int(after.partition("/")[0]), after.partition("/")[2]) if after else (generation, "")
        is_missing = ~is_found(here, _records.record_id == _history.record_id)
        rows = connection.execute(
            select(_history.to_generation, _history.record_id, _history.size)
            .where(was_there, _history.to_generation <= published, place > tuple_(*start), is_missing)
            .order_by(_history.to_generation, _history.record_id)
            .limit(limit)
        ).all()
        if not rows:
            return None
        sizes = {row.record_id: row.size for row in rows}
        more = len(sizes), sum(sizes.values())
        counts, cursor = Counts(created=len(sizes)), f"{rows[-1].to_generation}/{rows[-1].record_id}"
    next_generation, _ = generations.add(connection, claim, *more)
    if replaced:
        generations.supersede(connection, claim, next_generation, list(replaced))
        is_one, values = is_sent(connection, _records.record_id, list(replaced))
        connection.execute(delete(catalog_records).where(here, is_one), values)
    if sizes:
        _copy_back(connection, was_there, next_generation, list(sizes))
    claims.record_restored(connection, claim, counts, cursor)
    return cursor


def _copy_back(connection: Connection, was_there: Any, generation: int, ids: list[str]) -> None:
    is_one, values = is_sent(connection, _history.record_id, ids)
    key = (_history.merchant, _history.entity_type, _history.record_id)
    content = (_history[name] for name in CONTENT)
    versions = select(*key, generations.number(generation), *content).where(was_there, is_one)
    into = ["merchant", "entity_type", "record_id", "generation", *CONTENT]
    connection.execute(insert(catalog_records).from_select(into, versions), values)
