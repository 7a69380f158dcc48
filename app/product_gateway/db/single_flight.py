"""A single-flight cache for reads that many callers want at the same time."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Flight:
    task: asyncio.Future[Any]
    expires: float = float("inf")


class SingleFlight:
    """A single-flight cache: concurrent callers share one call per key, whose outcome is reused for `ttl` seconds."""

    def __init__(self, ttl: float = 1.0, *, max_keys: int = 200) -> None:
        self._ttl = ttl
        self._max_keys = max_keys
        self._flights: dict[Hashable, _Flight] = {}

    async def get(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        """Return the outcome of `call`, possibly another caller's. Raises what it raises.

        A cancelled caller does not cancel the shared call.
        """
        loop = asyncio.get_running_loop()
        flight = self._flights.get(key)
        if flight is None or flight.expires <= loop.time():
            self._flights = {each: kept for each, kept in self._flights.items() if kept.expires > loop.time()}
            flight = _Flight(asyncio.ensure_future(call()))
            flight.task.add_done_callback(functools.partial(self._land, flight))
            if len(self._flights) < self._max_keys:
                self._flights[key] = flight
        outcome: T = await asyncio.shield(flight.task)
        return outcome

    def clear(self) -> None:
        """Forget every outcome: the next caller gets a new one."""
        self._flights = {}

    def _land(self, flight: _Flight, task: asyncio.Future[Any]) -> None:
        flight.expires = task.get_loop().time()
        if not task.cancelled():
            flight.expires += self._ttl
            task.exception()  # retrieved here, as all callers may be gone
