"""Syncs: their states, progress and results."""

import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID


class EntityType(StrEnum):
    """What a sync copies."""

    PRODUCT = "PRODUCT"
    COLLECTION = "COLLECTION"


class SyncStatus(StrEnum):
    """The state of a sync: QUEUED -> IN_PROGRESS -> SUCCEEDED, FAILED or CANCELLED."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Publication(StrEnum):
    """What became of the result of a sync that succeeded: STAGED -> PUBLISHED or DISCARDED, or PUBLISHED at once."""

    STAGED = "STAGED"
    PUBLISHED = "PUBLISHED"
    DISCARDED = "DISCARDED"


ACTIVE = (SyncStatus.QUEUED, SyncStatus.IN_PROGRESS)

QUEUED_RETRY_AFTER = 2
LONGEST_ESTIMATE_SECONDS = 3600

MIN_SAMPLE = 20  # records: a percentage of fewer is not meaningful


class Counts(NamedTuple):
    """The numbers of records by what a sync did with them."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    rejected: int = 0


class Sync(NamedTuple):
    """One sync. `as_of` is the database's time when the row was read.

    A named tuple: a frozen dataclass of this size takes ten times as long to make, at each response.

    `unidentified` counts the records without a usable id. `not_removed` counts the missing records that the sync kept,
    because the list may have them without an id. `generation` is what the sync published or has staged. `reverts` is
    the sync that it undoes; None: it is a pull.
    """

    id: UUID
    merchant: str
    entity_type: EntityType
    status: SyncStatus
    queued_at: datetime
    as_of: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: int = 0
    records_read: int = 0
    records_total: int | None = None
    counts: Counts = Counts()
    unidentified: int = 0
    not_removed: int = 0
    failure_code: str | None = None
    failure_detail: str | None = None
    publication: Publication | None = None
    generation: int | None = None
    reverts: UUID | None = None

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE

    @property
    def percent(self) -> int | None:
        """The progress of the pull, 0 to 100; None while the total is unknown."""
        if self.records_total is None:
            return None
        return min(100, self.records_read * 100 // self.records_total) if self.records_total else 100

    @property
    def seconds_left(self) -> int:
        """The estimated whole seconds from `as_of` until an active sync ends, at least 1.

        Extrapolates the speed so far if the total is known. Otherwise, expects as long again as the sync has run.
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
    """An event in the life of a sync. The kind defines the meaning of `number` and `detail`."""

    at: datetime
    kind: str
    number: int | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class ActiveSyncs:
    """The number of syncs of all merchants with an entity type and a status, and the age of the oldest."""

    entity_type: EntityType
    status: SyncStatus
    count: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's right to run a sync. `token` is a fencing token: a later claim has a larger one.

    `taken_over` says that another worker's lease had expired. `traceparent` is the trace context of the request. With
    `is_staged`, the result is not published. A revert restores the generation `restores`.
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
    seconds_since_start: float = 0.0  # of the sync, with any time back in the queue
    traceparent: str | None = None
    is_staged: bool = False
    restores: int | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """Merchants that wait and have no sync in progress, and syncs in progress that are their merchant's second."""

    waiting: frozenset[str]
    second_syncs: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class CatalogSize:
    """The numbers of records and bytes in a merchant's catalog of one entity type, or their maximum."""

    records: int
    bytes: int
