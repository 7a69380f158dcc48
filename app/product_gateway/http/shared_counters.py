"""Counters in memory that several processes share, for rate limits.

The memory is an anonymous mapping that forked processes inherit: it has no file, and it outlives any one of them. Each
process adds to a column of its own, so additions need no lock and none is lost. Reads add up all columns.
"""

import mmap
import struct
import time

MOST_COUNTED = 50_000  # merchants or addresses of one limit
WAYS = 8  # entries that a key may have; the one that expires first makes room


class SharedCounters:
    """A set-associative hash table of counts that expire, with a column for each of `processes`.

    Create it before the fork. Keys are told apart by a hash of 64 bits, whose seed forked processes share.
    """

    def __init__(self, processes: int, most: int = 2 * MOST_COUNTED) -> None:
        """`most` keys: by default those of two windows, of MOST_COUNTED names."""
        self._sets = -(-most // WAYS)
        self._header = struct.Struct("<qd")  # hash, expiry
        self._column = struct.Struct("<Q")
        self._columns = struct.Struct(f"<{processes}Q")
        self._size = self._header.size + self._columns.size
        self._memory = mmap.mmap(-1, self._sets * WAYS * self._size)
        self._processes = processes

    def add(self, key: str, expiry: float, amount: int, process: int) -> int:
        """Add to a count that lives until `expiry` (Unix time). Return the sum. `process` counts from 0."""
        found = self._find(key)
        if found is None:
            found = self._take(key, expiry)
        place = found + self._header.size + process * self._column.size
        (own,) = self._column.unpack_from(self._memory, place)
        self._column.pack_into(self._memory, place, own + amount)
        return self._sum(found)

    def get(self, key: str) -> int:
        """Return the sum over all processes; 0 for an unknown or expired key."""
        found = self._find(key)
        return 0 if found is None else self._sum(found)

    def expiry(self, key: str) -> float | None:
        """Return the Unix time at which the count expires."""
        found = self._find(key)
        return None if found is None else float(self._header.unpack_from(self._memory, found)[1])

    def remove(self, key: str) -> None:
        """Forget a count."""
        found = self._find(key)
        if found is not None:
            self._header.pack_into(self._memory, found, 0, 0.0)

    def _find(self, key: str) -> int | None:
        wanted, now = hash(key), time.time()
        for each in self._set(wanted):
            number, expiry = self._header.unpack_from(self._memory, each)
            if number == wanted and expiry > now:
                return each
        return None

    def _take(self, key: str, expiry: float) -> int:
        """Make an entry: in place of the one of its set that expires first."""
        wanted = hash(key)
        taken = min(self._set(wanted), key=lambda each: self._header.unpack_from(self._memory, each)[1])
        self._columns.pack_into(self._memory, taken + self._header.size, *[0] * self._processes)
        self._header.pack_into(self._memory, taken, wanted, expiry)
        return taken

    def _set(self, number: int) -> range:
        first = number % self._sets * WAYS * self._size
        return range(first, first + WAYS * self._size, self._size)

    def _sum(self, entry: int) -> int:
        return sum(self._columns.unpack_from(self._memory, entry + self._header.size))
