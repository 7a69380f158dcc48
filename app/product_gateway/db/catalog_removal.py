"""Removal of records that a merchant's list no longer has, and of the ids that ended pulls have seen."""

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, CompoundSelect, Connection, bindparam, delete, except_, func, select, text, update

from product_gateway.db import claims, generations
from product_gateway.db.catalog import in_catalog
from product_gateway.db.engines.dialects import PerDialect, insert_into, is_sent
from product_gateway.db.tables import ACTIVE, catalog_counts, catalog_records, seen_records, syncs
from product_gateway.model.syncs import Claim, EntityType

_records = catalog_records.c
_seen = seen_records.c
_counts = catalog_counts.c

_LAST_CONTROL_CHARACTER = "\x1f"
_in_all = select(_counts.working_records).where(
    _counts.merchant == bindparam("m"), _counts.entity_type == bindparam("t")
)
_saw_all = select(syncs.c.id).where(
    (syncs.c.merchant == bindparam("m")) & (syncs.c.id == bindparam("i")),
    syncs.c.created + syncs.c.updated + syncs.c.unchanged == _in_all.scalar_subquery(),
)
_insert_counts = PerDialect(lambda dialect: insert_into(dialect, catalog_counts).on_conflict_do_nothing())


def missing(connection: Connection, claim: Claim, limit: int) -> list[str]:
    """Return the ids of at most `limit` records that the pull has not seen."""
    if connection.execute(_saw_all, {"m": claim.merchant, "i": claim.sync_id, "t": claim.entity_type}).first():
        return []
    return list(connection.scalars(_unseen(claim).limit(limit)))


def any_seen(connection: Connection, claim: Claim) -> str | None:
    """Return one record id without a comma that the pull has seen; None if there is none."""
    written = in_catalog(catalog_records, claim.merchant, claim.entity_type), _is_written(claim)
    for record_id, conditions in ((_seen.record_id, (_in_pull(claim),)), (_records.record_id, written)):
        usable = (record_id > _LAST_CONTROL_CHARACTER) & record_id.not_like("%,%")
        found: str | None = connection.scalar(select(record_id).where(*conditions, usable).limit(1))
        if found is not None:
            return found
    return None


def count_missing(connection: Connection, claim: Claim) -> tuple[int, int, bool]:
    """Return the number of unseen records, the number of all records, and whether a mass deletion is allowed."""
    unseen = select(func.count()).select_from(_unseen(claim).subquery())
    counted = connection.execute(
        select(_counts.working_records, _counts.mass_deletion_allowed).where(
            in_catalog(catalog_counts, claim.merchant, claim.entity_type)
        )
    ).first()
    if counted is None:
        return 0, 0, False
    return connection.execute(unseen).scalar_one(), counted.working_records, counted.mass_deletion_allowed


def allow_mass_deletion(connection: Connection, merchant: str, entity_type: EntityType) -> None:
    """Let the next successful sync of the entity type remove any number of records. Later syncs are limited again."""
    key = {"merchant": merchant, "entity_type": entity_type}
    connection.execute(_insert_counts[connection.dialect.name], key)
    connection.execute(
        update(catalog_counts)
        .where(in_catalog(catalog_counts, merchant, entity_type))
        .values(mass_deletion_allowed=True)
    )


def remove_missing(connection: Connection, claim: Claim, after: str, limit: int) -> str | None:
    """Check the next `limit` records after the id `after`, and remove those that the pull has not seen.

    Returns the id to continue after; None at the end. Raises LeaseLost.
    """
    here = in_catalog(catalog_records, claim.merchant, claim.entity_type)
    next_rows = (
        select(_records.record_id, _records.size, _is_written(claim).label("is_written"))
        .where(here, _records.record_id > after)
        .order_by(_records.record_id)
        .limit(limit)
    )
    rows = connection.execute(next_rows).all()
    gone: dict[str, int] = {}
    if rows:
        among = _seen.record_id.between(rows[0].record_id, rows[-1].record_id)
        seen = set(connection.scalars(select(_seen.record_id).where(_in_pull(claim), among)))
        gone = {each.record_id: each.size for each in rows if not each.is_written and each.record_id not in seen}
    claims.record_removed(connection, claim, len(gone))
    _remove(connection, claim, gone)
    return rows[-1].record_id if len(rows) == limit else None


def remove(connection: Connection, claim: Claim, ids: Sequence[str]) -> None:
    """Remove the records with these ids that the catalog holds. Raises LeaseLost."""
    these = in_catalog(catalog_records, claim.merchant, claim.entity_type) & _records.record_id.in_(ids)
    sizes: dict[str, int] = {
        row.record_id: row.size for row in connection.execute(select(_records.record_id, _records.size).where(these))
    }
    claims.record_removed(connection, claim, len(sizes))
    _remove(connection, claim, sizes)


def _remove(connection: Connection, claim: Claim, sizes: Mapping[str, int]) -> None:
    if not sizes:
        return
    generation, _ = generations.add(connection, claim, -len(sizes), -sum(sizes.values()))
    generations.supersede(connection, claim, generation, list(sizes))
    these, values = is_sent(connection, _records.record_id, list(sizes))
    connection.execute(
        delete(catalog_records).where(in_catalog(catalog_records, claim.merchant, claim.entity_type), these),
        values,
    )


def delete_seen(connection: Connection, merchant: str, limit: int) -> bool:
    """Delete at most `limit` seen ids of one ended pull of the merchant. Return False if there are none."""
    active = select(syncs.c.id).where(syncs.c.merchant == merchant, text(ACTIVE))
    of_merchant = _seen.merchant == merchant
    ended = connection.scalar(select(_seen.sync_id).where(of_merchant, _seen.sync_id.not_in(active)).limit(1))
    if ended is None:
        return False
    of_sync = of_merchant & (_seen.sync_id == ended)
    after_limit = select(_seen.record_id).where(of_sync).order_by(_seen.record_id).offset(limit).limit(1)
    first_kept = connection.scalar(after_limit)
    some = of_sync if first_kept is None else of_sync & (_seen.record_id < first_kept)
    connection.execute(delete(seen_records).where(some))
    return True


def _is_written(claim: Claim) -> ColumnElement[bool]:
    return generations.is_unpublished(claim.merchant, claim.entity_type)


def _in_pull(claim: Claim) -> ColumnElement[bool]:
    return (_seen.merchant == claim.merchant) & (_seen.sync_id == claim.sync_id)


def _unseen(claim: Claim) -> CompoundSelect[str]:
    # EXCEPT, not a join: PostgreSQL underestimates the ids that a running pull has seen and plans a nested loop.
    here = in_catalog(catalog_records, claim.merchant, claim.entity_type) & ~_is_written(claim)
    return except_(select(_records.record_id).where(here), select(_seen.record_id).where(_in_pull(claim)))
