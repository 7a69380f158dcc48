"""The words of the house: entity types, syncs, merchants, records.

Nothing here does I/O or knows HTTP. Values that leave the database are frozen.
"""

import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class EntityType(StrEnum):
    """What a sync copies."""

    PRODUCT = "PRODUCT"
    COLLECTION = "COLLECTION"


class Platform(StrEnum):
    """Where a merchant keeps products: a platform of their own (BYOP) or Bento itself."""

    BYOP = "BYOP"
    BENTO = "BENTO"


class SyncStatus(StrEnum):
    """The life of a sync: QUEUED -> IN_PROGRESS -> SUCCEEDED, FAILED or CANCELLED."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ACTIVE = (SyncStatus.QUEUED, SyncStatus.IN_PROGRESS)


class DeliveryStatus(StrEnum):
    """The life of a message to a webhook: PENDING, through any number of attempts -> DELIVERED or GIVEN_UP."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    GIVEN_UP = "GIVEN_UP"


# What a merchant may be called: it comes out of tokens, and goes into logs and commands.
MERCHANT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@|~+-]{0,127}")

SECONDS_UNTIL_A_QUEUED_SYNC_IS_WORTH_ASKING_FOR = 2
LONGEST_ESTIMATE_SECONDS = 3600

FEWEST_TO_JUDGE = 20  # records: with fewer, a share says nothing


@dataclass(frozen=True, slots=True)
class Merchant:
    """A tenant. `product_service_token` is as it is stored: encrypted."""

    name: str
    platform: Platform
    product_service_url: str | None
    product_service_token: str | None = field(repr=False)
    currency: str | None
    max_rejected_percent: int
    disabled: bool
    created_at: datetime
    updated_at: datetime


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
            return SECONDS_UNTIL_A_QUEUED_SYNC_IS_WORTH_ASKING_FOR
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
class Webhook:
    """Where a merchant is told how syncs end. Secrets are as they are stored: encrypted. The address may hold one, too.

    `previous_secret` is the one before, while messages are signed with both: until `previous_secret_until`.
    `gone_at` is when its receiver said that it is no more: it is not called until it is registered again.
    """

    url: str = field(repr=False)
    secret: str = field(repr=False)
    gone_at: datetime | None = None
    previous_secret: str | None = field(default=None, repr=False)
    previous_secret_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to a merchant's webhook: how a sync ended. `id` is its `webhook-id`, the same at each attempt.

    `last_status` is HTTP's, None where there was no answer; `last_error` says in words what went wrong.
    `as_of` is the database's clock when the row was read.
    """

    merchant: str
    id: UUID
    sync_id: UUID
    event: str
    status: DeliveryStatus
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    finished_at: datetime | None
    as_of: datetime

    @property
    def age_seconds(self) -> float:
        """Since the sync ended."""
        return max(0.0, (self.as_of - self.created_at).total_seconds())


@dataclass(frozen=True, slots=True)
class PendingDeliveries:
    """How many messages to webhooks are not delivered yet, over all merchants (counted up to 10,000), and how old the
    oldest is."""

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
class Record:
    """A record as the catalog keeps it: JSON text of the known fields and, of a collection, its product ids.

    `sent`: the digest of what was sent, where that is known.
    """

    id: str
    document: str
    product_ids: tuple[str, ...] = ()
    sent: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that does not fit product-service.yaml. `pointer` is a JSON Pointer (RFC 6901) into the record.

    `sent`: a digest of what was sent, where it has no usable id.
    """

    code: str
    record_id: str | None
    pointer: str
    message: str
    sent: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a pull. `next_cursor` None means that it was the last; `total` None that it is not known.

    `repeated` counts the records left out because the same id came again later in the page, `unread` those that did
    not have to be read.
    """

    records: tuple[Record, ...]
    rejections: tuple[Rejection, ...]
    next_cursor: str | None
    total: int | None
    repeated: int = 0
    unread: int = 0

    @property
    def size(self) -> int:
        """How many records the page had."""
        return len(self.records) + len(self.rejections) + self.repeated + self.unread


@dataclass(frozen=True, slots=True)
class RejectionGroup:
    """The rejected records of a sync that share a code, with a few samples."""

    code: str
    count: int
    samples: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class CatalogState:
    """How many records there are now, and when the last successful sync finished."""

    num_records: int
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Quota:
    """The most records, and bytes of records, that a merchant's catalog of one entity type may have."""

    records: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of the catalog in order of id. `next_after` is the last id where more follow."""

    records: tuple[Record, ...]
    next_after: str | None
