"""Records of the catalog, and the pages in which they arrive."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from product_gateway.model.syncs import EntityType, Sync

DIGEST_BYTES = 20


@dataclass(frozen=True, slots=True)
class Record:
    """A record as the catalog stores it: JSON text of the known fields and, for a collection, its product ids.

    `payload_digest` covers the raw bytes that the product service sent; it is empty if these are unknown.
    """

    id: str
    document: str
    product_ids: tuple[str, ...] = ()
    payload_digest: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that does not fit product-service.yaml. `pointer` is a JSON Pointer (RFC 6901) into the record.

    `payload_digest` identifies a record without a usable id.
    """

    code: str
    record_id: str | None
    pointer: str
    message: str
    payload_digest: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a pull. `next_cursor` is None on the last page, `total` if it is unknown.

    `repeated` counts the records that the page repeats later with the same id. `skipped` has the ids of records that
    were not decoded because their bytes are unchanged.
    """

    records: tuple[Record, ...]
    rejections: tuple[Rejection, ...]
    next_cursor: str | None
    total: int | None
    repeated: int = 0
    skipped: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The number of records that the page was sent with."""
        return len(self.records) + len(self.rejections) + self.repeated + len(self.skipped)


@dataclass(frozen=True, slots=True)
class LazyPage:
    """A page with only its ids decoded. `digests` maps each id to the digest of the record's raw bytes.

    `decode` takes the ids of the records to skip and returns the page. It raises PullFailed.
    """

    digests: Mapping[str, bytes]
    decode: Callable[[Container[str]], Page]
    next_cursor: str | None

    @property
    def size(self) -> int:
        """The number of records that the page was sent with."""
        return len(self.digests)


AnyPage = Page | LazyPage


@dataclass(frozen=True, slots=True)
class RejectionGroup:
    """The rejected records of a sync that share a code, with a few samples."""

    code: str
    count: int
    samples: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class CatalogState:
    """The published generation, 0 before the first: its number of records, and when it was published.

    `max_age` is in seconds.
    """

    num_records: int
    updated_at: datetime | None
    generation: int = 0
    max_age: int | None = None

    @property
    def stale_after(self) -> datetime | None:
        """When the catalog becomes stale; None without a max age, or before the first successful sync."""
        if self.updated_at is None or self.max_age is None:
            return None
        return self.updated_at + timedelta(seconds=self.max_age)


@dataclass(frozen=True, slots=True)
class MaxAge:
    """How old a merchant's catalog of one entity type may become, and whether it is older."""

    seconds: int
    stale_after: datetime
    is_stale: bool


@dataclass(frozen=True, slots=True)
class StaleCatalog:
    """A catalog that was not published within its max age. `published_at` is None if it never was."""

    merchant: str
    entity_type: EntityType
    max_age: int
    published_at: datetime | None
    stale_after: datetime
    latest: Sync | None = None


@dataclass(frozen=True, slots=True)
class CatalogPage:
    """A page of a generation in order of id. `next_after` is its last id if more records follow."""

    records: tuple[Record, ...]
    next_after: str | None
    generation: int


class ChangeKind(StrEnum):
    """What happened to a record from one generation to a later one."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Change:
    """A changed record, and the generation that changed it last. Without a record, it was deleted."""

    kind: ChangeKind
    record_id: str
    generation: int
    record: Record | None


@dataclass(frozen=True, slots=True)
class ChangePosition:
    """A place in the feed of changes from the generation `since` to `until`: before this generation and record id.

    `until` is None where the window of changes is not yet chosen: before its first page.
    """

    since: int
    until: int | None = None
    generation: int = 0
    record_id: str = ""
