"""A reference model of the sync table and the catalog, which test_sync_model.py compares with the database."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from product_gateway.model.catalog import Page
from product_gateway.model.syncs import ACTIVE, Claim, Counts, EntityType, Publication, Sync, SyncStatus

Kind = tuple[str, EntityType]
Row = tuple[object, ...]


class Version(NamedTuple):
    """A record's content, and the generation that wrote it."""

    document: str
    generation: int


Contents = dict[str, Version]


class PastVersion(NamedTuple):
    """A version that was replaced or removed, as a row of the history."""

    record_id: str
    since: int
    to: int
    document: str


@dataclass
class Run:
    """One sync."""

    id: UUID
    of: Kind
    queued_at: datetime
    key: str | None
    waits_since: datetime
    is_manual: bool = False
    status: SyncStatus = SyncStatus.QUEUED
    token: int = 0
    lost: int = 0
    ran_out: bool = False
    cursor: str | None = None
    complete: bool = False
    unidentified: int = 0
    pages: int = 0
    read: int = 0
    counts: Counts = field(default_factory=Counts)
    code: str | None = None
    seen: set[str] = field(default_factory=set)
    seen_and_not_written: set[str] = field(default_factory=set)
    problems: int = 0
    aged: bool = False
    publication: Publication | None = None
    generation: int | None = None
    reverts: UUID | None = None
    restores: int | None = None

    @property
    def is_active(self) -> bool:
        """Queued or in progress."""
        return self.status in ACTIVE

    def row(self) -> Row:
        """Return the expected row of the table."""
        counts = (*self._counted(), self.code, self.problems, len(self.seen_and_not_written))
        of = (self.id, *self.of, self.key, self.status, self.token, self.lost)
        result = (self.publication, self.generation, self.reverts, self.restores)
        return (*of, self.cursor, self.complete, self.unidentified, self.pages, self.read, *result, *counts)

    def add(self, more: Counts) -> None:
        """Count more records."""
        was = self.counts
        self.counts = Counts(
            was.created + more.created,
            was.updated + more.updated,
            was.unchanged + more.unchanged,
            was.deleted + more.deleted,
            was.rejected + more.rejected,
        )

    def _counted(self) -> tuple[int, ...]:
        made = self.counts
        return (made.created, made.updated, made.unchanged, made.deleted, made.rejected)


class Catalog:
    """The generations of one merchant's products or collections, and what has been written for the next one.

    `unpublished` is the sync that has written it. While `rolls_back`, it is undone.
    """

    def __init__(self) -> None:
        self.generations: list[Contents] = [{}]
        self.working: Contents = {}
        self.unpublished: UUID | None = None
        self.rolls_back = False
        self.oldest = 0
        self.aged = 0  # the last generation that was published long ago

    @property
    def published(self) -> int:
        """The generation that readers see."""
        return len(self.generations) - 1

    @property
    def shown(self) -> Contents:
        """What readers see."""
        return self.generations[-1]

    def is_kept(self, generation: int) -> bool:
        """Return whether the history has everything of the generation."""
        return self.oldest <= generation <= self.published

    def publish(self) -> None:
        """Show what was written as the next generation."""
        self.generations.append(dict(self.working))
        self.unpublished = None

    def history(self) -> Iterator[PastVersion]:
        """Return all versions that were replaced or removed."""
        later = [*self.generations[1:], self.working]
        for to, (before, after) in enumerate(zip(self.generations, later, strict=True), 1):
            for record_id, version in before.items():
                if after.get(record_id) != version:
                    yield PastVersion(record_id, version.generation, to, version.document)

    def roll_back(self, limit: int) -> bool:
        """Undo at most `limit` written records. Return whether nothing is left."""
        self.rolls_back = True
        written = sorted(each for each, version in self.working.items() if version.generation > self.published)
        replaced = sorted(set(self.shown) - set(self.working))
        for each in written[:limit]:
            del self.working[each]
        if not written:
            self.working |= {each: self.shown[each] for each in replaced[:limit]}
        if not written and not replaced:
            self.unpublished, self.rolls_back = None, False
        return not self.rolls_back

    def restore(self, generation: int, limit: int) -> Counts | None:
        """Restore at most `limit` records of the generation. None: all are restored."""
        wanted, here = self.generations[generation], self.published + 1
        later = sorted((v.generation, k) for k, v in self.working.items() if generation < v.generation < here)[:limit]
        for _, each in later:
            del self.working[each]
        back = [each for _, each in later if each in wanted]
        missing = [] if later else sorted(set(wanted) - set(self.working), key=lambda k: (self._end(k, generation), k))
        for each in (*back, *missing[:limit]):
            self.working[each] = Version(wanted[each].document, here)
        if not later and not missing:
            return None
        return Counts(created=len(missing[:limit]), updated=len(back), deleted=len(later) - len(back))

    def _end(self, record_id: str, generation: int) -> int:
        version = self.generations[generation][record_id]
        later = range(generation + 1, self.published + 1)
        return next(each for each in later if self.generations[each].get(record_id) != version)


class Model:
    """The stored syncs and the catalogs."""

    def __init__(self) -> None:
        self.runs: dict[UUID, Run] = {}
        self.catalogs: dict[Kind, Catalog] = {}

    def catalog(self, of: Kind) -> Catalog:
        """Return the catalog of a merchant and entity type."""
        return self.catalogs.setdefault(of, Catalog())

    def active(self, of: Kind) -> Run | None:
        """Return the active sync, if any."""
        return next((run for run in self.runs.values() if run.of == of and run.is_active), None)

    def of_key(self, merchant: str, key: str | None) -> Run | None:
        """Return the sync of an idempotency key."""
        return next((run for run in self.runs.values() if key and run.of[0] == merchant and run.key == key), None)

    def enqueued(self, sync: Sync, key: str | None, *, is_manual: bool = False) -> Run:
        """Return a new sync."""
        assert sync.id not in self.runs
        of = (sync.merchant, sync.entity_type)
        self.runs[sync.id] = Run(sync.id, of, sync.queued_at, key, sync.queued_at, is_manual)
        return self.runs[sync.id]

    def owner(self, claim: Claim) -> Run | None:
        """Return the sync of the claim, if the claim is still valid."""
        run = self.runs.get(claim.sync_id)
        return run if run and run.status is SyncStatus.IN_PROGRESS and run.token == claim.token else None

    def claim(self, max_lost: int, at_once: int) -> Run | None:
        """Claim an expired sync, or else the next queued one. Syncs that lost too many workers fail."""

        def place(run: Run) -> tuple[object, ...]:
            return self._running(run.of[0]) > 0, not run.ran_out, run.queued_at if run.ran_out else run.waits_since

        for run in sorted(self.runs.values(), key=place):
            waiting = run.status is SyncStatus.QUEUED or (run.status is SyncStatus.IN_PROGRESS and run.ran_out)
            if not waiting or self._running(run.of[0]) >= at_once:
                continue
            run.lost += run.status is SyncStatus.IN_PROGRESS
            if run.lost < max_lost:
                run.status, run.token, run.ran_out = SyncStatus.IN_PROGRESS, run.token + 1, False
                return run
            self.end(run, SyncStatus.FAILED, "WORKER_LOST")
        return None

    def prepare(self, run: Run, limit: int) -> bool:
        """Roll back at most `limit` records of another sync. Return whether nothing is left."""
        run.ran_out = False
        catalog = self.catalog(run.of)
        left = self.runs.get(catalog.unpublished) if catalog.unpublished else None
        if left and left.publication is Publication.STAGED:
            left.publication = Publication.DISCARDED
        return catalog.roll_back(limit)

    def page(self, run: Run, page: Page) -> None:
        """Apply a page to its sync and to the catalog."""
        catalog = self.catalog(run.of)
        new = updated = unchanged = 0
        sent = {each.id for each in page.records} | {each.record_id for each in page.rejections if each.record_id}
        written: set[str] = set()
        for each in page.records:
            was = catalog.working.get(each.id)
            if each.id not in run.seen:
                new += was is None
                updated += was is not None and was.document != each.document
                unchanged += was is not None and was.document == each.document
            if was is None or was.document != each.document:
                catalog.working[each.id] = Version(each.document, catalog.published + 1)
                catalog.unpublished = run.id
                written.add(each.id)
        run.seen_and_not_written |= sent - run.seen - written
        run.seen |= sent
        run.unidentified += sum(each.record_id is None for each in page.rejections)
        run.problems += len(page.rejections)
        run.cursor, run.complete, run.ran_out = page.next_cursor, page.next_cursor is None, False
        run.pages, run.read = run.pages + 1, run.read + page.size
        run.add(Counts(new, updated, unchanged, 0, len(page.rejections)))

    def remove_missing(self, run: Run) -> None:
        """Remove the records that a complete pull did not see."""
        catalog = self.catalog(run.of)
        missing = set(catalog.working) - run.seen
        for each in missing:
            del catalog.working[each]
            catalog.unpublished = run.id
        run.add(Counts(deleted=len(missing)))

    def restore(self, run: Run, limit: int) -> bool:
        """Run one step of a revert. Return whether it was the last."""
        assert run.restores is not None
        run.ran_out = False
        catalog = self.catalog(run.of)
        more = catalog.restore(run.restores, limit)
        if more is not None:
            catalog.unpublished = run.id
            run.add(more)
            run.read += more.created + more.updated + more.deleted
        return more is None

    def release(self, run: Run) -> None:
        """Queue the sync again, behind the other merchants."""
        run.status, run.ran_out, run.waits_since = SyncStatus.QUEUED, False, datetime.now(UTC)

    def succeed(self, run: Run) -> None:
        """End the sync, and publish or stage what it wrote."""
        catalog = self.catalog(run.of)
        run.generation, run.publication = catalog.published + 1, Publication.PUBLISHED
        if run.is_manual:
            run.publication, catalog.unpublished = Publication.STAGED, run.id
        else:
            catalog.publish()
        self.end(run, SyncStatus.SUCCEEDED)

    def may_publish(self, run: Run) -> bool:
        """Return whether the sync is staged, and the newest of its kind."""
        newest = max((each for each in self.runs.values() if each.of == run.of), key=lambda each: each.queued_at)
        return run.publication is Publication.STAGED and run is newest

    def publish(self, run: Run) -> None:
        """Publish what the sync has staged."""
        run.publication = Publication.PUBLISHED
        self.catalog(run.of).publish()

    def end(self, run: Run, status: SyncStatus, code: str | None = None) -> None:
        """End the sync."""
        run.status, run.code, run.ran_out = status, code, False

    def left_behind(self) -> set[tuple[str, EntityType, UUID]]:
        """Return what is unpublished, and never will be published."""
        found = set()
        for of, catalog in self.catalogs.items():
            run = self.runs.get(catalog.unpublished) if catalog.unpublished else None
            ended = run is None or run.status in (SyncStatus.FAILED, SyncStatus.CANCELLED)
            if catalog.unpublished and (ended or (run and run.publication is Publication.DISCARDED)):
                found.add((*of, catalog.unpublished))
        return found

    def forget_seen(self, merchant: str) -> None:
        """Delete the ids that only ended pulls have seen."""
        for run in self.runs.values():
            if run.of[0] == merchant and not run.is_active:
                run.seen_and_not_written = set()

    def prune(self) -> int:
        """Delete old syncs, except the latest of each kind."""
        latest: dict[Kind, Run] = {}
        for run in self.runs.values():
            if run.of not in latest or run.queued_at > latest[run.of].queued_at:
                latest[run.of] = run
        old = [run.id for run in self.runs.values() if run.aged and run is not latest[run.of]]
        for each in old:
            del self.runs[each]
        return len(old)

    def _running(self, merchant: str) -> int:
        return sum(
            run.of[0] == merchant and run.status is SyncStatus.IN_PROGRESS and not run.ran_out
            for run in self.runs.values()
        )
