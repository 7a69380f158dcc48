"""Records of the catalog, and the pages that they arrive in."""

from dataclasses import dataclass, field
from datetime import datetime


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
class CatalogPage:
    """A page of the catalog in order of id. `next_after` is the last id where more follow."""

    records: tuple[Record, ...]
    next_after: str | None
