"""The counts of rate limits that several processes share."""

import time

from product_gateway.http.middleware.rate_limit import SlidingWindows
from product_gateway.http.shared_counters import SharedCounters


class SharedStorage(SlidingWindows):
    """Counts of several processes; `process` is the number of this one, from 0.

    Requests that arrive in the same moment at several processes may all take the last place, or begin the same count
    anew: a limit can be exceeded by a few.
    """

    def __init__(self, counters: SharedCounters, process: int) -> None:
        super().__init__()
        self._counters, self._process = counters, process

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self._counters.add(key, time.time() + expiry, amount, self._process)

    def get(self, key: str) -> int:
        return self._counters.get(key)

    def get_expiry(self, key: str) -> float:
        return self._counters.expiry(key) or time.time()

    def clear(self, key: str) -> None:
        self._counters.remove(key)

    def reset(self) -> int | None:
        return None
