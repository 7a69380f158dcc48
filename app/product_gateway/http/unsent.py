"""The memory bound of responses: bytes that the server has written and its clients have not read yet."""

from collections.abc import Iterator
from contextlib import contextmanager

from product_gateway.errors import Overloaded

LARGE_BYTES = 64 * 1024  # a smaller response fits into the buffer that each connection may fill


class UnsentBytes:
    """A counter of unsent bytes over all connections, and an admission control for large responses.

    A response is reserved while the application sends it. From then on its connection counts what it has buffered.
    """

    def __init__(self, most: int) -> None:
        self.total = 0
        self._most = most

    def add(self, change: int) -> None:
        """Count bytes that a connection has buffered, or with a negative number that its client has read."""
        self.total += change

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Hold room for a response of `size` bytes. Raise Overloaded where others have left none."""
        if self.total and self.total + size > self._most:
            raise Overloaded("Clients have not taken enough of the gateway's earlier large answers yet.")
        self.add(size)
        try:
            yield
        finally:
            self.add(-size)
