"""What a gateway answers, as far as the client looks at it. Members that it does not know are no reason to stop."""

from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from product_gateway.model.syncs import ACTIVE, EntityType, SyncStatus

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Items = Annotated[int, Field(ge=0, le=2**31 - 1)]
Data = TypeVar("Data")


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class Progress(_Body):
    records_read: Count
    records_total: Count | None
    percent: Annotated[int, Field(ge=0, le=100)] | None


class Result(_Body):
    created: Count
    updated: Count
    unchanged: Count
    deleted: Count
    rejected: Count


class Reason(_Body):
    """Why a sync failed, or a warning about its result."""

    code: str
    detail: str


class Sync(_Body):
    id: UUID
    entity_type: EntityType
    status: SyncStatus
    queued_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    attempt: Items
    progress: Progress
    result: Result
    failure: Reason | None
    warnings: list[Reason] = []
    publication: str | None = None
    generation: Count | None = None
    reverts: UUID | None = None

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE

    @property
    def seconds(self) -> float:
        """The duration by the gateway's clock, from the start if it had one; 0 while the sync has not ended."""
        if self.finished_at is None:
            return 0.0
        return max(0.0, (self.finished_at - (self.started_at or self.queued_at)).total_seconds())


class Status(_Body):
    entity_type: EntityType
    updated_at: AwareDatetime
    num_records: Annotated[float, Field(ge=0, le=2**53 - 1)]


class StatusMeta(_Body):
    sync: Sync | None = None  # the latest, in any status; older versions of the API do not send it
    fresh: bool | None = None  # absent without a max age
    stale_after: AwareDatetime | None = None


class Sample(_Body):
    record_id: str | None
    pointer: str
    message: str


class Group(_Body):
    """Rejected records that have the same thing wrong with them."""

    code: str
    count: Count
    samples: list[Sample]


class FeedMeta(_Body):
    next_cursor: str
    has_more: bool


class Error(_Body):
    status: str
    title: str
    detail: str


class Errors(_Body):
    """The body of every error."""

    error: Annotated[list[Error], Field(min_length=1)]


class Document(_Body, Generic[Data]):
    """The body of a successful response."""

    data: Data


class ListMeta(_Body):
    next_cursor: str | None = None


class Page(Document[Data], Generic[Data]):
    meta: ListMeta


class FeedPage(Document[list[dict[str, Any]]]):
    """A page of the feed of changes."""

    meta: FeedMeta


class OneStatus(Document[Status]):
    meta: StatusMeta


OneSync = Document[Sync]
SyncPage = Page[list[Sync]]
Problems = Document[list[Group]]
RecordPage = Page[list[dict[str, Any]]]
OneRecord = Page[dict[str, Any]]  # a collection has a page of its products
