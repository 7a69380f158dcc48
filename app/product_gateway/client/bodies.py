"""What a gateway answers, as far as the client looks at it. Members that it does not know are no reason to stop."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from product_gateway.model.syncs import ACTIVE, EntityType, SyncStatus

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Items = Annotated[int, Field(ge=0, le=2**31 - 1)]


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class Progress(_Body):
    """In records; None while unknown."""

    records_read: Count
    records_total: Count | None
    percent: Annotated[int, Field(ge=0, le=100)] | None


class Result(_Body):
    """In records."""

    created: Count
    updated: Count
    unchanged: Count
    deleted: Count
    rejected: Count


class Failure(_Body):
    """Why a sync failed."""

    code: str
    detail: str


class Warned(_Body):
    """Something else to know about a sync's result."""

    code: str
    detail: str


class Sync(_Body):
    """One run of a sync, as the gateway shows it."""

    id: UUID
    entity_type: EntityType
    status: SyncStatus
    queued_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    attempt: Items
    progress: Progress
    result: Result
    failure: Failure | None
    warnings: list[Warned] = []

    @property
    def is_active(self) -> bool:
        """Whether it is queued or in progress."""
        return self.status in ACTIVE

    @property
    def seconds(self) -> float:
        """How long it took, by the gateway's clock, from its start if it had one; 0 while it has not ended."""
        if self.finished_at is None:
            return 0.0
        return max(0.0, (self.finished_at - (self.started_at or self.queued_at)).total_seconds())


class OneSync(_Body):
    """The answer to a PUT, a DELETE, and to the question how one sync goes."""

    data: Sync


class ListMeta(_Body):
    """Where the next page is, if there is one."""

    next_cursor: str | None = None


class SyncPage(_Body):
    """A page of the history, newest first."""

    data: list[Sync]
    meta: ListMeta


class Status(_Body):
    """The records of an entity type."""

    entity_type: EntityType
    updated_at: AwareDatetime
    num_records: Annotated[float, Field(ge=0, le=2**53 - 1)]


class StatusMeta(_Body):
    """The latest sync, in any status. Older versions of the API do not send it."""

    sync: Sync | None = None


class OneStatus(_Body):
    """The answer to the question when the records were last updated, and how many there are."""

    data: Status
    meta: StatusMeta


class Sample(_Body):
    """A rejected record, and what is wrong with it."""

    record_id: str | None
    pointer: str
    message: str


class Group(_Body):
    """Rejected records that have the same thing wrong with them."""

    code: str
    count: Count
    samples: list[Sample]


class Problems(_Body):
    """The most frequent first."""

    data: list[Group]


class Error(_Body):
    """One thing that went wrong."""

    status: str
    title: str
    detail: str


class Errors(_Body):
    """The body of every error."""

    error: Annotated[list[Error], Field(min_length=1)]


def in_utc(moment: datetime) -> str:
    """To the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
