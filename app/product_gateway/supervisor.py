"""Supervision of background loops: restart a loop after an unexpected exception, with back-off.

The exception is logged with its traceback and counted. It does not affect other loops. Readiness reports a loop that
has made no progress for a minute.
"""

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator

from product_gateway.errors import Unavailable
from product_gateway.http_client.backoff import exponential_delay
from product_gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.5  # seconds; doubled after each further failure
LONGEST_PAUSE = 15.0
LONGEST_PAUSE_FOR_THE_DATABASE = 2.0  # so that syncs continue soon after the database is back
JITTER = (0.75, 1.0)
STALLED_AFTER = 60.0  # seconds without progress
WAITS_FOR_THE_DATABASE = "A background loop waits until the database is back"


class Loop:
    """The state of one background loop: its last progress and its streak of failures. For one thread at a time."""

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
        return self._failures > 0

    @property
    def seconds_without_progress(self) -> float:
        """The seconds since the last progress, or 0 in an idle wait. May be read from any thread."""
        return 0.0 if self._is_idle and not self._failures else time.monotonic() - self._progressed_at

    def progressed(self) -> None:
        """Record progress, which ends a streak of failures."""
        self._progressed_at = time.monotonic()
        if self._failures:
            logger.info("The loop %s works again after %d failures.", self.name, self._failures)
        self._failures = 0
        self._logged.clear()

    @contextlib.contextmanager
    def idle(self) -> Iterator[None]:
        """Mark a wait of any length, such as for the next poll, so that the loop does not count as stalled."""
        self._is_idle = True
        try:
            yield
        finally:
            self._is_idle = False
            if not self._failures:
                self._progressed_at = time.monotonic()

    def failed(self, error: Exception) -> float:
        """Log and count a failure. Return the seconds to pause.

        Each different failure of a streak is logged once. Unavailable is expected, and not counted.
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
            self._metrics.loop_failures.labels(self.name).inc()
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

        `work` must call `progressed` after each piece of work. Exceptions in `ends_with` are raised. Readiness ignores
        a loop with `is_needed=False`.
        """
        loop = Loop(name, self._metrics, away)
        stop = stop or asyncio.Event()
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
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await stop.wait()
                        return
        finally:
            self._loops.discard(loop)

    def check(self) -> None:
        """Raise Unavailable if a loop has made no progress for too long."""
        seconds = {each.name: each.seconds_without_progress for each in tuple(self._loops)}
        stalled = [f"{name} ({each:.0f} s)" for name, each in sorted(seconds.items()) if each > self._stalled_after]
        if stalled:
            raise Unavailable(
                f"Background loops of this process make no progress: {', '.join(stalled)}. Its log says why."
            )


def _place(error: Exception) -> tuple[object, ...]:
    """Return where the exception was raised, to tell failures apart: their messages may contain changing values."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return (frames[-1][0].f_code.co_filename, frames[-1][1]) if frames else ()
