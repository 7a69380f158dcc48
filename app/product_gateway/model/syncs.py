"""Syncs: their states, progress and results."""

import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class EntityType(StrEnum):
    """What a sync copies."""

    PRODUCT = "PRODUCT"
    COLLECTION = "COLLECTION"


class SyncStatus(StrEnum):
    """The life of a sync: QUEUED -> IN_PROGRESS -> SUCCEEDED, FAILED or CANCELLED."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ACTIVE = (SyncStatus.QUEUED, SyncStatus.IN_PROGRESS)

QUEUED_RETRY_AFTER = 2
LONGEST_ESTIMATE_SECONDS = 3600

MIN_SAMPLE = 20  # records: with fewer, a share says nothing


@dataclass(frozen=True, slots=True)
class Counts:
    """What a sync did to the catalog, in records."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Sync:
    """One run, past or present. `as_of` is the database's clock when the row was read.

    `unidentified` counts the records without a usable id, `not_removed` those that it kept because of them, though the
    list lacks them.
    """

    id: UUID
    merchant: str
    entity_type: EntityType
    status: SyncStatus
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    records_read: int
    records_total: int | None
    counts: Counts
    failure_code: str | None
    failure_detail: str | None
    as_of: datetime
    unidentified: int = 0
    not_removed: int = 0

    @property
    def is_active(self) -> bool:
        """Queued or in progress."""
        return self.status in ACTIVE

    @property
    def percent(self) -> int | None:
        """How far the pull is, 0 to 100; None while the total is unknown."""
        if self.records_total is None:
            return None
        if self.records_total == 0:
            return 100
        return min(100, self.records_read * 100 // self.records_total)

    @property
    def seconds_left(self) -> int:
        """When an active sync is likely to end, in whole seconds from `as_of`, at least 1.

        From the speed so far where the total is known; otherwise as long again as it has run.
        """
        if not self.is_active:
            return 1
        if self.started_at is None:
            return QUEUED_RETRY_AFTER
        elapsed = max(0.0, (self.as_of - self.started_at).total_seconds())
        left = elapsed
        if self.records_total is not None and self.records_read:
            left = elapsed * max(0, self.records_total - self.records_read) / self.records_read
        return max(1, min(LONGEST_ESTIMATE_SECONDS, math.ceil(left)))


@dataclass(frozen=True, slots=True)
class SyncEvent:
    """Something that happened to a sync. What `number` and `detail` mean depends on the kind."""

    at: datetime
    kind: str
    number: int | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class ActiveSyncs:
    """How many syncs of an entity type have a status, over all merchants, and how long ago the first was asked for."""

    entity_type: EntityType
    status: SyncStatus
    count: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's right to run a sync. `token` fences: a later claim has a larger one.

    `taken_over` where the lease of another worker had run out.
    """

    merchant: str
    sync_id: UUID
    entity_type: EntityType
    token: int
    attempt: int
    cursor: str | None
    pages_read: int
    records_read: int
    rejected: int
    pull_complete: bool
    taken_over: bool = False
    seconds_since_start: float = 0.0  # of the sync; its time in the queue in between counts


@dataclass(frozen=True, slots=True)
class Demand:
    """Which merchants wait for a slot though they have none, and the syncs that are their merchant's second one."""

    waiting: frozenset[str]
    second_syncs: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class Quota:
    """The most records, and bytes of records, that a merchant's catalog of one entity type may have."""

    records: int
    bytes: int
