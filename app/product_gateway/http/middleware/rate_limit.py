"""How often somebody may ask. Counted in memory, by each process for itself: with four, four times as much may pass.

A window slides over the requests (`limits`' sliding window counter): it needs two numbers for each who asks, however
much may be asked.
"""

import ipaddress
import time
from collections.abc import Callable
from math import floor

import limits
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from product_gateway.errors import RateLimited

MOST_COUNTED = 50_000
LONGEST_WAIT_SECONDS = 3600  # what the spec lets Retry-After be


Count = Callable[[str], None]
"""Called with the name of whoever makes a request; raises RateLimited."""


def rate_limiter(notation: str, who: str, key: Callable[[str], str], refused: Callable[[str], None]) -> Count:
    """Counts by the `key` of each name, and calls `refused` with `who` for what is too much."""
    limit = RateLimiter(notation, who)

    def count(name: str) -> None:
        try:
            limit.count(key(name))
        except RateLimited:
            refused(who)
            raise

    return count


class RateLimiter:
    """At most so many requests in so much time, for each who asks; `notation` is that of `limits`: 100/minute."""

    def __init__(self, notation: str, who: str, most_counted: int = MOST_COUNTED) -> None:
        self._limit = limits.parse(notation)
        self._counts = _Counts(most_counted)
        self._counter = SlidingWindowCounterRateLimiter(self._counts)
        self._refusal = (
            f"This {who} has made more than {_times(self._limit.amount, 'request')} in {_span(self._limit)}."
        )

    def count(self, name: str) -> None:
        """One more request of this name. Raises RateLimited; what is refused is not counted."""
        if self._counter.hit(self._limit, name):
            return
        wait = self._counter.get_window_stats(self._limit, name).reset_time - time.time()
        seconds = min(max(floor(wait) + 1, 1), LONGEST_WAIT_SECONDS)
        raise RateLimited(f"{self._refusal} Ask again in {_times(seconds, 'second')}.", seconds)

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._counts.expirations)


class _Counts(MemoryStorage):
    """Forgets by itself what is over, and the oldest where there are too many; the one it extends walks through all
    of them, on a thread of its own, a hundred times a second."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = 2 * most  # the window before this one has a count of its own

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """The count after it. Keys are in the order of their end: all live equally long."""
        if key not in self.expirations:
            now = time.time()
            while self.expirations:
                oldest, end = next(iter(self.expirations.items()))
                if end > now and len(self.expirations) < self._most:
                    break
                self.clear(oldest)
            self.expirations[key] = now + expiry
        self.storage[key] += amount
        return self.storage[key]


def network(address: str) -> str:
    """Whom an address stands for: itself, and with IPv6 the /64, of which everybody has one (RFC 6177 §2)."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # a trusted proxy did not know it, or there is none
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))


def _times(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _span(limit: limits.RateLimitItem) -> str:
    return _times(limit.multiples, limit.GRANULARITY.name)
