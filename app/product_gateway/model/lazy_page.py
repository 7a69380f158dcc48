"""Pages that are not read: what a product service sends in the very bytes as before is known to fit, and is kept."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

from product_gateway.model.catalog import Page

DIGEST_BYTES = 20  # of what was sent


@dataclass(frozen=True, slots=True)
class LazyPage:
    """A page of which the ids of its records are known, no two the same, and the digests of what was sent.

    `read` makes a page of it that leaves the records of some ids unread. It raises PullFailed.
    """

    sent: Mapping[str, bytes]
    read: Callable[[Container[str]], Page]
    next_cursor: str | None

    @property
    def size(self) -> int:
        """How many records the page has."""
        return len(self.sent)


AnyPage = Page | LazyPage
