"""The words of the house: entity types, syncs, merchants, records, and the one tree of errors.

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

# What a merchant may be called: it comes out of tokens, and goes into logs and commands.
MERCHANT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@|~+-]{0,127}")

SECONDS_UNTIL_A_QUEUED_SYNC_IS_WORTH_ASKING_FOR = 2
LONGEST_ESTIMATE_SECONDS = 3600


def merchant_name(text: str) -> str:
    """The text, where a merchant may be called so. Raises SettingsError."""
    if not MERCHANT_NAME.fullmatch(text):
        raise SettingsError(
            f"{text[:200]!r} cannot be a merchant's name: up to 128 letters, digits and _.:@|~+- are possible, "
            "a letter, digit or _ first."
        )
    return text


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
    """One run, past or present. `as_of` is the database's clock when the row was read."""

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
class Claim:
    """A worker's right to run a sync. `token` fences: a later claim has a larger one."""

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


@dataclass(frozen=True, slots=True)
class Record:
    """A record as the catalog keeps it: JSON text of the known fields and, of a collection, its product ids."""

    id: str
    document: str
    product_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that does not fit product-service.yaml. `pointer` is a JSON Pointer (RFC 6901) into the record."""

    code: str
    record_id: str | None
    pointer: str
    message: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a pull. `next_cursor` None means that it was the last; `total` None that it is not known.

    `repeated` counts the records left out because the same id came again later in the page.
    """

    records: tuple[Record, ...]
    rejections: tuple[Rejection, ...]
    next_cursor: str | None
    total: int | None
    repeated: int = 0

    @property
    def size(self) -> int:
        """How many records the page had."""
        return len(self.records) + len(self.rejections) + self.repeated


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
class Listing:
    """A page of the catalog in order of id. `next_after` is the last id where more follow."""

    records: tuple[Record, ...]
    next_after: str | None


class GatewayError(Exception):
    """Everything that this project raises on purpose. `detail` is written for the person who gets it.

    GatewayError
    ├── SettingsError             the operator must change something
    ├── InvalidRequest            the request does not fit the spec
    ├── NotAuthenticated          no bearer token, or not a valid one
    ├── NotAllowed
    │   ├── MissingScope          the token does not carry the right
    │   ├── UnknownMerchant       the token names a merchant that we don't have
    │   ├── MerchantDisabled
    │   └── NotBringYourOwnPlatform
    ├── NotFound
    │   ├── NeverSynced           no sync of this entity type has succeeded
    │   ├── NoActiveSync          there is nothing to cancel
    │   ├── SyncNotFound
    │   └── RecordNotFound
    ├── SyncAlreadyActive         one of this merchant and entity type is queued or in progress
    ├── LeaseLost                 the claim is no longer ours: stop, write nothing
    ├── Unavailable               something that we need is away; trying again later helps
    ├── OutboundError             a request of ours could not be sent as it is
    │   ├── AddressNotAllowed     the address is not one that we may call
    │   ├── Unreachable           no answer, or not a whole one; trying again may help
    │   ├── AnswerTooLarge
    │   └── AnswerUnreadable      it is compressed in a way that cannot be undone
    └── PullFailed                the sync ends FAILED with this code
        └── PullInterrupted       the same, where trying the request again may help
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class SettingsError(GatewayError):
    """A setting, file or argument that the operator must change."""


class InvalidRequest(GatewayError):
    """The request does not fit the spec."""


class NotAuthenticated(GatewayError):
    """No bearer token (`presented` is False), or one that is not valid."""

    def __init__(self, detail: str, *, presented: bool = True) -> None:
        super().__init__(detail)
        self.presented = presented


class NotAllowed(GatewayError):
    """The caller is known and may not do this."""


class MissingScope(NotAllowed):
    """The token does not carry the scope that the operation needs."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"The token does not carry the scope {scope}, which this operation needs.")
        self.scope = scope


class UnknownMerchant(NotAllowed):
    """The token names a merchant that the gateway does not have."""

    def __init__(self) -> None:
        super().__init__("The token is valid, but the gateway does not know its merchant.")


class MerchantDisabled(NotAllowed):
    """The merchant has been switched off."""

    def __init__(self) -> None:
        super().__init__("This merchant is disabled.")


class NotBringYourOwnPlatform(NotAllowed):
    """Only merchants with a product service of their own have anything to sync."""

    def __init__(self) -> None:
        super().__init__(
            "This merchant does not use bring your own platform for its products, so there is nothing to sync."
        )


class NotFound(GatewayError):
    """What was asked for does not exist, for this caller."""


class NeverSynced(NotFound):
    """No sync of this entity type has succeeded yet; `latest` is the last one that was asked for."""

    def __init__(self, entity_type: EntityType, latest: Sync | None) -> None:
        if latest is None:
            now = f"None has been asked for: PUT /product-gateway/v1/sync/{entity_type} starts one."
        elif latest.status is SyncStatus.QUEUED:
            now = f"Sync {latest.id} is queued."
        elif latest.status is SyncStatus.IN_PROGRESS:
            now = f"Sync {latest.id} is running."
        else:
            now = f"The last one, sync {latest.id}, ended {latest.status}; none is queued or running."
        super().__init__(f"No sync of {entity_type} has succeeded yet. {now}")


class NoActiveSync(NotFound):
    """No sync of this entity type is queued or in progress."""

    def __init__(self, entity_type: EntityType) -> None:
        super().__init__(f"No sync of {entity_type} is queued or in progress, so there is nothing to cancel.")


class SyncNotFound(NotFound):
    """There is no such sync of this merchant."""

    def __init__(self, sync_id: UUID) -> None:
        super().__init__(f"There is no sync {sync_id}.")


class RecordNotFound(NotFound):
    """There is no such record in this merchant's catalog."""

    def __init__(self, entity_type: EntityType, record_id: str) -> None:
        super().__init__(f"The catalog has no {entity_type.lower()} with the id {record_id!r}.")


class SyncAlreadyActive(GatewayError):
    """Only one sync per merchant and entity type may be queued or in progress."""

    def __init__(self, active: Sync) -> None:
        super().__init__(
            f"Sync {active.id} of {active.entity_type} is {active.status}. Only one sync per entity type may be "
            "queued or in progress; wait for it to end."
        )
        self.active = active


class LeaseLost(GatewayError):
    """Another worker has the sync, or it has ended."""


class Unavailable(GatewayError):
    """Something that we need is away. `detail` names no host, address or credential."""

    @property
    def with_cause(self) -> str:
        """In one line, for the operator: what is behind it may name hosts and addresses."""
        return " ".join(f"{self.detail} {self.__cause__ or ''}".split())


class OutboundError(GatewayError):
    """A request to somebody else's system failed. `detail` holds no token and no query string."""


class AddressNotAllowed(OutboundError):
    """The address is private, not https, or carries a password."""


class Unreachable(OutboundError):
    """No answer, or not a whole one: DNS, connection, TLS, time-out or broken transfer."""


class AnswerTooLarge(OutboundError):
    """The answer has more bytes than we read."""


class AnswerUnreadable(OutboundError):
    """The answer came, but cannot be decompressed."""


class PullFailed(GatewayError):
    """The sync cannot go on: it ends FAILED with `code` (UPPER_SNAKE) and the detail."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class PullInterrupted(PullFailed):
    """A failure that may pass: the same request may be tried again, at best after `retry_after` seconds."""

    def __init__(self, code: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(code, detail)
        self.retry_after = retry_after
