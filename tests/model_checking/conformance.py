"""Compare recorded changes of the database with the steps of the model.

The abstraction of a change keeps the status, whether the lease had expired, what has grown (token, lost workers, pages,
generation), whose records are unpublished, and whether another sync is active. The model takes a step with the same
abstraction, or the change is refused.
"""

import collections
import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tests.model_checking.checker import search
from tests.model_checking.model import ACTIVE, IN_PROGRESS, PUBLISHED, Bounds, State, Step, Sync
from tests.model_checking.product import Product
from tests.model_checking.recorder import Recorded


class SyncChange(NamedTuple):
    """The abstraction of a change of a row of `syncs`. `unpublished` is none, this or other."""

    was: str | None
    became: str | None
    manual: bool
    expired: bool
    tokens: int
    lost: int
    pages: int
    unpublished: str
    others: bool


class CatalogChange(NamedTuple):
    """The abstraction of a change of a row of `catalog_counts`: the status of the sync that has unpublished records."""

    was: str | None
    became: str | None
    generations: int


Change = SyncChange | CatalogChange


class Verdict(NamedTuple):
    """The number of changes by what they are, and those that the model cannot take."""

    accepted: collections.Counter[str]
    refused: list[str]

    def __str__(self) -> str:
        return f"{sum(self.accepted.values()):,} accepted by the model, {len(self.refused):,} refused"


@functools.cache
def accepted_changes() -> frozenset[Change]:
    """Return the abstractions of all steps of the model with one entity type. More workers would add none."""
    product = Product(Bounds(entity_types=1, workers=1))
    search(product.initial, product.successors, product.broken)
    return frozenset(
        change
        for state in list(product.states())
        for step in product.steps(state)
        for change in changes_of(state, step)
    )


def changes_of(state: State, step: Step) -> Iterator[Change]:
    """Return the abstractions of the changes of rows in one step."""
    after, more = step.after, len(step.after.syncs) - len(state.syncs)
    noted = None if state.unpublished is None else state.unpublished + more
    claim = None if step.worker is None else state.claims[step.worker]
    written = claim.sync if claim and step.action in ("heartbeat", "prepare", "page") else None
    claimed = after.claims[step.worker] if step.action == "claim" and step.worker is not None else None
    for place, sync in enumerate(after.syncs):
        was = state.syncs[place - more] if place >= more else None
        tokens = int(claimed is not None and claimed.sync == place)
        others = any(each.is_active for other, each in enumerate(after.syncs) if other != place)
        for unpublished in {_whose(noted, place), _whose(after.unpublished, place)}:
            if was is None or (was.status, was.lost, was.pages) != (sync.status, sync.lost, sync.pages) or tokens:
                yield _of_sync(was, sync, tokens, unpublished, others=others)
            # A revert notes what it restores after its insert. The model forgets older syncs, so also after a PUT.
            is_requested = step.action in ("put", "revert") and place == 0 and not sync.manual
            if place == written or is_requested:  # `written`: a heartbeat
                yield _of_sync(was or sync, was or sync, 0, unpublished, others=others)
    yield from _of_catalog(noted, step)


def _of_sync(was: Sync | None, became: Sync, tokens: int, unpublished: str, *, others: bool) -> SyncChange:
    before = was or became
    return SyncChange(
        None if was is None else was.status,
        became.status,
        became.manual and (was is None or was.is_active),
        was is not None and was.status == IN_PROGRESS and was.expired,
        tokens,
        became.lost - before.lost,
        became.pages - before.pages,
        unpublished,
        others,
    )


def _of_catalog(noted: int | None, step: Step) -> Iterator[CatalogChange]:
    after = step.after
    status = None if noted is None else after.syncs[noted].status
    if step.action in ("end", "publish") and after.unpublished is None:
        if noted is None:
            yield CatalogChange(None, PUBLISHED, 0)
        yield CatalogChange(PUBLISHED, None, 1)
    elif noted != after.unpublished:
        yield CatalogChange(status, None if after.unpublished is None else after.syncs[after.unpublished].status, 0)


def _whose(noted: int | None, place: int) -> str:
    return "none" if noted is None else "this" if noted == place else "other"


def judge(changes: Iterable[Recorded]) -> Verdict:
    """Check that each change is a step of the model, and that each row was as its last change left it."""
    verdict = Verdict(collections.Counter(), [])
    rows: dict[tuple[Any, ...], tuple[object, ...] | None] = {}
    for each in changes:
        key = (each.of, each.merchant, each.entity_type, each.sync_id)
        change = abstraction(each)
        before = rows.get(key)
        # The status of the noted sync changes by itself.
        if (each.was and before and each.was[:2] != before[:2]) if each.of == "catalog" else each.was != before:
            verdict.refused.append(f"{each}: it was {before} before")
        elif change not in accepted_changes():
            verdict.refused.append(f"{each}: the model has no such step")
        else:
            verdict.accepted[f"{change.was or 'nothing'} -> {change.became or 'nothing'}"] += 1
        rows[key] = each.became
    return verdict


def abstraction(change: Recorded) -> Change:
    """Return the abstraction of a recorded change."""
    was: Any
    became: Any
    if change.of == "catalog":
        was, became = change.was or (0, None, None), change.became or (0, None, None)
        if was[1] and became[1]:
            return CatalogChange(f"{was[2]} of {was[1]}", f"{became[2]} of {became[1]}", became[0] - was[0])
        return CatalogChange(_status(was), _status(became), became[0] - was[0])
    if change.became is None:
        return SyncChange(str((change.was or [None])[0]), None, False, change.expired, 0, 0, 0, "", bool(change.others))
    was, became = change.was or (None, 0, 0, 0, None), change.became
    is_manual = became[4] == "MANUAL" and was[0] in (None, *ACTIVE)
    tokens, lost, pages = (after - before for before, after in zip(was[1:4], became[1:4], strict=True))
    unpublished = change.unpublished or ""
    return SyncChange(
        was[0], became[0], is_manual, change.expired, tokens, lost, pages, unpublished, bool(change.others)
    )


def _status(noted: Any) -> str | None:
    """Return the status of the noted sync; DELETED if it is gone."""
    return None if noted[1] is None else noted[2] or "DELETED"
