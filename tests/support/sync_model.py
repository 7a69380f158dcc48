"""A reference model of the sync table and the catalog, which test_sync_model.py compares with the database."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from product_gateway.model.catalog import Page
from product_gateway.model.syncs import ACTIVE, Claim, Counts, EntityType, Sync, SyncStatus

Kind = tuple[str, EntityType]
Row = tuple[object, ...]


@dataclass
class Run:
    """One sync."""

    id: UUID
    of: Kind
    queued_at: datetime
    key: str | None
    waits_since: datetime
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
    problems: int = 0
    aged: bool = False

    @property
    def is_active(self) -> bool:
        """Queued or in progress."""
        return self.status in ACTIVE

    def row(self) -> Row:
        """Return the expected row of the table."""
        counts = (*self._counted(), self.code, self.problems, len(self.seen))
        of = (self.id, *self.of, self.key, self.status, self.token, self.lost)
        return (*of, self.cursor, self.complete, self.unidentified, self.pages, self.read, *counts)

    def _counted(self) -> tuple[int, ...]:
        made = self.counts
        return (made.created, made.updated, made.unchanged, made.deleted, made.rejected)


class Model:
    """The stored syncs and the catalogs."""

    def __init__(self) -> None:
        self.runs: dict[UUID, Run] = {}
        self.catalogs: dict[Kind, dict[str, str]] = {}
        self.succeeded: dict[Kind, UUID] = {}

    def active(self, of: Kind) -> Run | None:
        """Return the active sync, if any."""
        return next((run for run in self.runs.values() if run.of == of and run.is_active), None)

    def of_key(self, merchant: str, key: str | None) -> Run | None:
        """Return the sync of an idempotency key."""
        return next((run for run in self.runs.values() if key and run.of[0] == merchant and run.key == key), None)

    def enqueued(self, sync: Sync, key: str | None) -> None:
        """Return a new sync."""
        assert sync.id not in self.runs
        self.runs[sync.id] = Run(sync.id, (sync.merchant, sync.entity_type), sync.queued_at, key, sync.queued_at)

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

    def page(self, run: Run, page: Page) -> None:
        """Apply a page to its sync and to the catalog."""
        catalog = self.catalogs.setdefault(run.of, {})
        new = updated = unchanged = 0
        for each in page.records:
            if each.id not in run.seen:
                new += each.id not in catalog
                updated += each.id in catalog and catalog[each.id] != each.document
                unchanged += catalog.get(each.id) == each.document
            catalog[each.id] = each.document
        run.seen |= {each.id for each in page.records}
        run.seen |= {each.record_id for each in page.rejections if each.record_id is not None}
        run.unidentified += sum(each.record_id is None for each in page.rejections)
        run.problems += len(page.rejections)
        run.cursor, run.complete, run.ran_out = page.next_cursor, page.next_cursor is None, False
        run.pages, run.read = run.pages + 1, run.read + page.size
        self._add(run, Counts(new, updated, unchanged, 0, len(page.rejections)))

    def remove_missing(self, run: Run) -> None:
        """Remove the records that a complete pull did not see."""
        catalog = self.catalogs.setdefault(run.of, {})
        missing = set(catalog) - run.seen
        self.catalogs[run.of] = {key: value for key, value in catalog.items() if key not in missing}
        self._add(run, Counts(deleted=len(missing)))

    def release(self, run: Run) -> None:
        """Queue the sync again, behind the other merchants."""
        run.status, run.ran_out, run.waits_since = SyncStatus.QUEUED, False, datetime.now(UTC)

    def end(self, run: Run, status: SyncStatus, code: str | None = None) -> None:
        """End the sync."""
        run.status, run.code, run.ran_out = status, code, False
        if status is SyncStatus.SUCCEEDED:
            self.catalogs.setdefault(run.of, {})
            self.succeeded[run.of] = run.id

    def forget_seen(self, merchant: str) -> None:
        """Delete the ids that only ended pulls have seen."""
        for run in self.runs.values():
            if run.of[0] == merchant and not run.is_active:
                run.seen = set()

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

    @staticmethod
    def _add(run: Run, more: Counts) -> None:
        was = run.counts
        run.counts = Counts(
            was.created + more.created,
            was.updated + more.updated,
            was.unchanged + more.unchanged,
            was.deleted + more.deleted,
            was.rejected + more.rejected,
        )
