"""Rate limits: a sliding window counter for each merchant or address, in memory.

Processes of one `serve --processes N` share their counts. Others do not: with four gateways, four times as many
requests can pass.
"""

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import floor

import limits
from limits.storage import SlidingWindowCounterSupport, Storage
from limits.strategies import SlidingWindowCounterRateLimiter

from product_gateway.errors import RateLimited
from product_gateway.http.addresses import parse_address
from product_gateway.http.shared_counters import MOST_COUNTED

LONGEST_WAIT_SECONDS = 3600  # the spec's maximum of Retry-After


@dataclass(eq=False)
class RateLimiter:
    """A limit for each `key` of a name, in the notation of the `limits` package (100/minute).

    `who` is what names stand for, such as "merchant". `refused` is called with it for each refusal. `storage` keeps the
    counts; None: in this process.
    """

    notation: str
    who: str
    key: Callable[[str], str] = str
    refused: Callable[[str], None] = lambda _: None
    storage: "SlidingWindows | None" = None

    def __post_init__(self) -> None:
        self._limit = limits.parse(self.notation)
        storage = BoundedStorage() if self.storage is None else self.storage
        self._strategy = SlidingWindowCounterRateLimiter(storage)

    def hit(self, name: str) -> None:
        """Count a request. Raise RateLimited beyond the limit; a refused request is not counted."""
        key = self.key(name)
        limit = self._limit
        if self._strategy.hit(limit, key):
            return
        self.refused(self.who)
        wait = self._strategy.get_window_stats(limit, key).reset_time - time.time()
        seconds = min(max(floor(wait) + 1, 1), LONGEST_WAIT_SECONDS)
        most, span = _plural(limit.amount, "request"), _plural(limit.multiples, limit.GRANULARITY.name)
        detail = f"This {self.who} has made more than {most} in {span}. Ask again in {_plural(seconds, 'second')}."
        raise RateLimited(detail, seconds)


class SlidingWindows(Storage, SlidingWindowCounterSupport):
    """A storage of `limits` with a count for each name and window. Subclasses keep the counts."""

    STORAGE_SCHEME = None
    base_exceptions = ()

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count a request where the limit allows it: the earlier window counts by its share of the sliding window."""
        previous, left, current, _ = self.get_sliding_window(key, expiry)
        if floor(previous * left / expiry + current) + amount > limit:
            return False
        self.incr(_window(key, time.time() // expiry), 2 * expiry, amount)
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return count and seconds to live of the previous window, then of the current one."""
        number, elapsed = divmod(time.time(), expiry)
        left = expiry - elapsed
        return self.get(_window(key, number - 1)), left, self.get(_window(key, number)), left + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        number = time.time() // expiry
        self.clear(_window(key, number - 1))
        self.clear(_window(key, number))

    def check(self) -> bool:
        return True


class BoundedStorage(SlidingWindows):
    """Counts of one process, of at most `most` names: the oldest are dropped.

    The package's own MemoryStorage has no bound, and a thread that walks through all counts 100 times a second.
    """

    def __init__(self, most: int = MOST_COUNTED) -> None:
        super().__init__()
        self._most = 2 * most  # each name has a count for this window and for the one before
        self._counts: dict[str, tuple[int, float]] = {}  # by key: count, end; all live equally long, so ordered by end

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a count. Before a new one, drop those that have expired or are too many."""
        now = time.time()
        if key not in self._counts:
            while self._counts:
                oldest, (_, end) = next(iter(self._counts.items()))
                if end > now and len(self._counts) < self._most:
                    break
                self.clear(oldest)
        count, end = self._counts.get(key, (0, now + expiry))
        self._counts[key] = count + amount, end
        return count + amount

    def get(self, key: str) -> int:
        return self._counts.get(key, (0, 0.0))[0]

    def get_expiry(self, key: str) -> float:
        return self._counts.get(key, (0, time.time()))[1]

    def clear(self, key: str) -> None:
        self._counts.pop(key, None)

    def reset(self) -> int:
        count = len(self._counts)
        self._counts.clear()
        return count

    def __len__(self) -> int:
        return len(self._counts)


def _window(key: str, number: float) -> str:
    return f"{key}/{number:.0f}"


def network(address: str) -> str:
    """Return the key of an address: itself, or of IPv6 the /64 that one subscriber has (RFC 6177 §2)."""
    found = parse_address(address)
    if found is None or found.version == 4:
        return str(found or "")  # unknown, for example to a trusted proxy
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))


def _plural(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
