"""Supervision of background loops: a loop that meets an unexpected exception goes on after a pause.

The exception is logged with its traceback and counted. It never reaches another loop. Readiness reports a loop that has
made no progress for a minute.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from product_gateway.errors import Unavailable
from product_gateway.http_client.backoff import exponential_delay
from product_gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.5  # seconds after a failure; each further one is twice as long
LONGEST_PAUSE = 15.0
LONGEST_PAUSE_FOR_THE_DATABASE = 2.0  # while it is away: syncs go on soon after it is back
JITTER = (0.75, 1.0)
STALLED_AFTER = 60.0  # seconds without progress
WAITS_FOR_THE_DATABASE = "A background loop waits until the database is back"


class Loop:
    """One background loop: when it last made progress, and its streak of failures. For one thread at a time."""

    def __init__(self, name: str, metrics: Metrics, away: str = WAITS_FOR_THE_DATABASE) -> None:
        self.name = name
        self._metrics = metrics
        self._away = away
        self._progressed_at = time.monotonic()
        self._is_idle = False
        self._failures = 0
        self._logged: set[tuple[object, ...]] = set()

    @property
    def is_failing(self) -> bool:
        """Whether the last thing that the loop did was to fail."""
        return self._failures > 0

    @property
    def seconds_without_progress(self) -> float:
        """0 while the loop waits for something that may take any time. To be read from any thread."""
        return 0.0 if self._is_idle and not self._failures else time.monotonic() - self._progressed_at

    def progressed(self) -> None:
        """Note that the loop has done its work once: a streak of failures is over."""
        self._progressed_at = time.monotonic()
        if self._failures:
            logger.info("The loop %s works again after %d failures.", self.name, self._failures)
        self._failures = 0
        self._logged.clear()

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Mark a wait that may take any time, such as for the next poll. Other code must make progress."""
        self._is_idle = True
        try:
            yield
        finally:
            self._is_idle = False
            if not self._failures:
                self._progressed_at = time.monotonic()

    def failed(self, error: Exception) -> float:
        """Log and count a failure; return the seconds to pause.

        Of a streak, each different failure is logged once. Unavailable is expected: it is not counted.
        """
        is_away = isinstance(error, Unavailable)
        failure = (type(error),) if is_away else (type(error), *_place(error))
        if failure not in self._logged:
            self._logged.add(failure)
            if isinstance(error, Unavailable):
                logger.warning("%s: %s", self._away, error.with_cause)
            else:
                logger.error("The loop %s met an unexpected error, and goes on.", self.name, exc_info=error)
        if not is_away:
            self._metrics.loop_failed(self.name)
        self._failures += 1
        longest = LONGEST_PAUSE_FOR_THE_DATABASE if is_away else LONGEST_PAUSE
        return exponential_delay(self._failures, FIRST_PAUSE, longest, jitter=JITTER)


class Supervisor:
    """The background loops of one process. `check` and `loop` may be called from any thread."""

    def __init__(self, metrics: Metrics, *, stalled_after: float = STALLED_AFTER) -> None:
        self._metrics = metrics
        self._stalled_after = stalled_after
        self._loops: set[Loop] = set()

    async def keep(
        self,
        name: str,
        work: Callable[[Loop], Awaitable[None]],
        *,
        stop: asyncio.Event | None = None,
        ends_with: tuple[type[Exception], ...] = (),
        away: str = WAITS_FOR_THE_DATABASE,
        longest_pause: float = LONGEST_PAUSE,
        is_needed: bool = True,
    ) -> None:
        """Run `work` until it returns. After an exception, pause and run it again, unless `stop` is set.

        `work` calls `progressed` each time it has done something. Raises what is in `ends_with`. A loop that is not
        needed does not count for readiness.
        """
        loop = Loop(name, self._metrics, away)
        if is_needed:
            self._loops.add(loop)
        try:
            while True:
                try:
                    await work(loop)
                except ends_with:
                    raise
                except Exception as error:  # noqa: BLE001 - it is logged and counted
                    pause = min(longest_pause, loop.failed(error))
                else:
                    return
                if await _is_set_within(pause, stop):
                    return
        finally:
            self._loops.discard(loop)

    def check(self) -> None:
        """Raise Unavailable where a loop has made no progress for too long."""
        stalled = {
            each.name: seconds
            for each in tuple(self._loops)
            if (seconds := each.seconds_without_progress) > self._stalled_after
        }
        if stalled:
            said = ", ".join(f"{name} ({seconds:.0f} s)" for name, seconds in sorted(stalled.items()))
            raise Unavailable(f"Background loops of this process make no progress: {said}. Its log says why.")


async def _is_set_within(seconds: float, stop: asyncio.Event | None) -> bool:
    if stop is None:
        await asyncio.sleep(seconds)
        return False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()


def _place(error: Exception) -> tuple[object, ...]:
    """Where the exception was raised: what tells two failures apart. Messages may hold values that change."""
    found = error.__traceback__
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    return () if found is None else (found.tb_frame.f_code.co_filename, found.tb_lineno)
