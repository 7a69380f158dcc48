"""The feed of changes: what a window of generations created, updated and deleted. Read from the versions of records.

A window goes from the generation `since` to the generation `until`. A record is in it at most once: in its version of
`until`, or as deleted. The order is by the generation that changed the record last, then by id.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, func, literal, literal_column, select, tuple_

from product_gateway.db import syncs
from product_gateway.db.catalog import View, in_catalog, is_found, record_of, view
from product_gateway.db.engines.dialects import ValuesTable
from product_gateway.db.executor import autocommit
from product_gateway.db.page_budget import fitting
from product_gateway.db.tables import catalog_counts, catalog_history, catalog_records
from product_gateway.errors import NotPublishable
from product_gateway.model.catalog import Change, ChangeKind, ChangePosition
from product_gateway.model.syncs import EntityType, Publication

_records, _history, _counts = catalog_records.c, catalog_history.c, catalog_counts.c
_sent = ValuesTable("merchant", "entity_type")


class ChangePage(NamedTuple):
    """A page of changes. `until` is the last generation of its window, and `place` where the next page starts.

    `is_last` says that the window has no further page, `is_newest` that no later generation is published.
    """

    changes: Sequence[Change]
    until: int
    place: ChangePosition
    is_last: bool
    is_newest: bool


class _Row(NamedTuple):
    """A change without its record. `existed`: in the generation before the window; None for a deletion."""

    generation: int  # by which the feed is in order
    record_id: str
    size: int
    table: str
    existed: bool | None
    shown: int  # the generation that changed it


def since(
    connection: Connection, merchant: str, entity_type: EntityType, place: ChangePosition, limit: int
) -> ChangePage:
    """Return at most `limit` published changes after the place, and fewer at the byte budget. Raise GenerationGone."""
    now = view(connection, merchant, entity_type)
    if place.since:
        view(connection, merchant, entity_type, place.since)
    sees = now if place.until is None else view(connection, merchant, entity_type, place.until)
    return _page(connection, sees, place, limit, is_newest=sees.generation == now.generation)


def of_sync(
    connection: Connection, merchant: str, sync_id: UUID, place: ChangePosition | None, limit: int
) -> tuple[EntityType, ChangePage]:
    """Return the entity type and changes of a sync: those that it published, or would publish.

    Raise SyncNotFound, NotPublishable if it has no result, and GenerationGone if that is no longer kept.
    """
    sync = syncs.get(connection, merchant, sync_id)
    if sync.generation is None or sync.publication is Publication.DISCARDED:
        raise NotPublishable(f"Sync {sync_id} has no result: it did not succeed, or its result was discarded.")
    place = place or ChangePosition(sync.generation - 1, sync.generation)
    if sync.publication is Publication.STAGED:
        sees = View(merchant, sync.entity_type, sync.generation, sync.generation - 1, is_current=True)
    else:
        sees = view(connection, merchant, sync.entity_type, sync.generation)
        if place.since:
            view(connection, merchant, sync.entity_type, place.since)
    return sync.entity_type, _page(connection, sees, place, limit, is_newest=False)


def _page(connection: Connection, sees: View, place: ChangePosition, limit: int, *, is_newest: bool) -> ChangePage:
    start, until = place.since, sees.generation
    after = (place.generation, place.record_id) if place.generation else (start + 1, "")
    found: list[_Row] = []

    def add(table: Any, generation: Any, existed: Any, *where: ColumnElement[bool], shown: Any = None) -> None:
        c = table.c
        shown = generation if shown is None else shown
        place = tuple_(generation, c.record_id)
        # No further than the page that the rows so far fill: beyond it, a long history may have no change to show.
        as_far = place <= tuple_(*found[limit][:2]) if len(found) > limit else generation <= until
        chosen = select(generation, c.record_id, c.size, literal(table.name), existed, shown).where(
            c.merchant == sees.merchant,
            c.entity_type == sees.entity_type,
            place > tuple_(*after),
            as_far,
            *where,
        )
        rows = connection.execute(chosen.order_by(generation, c.record_id).limit(limit + 1))
        found.extend(_Row(*row) for row in rows)
        found.sort(key=itemgetter(0, 1))

    existed = (lambda c: _held_in(sees, start, c)) if start else (lambda _: literal_column("0"))
    add(catalog_records, _records.generation, existed(_records))
    if not sees.is_current:
        add(catalog_history, _history.from_generation, existed(_history), _history.to_generation > until)
    if start:
        is_gone = (_history.from_generation <= start) & ~_is_held(sees)
        add(catalog_history, _history.to_generation, literal_column("NULL"), is_gone, shown=_gone_since(sees))
    number = fitting(row.size for row in found[:limit])
    chosen = found[:number]
    changes = _with_records(connection, sees, chosen)
    if number < len(found):
        place = ChangePosition(start, until, chosen[-1].generation, chosen[-1].record_id)
        return ChangePage(changes, until, place, is_last=False, is_newest=is_newest)
    return ChangePage(changes, until, ChangePosition(until), is_last=True, is_newest=is_newest)


def _held_in(sees: View, generation: int, c: Any) -> Any:
    """Whether the record has a version in the history that was in the generation."""
    past = catalog_history.alias()
    return is_found(
        in_catalog(past, sees.merchant, sees.entity_type),
        past.c.record_id == c.record_id,
        past.c.from_generation <= generation,
        past.c.to_generation + 0 > generation,  # not by the index of generations
    )


def _is_held(sees: View) -> ColumnElement[bool]:
    """Whether the record of a version in the history is in the generation."""
    current = is_found(
        in_catalog(catalog_records, sees.merchant, sees.entity_type),
        _records.record_id == _history.record_id,
        _records.generation + 0 <= sees.generation,
    )
    return current if sees.is_current else current | _held_in(sees, sees.generation, _history)


def _gone_since(sees: View) -> Any:
    """The generation that deleted the record of a version in the history: the last one that ended a version."""
    last = catalog_history.alias()
    ended = last.c.to_generation + 0  # not by the index of generations
    return (
        select(func.max(ended))
        .where(
            in_catalog(last, sees.merchant, sees.entity_type),
            last.c.record_id == _history.record_id,
            ended <= sees.generation,
        )
        .scalar_subquery()
    )


def _with_records(connection: Connection, sees: View, rows: Sequence[_Row]) -> list[Change]:
    records = {}
    for table, generation in ((catalog_records, _records.generation), (catalog_history, _history.from_generation)):
        c = table.c
        ids = [row.record_id for row in rows if row.table == table.name and row.existed is not None]
        if ids:
            here = in_catalog(table, sees.merchant, sees.entity_type)
            found = select(generation.label("since"), c.record_id, c.document, c.product_ids)
            for row in connection.execute(found.where(here, c.record_id.in_(ids))):
                records[row.since, row.record_id] = record_of(row)
    kinds = {None: ChangeKind.DELETED, False: ChangeKind.CREATED, True: ChangeKind.UPDATED}
    return [
        Change(kinds[row.existed], row.record_id, row.shown, records.get((row.generation, row.record_id)))
        for row in rows
    ]


@autocommit
def published(connection: Connection, keys: Sequence[tuple[str, EntityType]]) -> dict[tuple[str, EntityType], int]:
    """Return the published generations of merchants and entity types; those without a catalog are missing."""
    dialect = connection.dialect.name
    merchant, entity_type = _sent.columns[dialect]
    of_sent = in_catalog(catalog_counts, merchant, entity_type)
    chosen = select(_counts.merchant, _counts.entity_type, _counts.generation)
    rows = connection.execute(
        chosen.join_from(_sent.tables[dialect], catalog_counts, of_sent), _sent.parameters(connection, keys)
    )
    return {(row.merchant, EntityType(row.entity_type)): row.generation for row in rows}
