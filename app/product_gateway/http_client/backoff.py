"""Exponential back-off: how often a request is made, and the waits in between."""

import random
from dataclasses import dataclass

JITTER = 0.25  # of a wait, on top of it: clients that failed at the same time do not come back at the same time


@dataclass(frozen=True, slots=True)
class Backoff:
    """The limits of new attempts. Times are in seconds; `longest_asked` is the longest wait that a server may ask for,
    `total` the longest that all waits of one request may take together.
    """

    attempts: int
    first: float
    longest: float = 30.0
    longest_asked: float = 300.0
    total: float = 600.0

    def wait(self, attempt: int, asked: float | None, waited: float) -> float | None:
        """Return the seconds between this attempt (from 1) and the next; None where there is no next one.

        It is never shorter than what the server asked for. `waited` are the seconds of all waits before.
        """
        if attempt >= self.attempts or self.asks_too_much(asked, waited):
            return None
        doubled = min(self.longest, self.first * 2.0 ** min(attempt - 1, 60))
        wait = max(asked or 0.0, doubled * random.uniform(1, 1 + JITTER))  # noqa: S311 - it need not be unguessable
        return wait if waited + wait <= self.total else None

    def asks_too_much(self, asked: float | None, waited: float) -> bool:
        """Whether the server asks for a longer wait than is left."""
        return asked is not None and (asked > self.longest_asked or waited + asked > self.total)
