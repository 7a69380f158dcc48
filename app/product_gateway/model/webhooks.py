"""Webhooks and the messages that are delivered to them."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class DeliveryStatus(StrEnum):
    """The life of a message to a webhook: PENDING, through any number of attempts -> DELIVERED or GIVEN_UP."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    GIVEN_UP = "GIVEN_UP"


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
