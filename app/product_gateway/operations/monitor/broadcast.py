"""The monitor's event stream: one database read at a time, broadcast to all viewers."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

import orjson

from product_gateway.errors import Overloaded, Unavailable
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.telemetry.metrics import MONITOR

SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_SIGNS = 10.0  # proxies close a silent stream
MOST_VIEWERS = 200
SECONDS_OF_A_STREAM = 900.0  # then the browser reconnects and authenticates again
MILLISECONDS_TO_COME_BACK = 2000


Parts = dict[str, str]
IsOver = Callable[[], Awaitable[bool]]


async def _never() -> bool:
    return False


class Broadcaster:
    """Broadcasts changed parts of the page to all viewers. Reads nothing while there are none."""

    def __init__(self, look: Callable[[], Awaitable[Parts]], supervisor: Supervisor) -> None:
        self._look = look
        self._supervisor = supervisor
        self._viewers = 0
        self._looking: asyncio.Task[None] | None = None
        self._parts: Parts = {}
        self._news = asyncio.Event()
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def stream(self, is_over: IsOver = _never) -> AsyncGenerator[bytes, None]:
        """Return the events for one viewer, until `is_over` says that the viewer may see no more. Raises Overloaded."""
        if self._viewers >= MOST_VIEWERS:
            raise Overloaded
        return self._events(is_over)

    def end(self) -> None:
        """Close all streams before a stop. May be called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._ended = True
        self._tell()

    async def _events(self, is_over: IsOver) -> AsyncGenerator[bytes, None]:
        self._loop = asyncio.get_running_loop()
        self._viewers += 1
        if self._looking is None:
            # An operator who watches must not make the process unready.
            looking = self._supervisor.keep(MONITOR, self._look_now_and_then, is_needed=False)
            self._looking = asyncio.create_task(looking)
        seen: Parts = {}
        try:
            yield b"retry: %d\n\n" % MILLISECONDS_TO_COME_BACK
            said = self._loop.time()
            until = said + SECONDS_OF_A_STREAM
            while not (self._ended or self._loop.time() >= until or await is_over()):
                news = self._news
                changed = {name: part for name, part in self._parts.items() if seen.get(name) != part}
                if changed:
                    seen = self._parts
                    yield b"event: look\ndata: " + orjson.dumps({"parts": changed}) + b"\n\n"
                    said = self._loop.time()
                    continue
                if self._loop.time() - said >= SECONDS_BETWEEN_SIGNS:
                    yield b": still here\n\n"
                    said = self._loop.time()
                with suppress(TimeoutError):
                    async with asyncio.timeout(
                        SECONDS_BETWEEN_SIGNS
                    ):  # wait_for can lose a cancellation before Python 3.12
                        await news.wait()
        finally:
            self._viewers -= 1
            if not self._viewers and self._looking is not None:
                self._looking.cancel()
                self._looking, self._parts = None, {}

    async def _look_now_and_then(self, loop: Loop) -> None:
        while True:
            try:
                self._parts = await self._look()
            except Unavailable as error:
                self._parts = {**self._parts, "away": error.detail}
            self._tell()
            loop.progressed()
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    def _tell(self) -> None:
        told, self._news = self._news, asyncio.Event()
        told.set()
