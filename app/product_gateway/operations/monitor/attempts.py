"""Rate limit for wrong operator tokens: one limit per minute and address, and one for all addresses together.

Each process counts in its own memory. An address that has shown the right token before is not held up by what
others do.
"""

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass

from product_gateway.errors import RateLimited
from product_gateway.http.middleware.rate_limit import network

logger = logging.getLogger(__name__)

SECONDS = 60
MOST_OF_AN_ADDRESS = 10
MOST_IN_ALL = 100
MOST_KNOWN_ADDRESSES = 1000
EVERYBODY = "*"


@dataclass(slots=True)
class _Streak:
    """Wrong tokens within one window."""

    ends: float
    failures: int = 0
    throttled: bool = False


class Attempts:
    """Counts wrong tokens, and logs each streak once when it begins and once when it is throttled."""

    def __init__(self, most_of_an_address: int = MOST_OF_AN_ADDRESS, most_in_all: int = MOST_IN_ALL) -> None:
        self._most = most_of_an_address
        self._most_in_all = most_in_all
        self._streaks: dict[str, _Streak] = {}
        self._known: OrderedDict[str, None] = OrderedDict()

    def require_few(self, address: str) -> None:
        """Raise RateLimited where there were too many wrong tokens; the token at hand is then not even looked at."""
        name = network(address)
        streak = self._current(name)
        if streak.failures >= self._most:
            self._refuse(streak, address, f"This address has shown {self._most} wrong operator tokens")
        in_all = self._current(EVERYBODY)
        if in_all.failures >= self._most_in_all and name not in self._known:
            self._refuse(in_all, address, f"{self._most_in_all} wrong operator tokens were shown")

    def failed(self, address: str) -> None:
        """Count a wrong token."""
        streak = self._current(network(address))
        streak.failures += 1
        self._current(EVERYBODY).failures += 1
        if streak.failures == 1:
            what = "A wrong operator token was shown. Further ones of this address within %d s are not logged."
            logger.warning(what, SECONDS, extra={"client": address})

    def succeeded(self, address: str) -> None:
        """The right token ends the address's streak."""
        name = network(address)
        self._streaks.pop(name, None)
        self._known[name] = None
        self._known.move_to_end(name)
        if len(self._known) > MOST_KNOWN_ADDRESSES:
            self._known.popitem(last=False)

    def _current(self, name: str) -> _Streak:
        now = time.monotonic()
        if self._streaks.get(name) is None or self._streaks[name].ends <= now:
            self._streaks = {each: streak for each, streak in self._streaks.items() if streak.ends > now}
            if len(self._streaks) > self._most_in_all + 1:  # of those who have failed there are no more
                self._streaks = {each: streak for each, streak in self._streaks.items() if streak.failures}
            self._streaks[name] = _Streak(now + SECONDS)
        return self._streaks[name]

    def _refuse(self, streak: _Streak, address: str, why: str) -> None:
        seconds = max(1, int(streak.ends - time.monotonic()) + 1)
        if not streak.throttled:
            streak.throttled = True
            logger.warning(
                "%s within %d s: more are refused for %d s.", why, SECONDS, seconds, extra={"client": address}
            )
        raise RateLimited(f"{why} within {SECONDS} seconds. Try again in {seconds} seconds.", seconds)
