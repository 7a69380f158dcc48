"""Exponential back-off with jitter: the waits between the attempts of a request, a delivery or a background loop."""

import random
from dataclasses import dataclass


def exponential_delay(
    attempt: int, first: float, longest: float, *, jitter: tuple[float, float] = (1.0, 1.25)
) -> float:
    """Return the seconds to wait after this attempt (from 1): twice as long each time, up to `longest`.

    The delay is multiplied by a random factor between the two of `jitter`. So clients that failed at the same time do
    not come back at the same time.
    """
    delay = min(longest, first * 2.0 ** min(attempt - 1, 60))
    return delay * random.uniform(*jitter)  # noqa: S311 - the delay is no secret


@dataclass(frozen=True, slots=True)
class Backoff:
    """The limits on repeating one request. Times are in seconds.

    `longest_asked` limits a single wait that the server asks for. `total` limits the sum of all waits.
    """

    attempts: int
    first: float
    longest: float = 30.0
    longest_asked: float = 300.0
    total: float = 600.0

    def wait(self, attempt: int, asked: float | None, waited: float) -> float | None:
        """Return the seconds between this attempt (from 1) and the next, or None if there is no next attempt.

        The wait is never shorter than `asked`, which the server asked for. `waited` is the sum of all earlier waits.
        """
        if attempt >= self.attempts or self.asks_too_much(asked, waited):
            return None
        wait = max(asked or 0.0, exponential_delay(attempt, self.first, self.longest))
        return wait if waited + wait <= self.total else None

    def asks_too_much(self, asked: float | None, waited: float) -> bool:
        return asked is not None and (asked > self.longest_asked or waited + asked > self.total)
