"""Name lookups in daemon threads: limited in number, single-flight per name, with a time-out.

A lookup in a thread cannot be cancelled, and blocks for up to 30 seconds if the DNS server does not answer. Each lookup
has its own thread, so it delays neither other names nor the end of the process.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence

from product_gateway.errors import Unreachable

LOOKUPS_AT_ONCE = 256  # threads

Lookup = Callable[[str], Sequence[str]]


def system_lookup(host: str) -> list[str]:
    """Return the host's addresses by the system's resolver, with /etc/hosts and search domains."""
    return [str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class NameLookups:
    """Lookups by the function `lookup`, which may block. All calls come from one event loop."""

    def __init__(self, lookup: Lookup, seconds: float, at_once: int = LOOKUPS_AT_ONCE) -> None:
        self._lookup = lookup
        self._seconds = seconds
        self._at_once = at_once
        self._running: dict[str, asyncio.Future[Sequence[str] | Exception]] = {}

    async def addresses(self, host: str) -> Sequence[str]:
        """Return the host's addresses. Raise Unreachable at the latest after the time-out.

        A lookup that has timed out continues in its thread. Later calls for the same name wait for it too.
        """
        running = self._running.get(host) or self._start(host)
        await asyncio.wait([running], timeout=self._seconds)
        if not running.done():
            raise Unreachable(f"The host name {host} could not be looked up in time ({self._seconds:g} s).")
        found = running.result()
        if isinstance(found, Exception):
            raise Unreachable(f"The host name {host} could not be found.") from found
        return found

    def _start(self, host: str) -> asyncio.Future[Sequence[str] | Exception]:
        if len(self._running) >= self._at_once:
            busy = f"{self._at_once} lookups of other names are not answered yet"
            raise Unreachable(f"The host name {host} cannot be looked up: {busy}.")
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._run, args=(loop, host), name=f"lookup of {host}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise Unreachable(
                f"The host name {host} cannot be looked up: the system starts no more threads."
            ) from error
        self._running[host] = running = loop.create_future()
        return running

    def _run(self, loop: asyncio.AbstractEventLoop, host: str) -> None:
        found: Sequence[str] | Exception
        try:
            found = self._lookup(host)
        except Exception as error:  # noqa: BLE001 - `addresses` raises it
            found = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._end, host, found)

    def _end(self, host: str, found: Sequence[str] | Exception) -> None:
        self._running.pop(host).set_result(found)
