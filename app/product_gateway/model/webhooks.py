"""Webhooks and their messages."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from product_gateway.model.syncs import EntityType


class DeliveryStatus(StrEnum):
    """The state of a message: PENDING (through any number of attempts) -> DELIVERED or GIVEN_UP."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    GIVEN_UP = "GIVEN_UP"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A merchant's receiver for messages about ended syncs and stale catalogs.

    The secrets are encrypted. The URL may contain a secret.

    Until `previous_secret_until`, messages are signed with both secrets. `gone_at` is when the receiver answered 410;
    the webhook is disabled from then on until it is registered again.
    """

    url: str = field(repr=False)
    secret: str = field(repr=False)
    gone_at: datetime | None = None
    previous_secret: str | None = field(default=None, repr=False)
    previous_secret_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message about an ended sync or a stale catalog. `id` is its `webhook-id`, the same for each attempt.

    A message about a sync has `sync_id`. One about a catalog has `entity_type`, `published_at` (None if it never was
    published) and `stale_after`. `last_status` is the HTTP status of the last attempt, None without a response. `as_of`
    is the database's time when the row was read.
    """

    merchant: str
    id: UUID
    sync_id: UUID | None
    event: str
    entity_type: EntityType | None
    published_at: datetime | None
    stale_after: datetime | None
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
        return max(0.0, (self.as_of - self.created_at).total_seconds())


@dataclass(frozen=True, slots=True)
class PendingDeliveries:
    """The number of undelivered messages of all merchants (counted up to 10,000), and the age of the oldest."""

    count: int
    oldest_seconds: float
