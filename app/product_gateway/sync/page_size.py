"""The page size of a pull: how many records to request from a product service at a time.

Most of the time of a pull is the latency of the product service. So pages grow while they come quickly and completely.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from product_gateway.http_client.client import MEBIBYTE
from product_gateway.model.syncs import EntityType

QUICK_SECONDS = 1.0
SLOW_SECONDS = 3.0
QUICK_BYTES = 4 * MEBIBYTE
SLOW_BYTES = 16 * MEBIBYTE
MAX_REMEMBERED = 10_000  # merchants and entity types


@dataclass(eq=False, slots=True)
class PageSize:
    """The page size of a merchant and entity type. It starts at `size` and is at most `most`.

    A service that sends fewer records than requested, or is slow, ends the growth of this pull. One that refuses a size
    is not asked for it again.
    """

    size: int
    most: int
    _start: int = field(init=False)
    _may_grow: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self._start = self.size

    @property
    def before_growth(self) -> int | None:
        """The size that the pages have grown from, or None if they have not grown."""
        return self._start if self.size > self._start else None

    def begin(self) -> None:
        """Let the size grow again, in another pull."""
        self._may_grow = True

    def received(self, records: int, number_of_bytes: int, seconds: float) -> None:
        """Choose the next size after a page that is not the last one."""
        if seconds > SLOW_SECONDS or number_of_bytes > SLOW_BYTES:
            self._may_grow = False
            self.size = max(self.size // 2, min(self.size, self._start))  # only growth is undone
        elif records < self.size:
            self._may_grow = False
        elif self._may_grow and seconds <= QUICK_SECONDS and number_of_bytes <= QUICK_BYTES:
            self.size = max(self.size, min(2 * self.size, self.most))

    def refused(self, smaller: int) -> None:
        """Use a smaller size from now on, after a page of the present size failed."""
        self.size = self.most = smaller


class PageSizes:
    """The page sizes of the merchants that a worker has read from lately."""

    def __init__(self, start: int, most: int) -> None:
        self._start = start
        self._most = max(start, most)
        self._sizes: dict[Sequence[str], PageSize] = {}

    def begin(self, merchant: str, entity_type: EntityType) -> PageSize:
        """Return the page size for a pull that begins."""
        key = (merchant, entity_type)
        found = self._sizes.pop(key, None) or PageSize(self._start, self._most)
        self._sizes[key] = found  # as the latest
        if len(self._sizes) > MAX_REMEMBERED:
            del self._sizes[next(iter(self._sizes))]
        found.begin()
        return found
