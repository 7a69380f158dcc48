"""Max ages: which catalogs are stale, and one webhook message for each lapse.

A catalog is stale when it was not published within its max age, for any reason. The transaction that publishes it calls
`published`.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from product_gateway.db import syncs, webhooks
from product_gateway.db.tables import catalog_counts, max_ages, merchants
from product_gateway.db.types import Instant, later, now
from product_gateway.model.catalog import MaxAge, StaleCatalog
from product_gateway.model.syncs import EntityType

MOST_COUNTED = 1_000

_ages = max_ages.c
_counts = catalog_counts.c
_is_counted = (_counts.merchant == _ages.merchant) & (_counts.entity_type == _ages.entity_type)
_with_merchant = max_ages.join(merchants, merchants.c.name == _ages.merchant)
_joined = _with_merchant.outerjoin(catalog_counts, _is_counted)
# A parameter: PostgreSQL estimates how few rows it means only if it knows the value.
_select_now = sa.select(now())
# The catalog of a merchant who is refused cannot be synced, so it is not stale.
_is_active = ~merchants.c.disabled & (merchants.c.platform == sa.text("'BYOP'"))
_is_stale = (_ages.stale_after <= sa.bindparam("as_of", type_=Instant)) & _is_active
_described = [_ages.merchant, _ages.entity_type, _ages.seconds, _counts.updated_at.label("published_at")]
_described += [_ages.stale_after, _is_stale.label("is_stale")]
_in_order = (_ages.stale_after, _ages.merchant, _ages.entity_type)
_stale = sa.select(*_described).select_from(_joined).where(_is_stale).order_by(*_in_order)
_due = _stale.where(_ages.told_at.is_(None))
_of_merchant = sa.select(*_described).select_from(_joined).where(_ages.merchant == sa.bindparam("m"))
_all = sa.select(_ages.merchant, _ages.entity_type, _ages.seconds)
_count = (
    sa.select(_ages.entity_type)
    .select_from(_with_merchant)
    .where(_is_stale)
    .order_by(*_in_order)
    .limit(MOST_COUNTED)
    .subquery()
)
_count_stale = sa.select(_count.c.entity_type, sa.func.count()).group_by(_count.c.entity_type)

_this = sa.update(max_ages).where(_ages.merchant == sa.bindparam("m"), _ages.entity_type == sa.bindparam("t"))
# Only the one that is still as it was read: another worker may have marked it, or a sync has published the catalog.
_mark = _this.where(_ages.told_at.is_(None), _ages.stale_after == sa.bindparam("read_stale_after")).values(
    told_at=now()
)
_set_seconds = _this.values(seconds=sa.bindparam("s"))
# A statement of its own: in an UPDATE, a distributed PostgreSQL has no times that are computed from columns.
_select_stale_after = (
    sa.select(later(sa.func.coalesce(_counts.updated_at, _ages.since), _ages.seconds))
    .select_from(max_ages.outerjoin(catalog_counts, _is_counted))
    .where(_ages.merchant == sa.bindparam("m"), _ages.entity_type == sa.bindparam("t"))
)
_set_stale_after = _this.values(stale_after=sa.bindparam("after"))
_end_lapse = _this.where(_ages.stale_after > now()).values(told_at=None)
_published = _set_stale_after.values(told_at=None)


def put(connection: sa.Connection, merchant: str, seconds: Mapping[EntityType, int | None]) -> None:
    """Set the max ages of the merchant's catalogs, and remove those that are None.

    A change that makes a stale catalog fresh ends its lapse.
    """
    for entity_type, each in seconds.items():
        key = {"m": merchant, "t": entity_type}
        if each is None:
            connection.execute(sa.delete(max_ages).where(_ages.merchant == merchant, _ages.entity_type == entity_type))
            continue
        if connection.execute(_set_seconds, {**key, "s": each}).rowcount == 0:
            values = {"merchant": merchant, "entity_type": entity_type, "seconds": each}
            connection.execute(sa.insert(max_ages).values(**values, since=now(), stale_after=now()))
        _update_stale_after(connection, _set_stale_after, merchant, entity_type)
        connection.execute(_end_lapse, key)


def published(connection: sa.Connection, merchant: str, entity_type: EntityType) -> None:
    """End a lapse of the catalog. Call it in the transaction that publishes it, after the time was written."""
    _update_stale_after(connection, _published, merchant, entity_type)


def _update_stale_after(connection: sa.Connection, update: sa.Update, merchant: str, entity_type: EntityType) -> None:
    key = {"m": merchant, "t": entity_type}
    after = connection.scalar(_select_stale_after, key)
    if after is not None:
        connection.execute(update, {**key, "after": after})


def of_merchant(connection: sa.Connection, merchant: str) -> dict[EntityType, MaxAge]:
    """Return the max ages of the merchant's catalogs that have one."""
    rows = connection.execute(_of_merchant, {"m": merchant, **_now(connection)})
    return {EntityType(row.entity_type): MaxAge(row.seconds, row.stale_after, bool(row.is_stale)) for row in rows}


def of_all(connection: sa.Connection) -> dict[str, dict[EntityType, int]]:
    """Return the max ages in seconds by merchant and entity type, without merchants that have none."""
    found: dict[str, dict[EntityType, int]] = {}
    for merchant, entity_type, seconds in connection.execute(_all):
        found.setdefault(merchant, {})[EntityType(entity_type)] = seconds
    return found


def count_stale(connection: sa.Connection) -> dict[EntityType, int]:
    """Return the numbers of stale catalogs of all merchants, counted up to MOST_COUNTED."""
    found = {
        EntityType(entity_type): number for entity_type, number in connection.execute(_count_stale, _now(connection))
    }
    return dict.fromkeys(EntityType, 0) | found


def stale(connection: sa.Connection, most: int) -> list[StaleCatalog]:
    """Return the catalogs of all merchants that have been stale for longest, with their latest syncs."""
    rows = connection.execute(_stale.limit(most), _now(connection)).all()
    return [_stale_catalog(row, syncs.latest(connection, row.merchant, row.entity_type)) for row in rows]


def has_due(connection: sa.Connection) -> bool:
    """Return whether `mark` has something to do. Only reads, so that idle workers do not take SQLite's write lock."""
    return connection.execute(_due.limit(1), _now(connection)).first() is not None


def mark(connection: sa.Connection, limit: int) -> int:
    """Enqueue one message for each of at most `limit` new lapses, and return their number.

    Skips the catalogs that another worker marks at the same time.
    """
    due = connection.execute(_due.limit(limit), _now(connection)).all()
    marked = [
        row
        for row in due
        if connection.execute(
            _mark, {"m": row.merchant, "t": row.entity_type, "read_stale_after": row.stale_after}
        ).rowcount
    ]
    webhooks.enqueue_stale(connection, [_stale_catalog(row) for row in marked])
    return len(marked)


def _now(connection: sa.Connection) -> dict[str, Any]:
    return {"as_of": connection.scalar(_select_now)}


def _stale_catalog(row: sa.Row[Any], latest: Any = None) -> StaleCatalog:
    return StaleCatalog(
        row.merchant, EntityType(row.entity_type), row.seconds, row.published_at, row.stale_after, latest
    )
