"""Name lookups in threads of their own: bounded, single-flight for each name, and given up after a time-out.

A lookup in a thread cannot be cancelled: with a DNS server that does not answer, it blocks for up to half a minute. The
threads are daemons and shared with nothing else, so that such lookups delay neither other names nor the process's end.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence

LOOKUPS_AT_ONCE = 256  # threads, of which each looks up another name; most of them wait for a server that is away

Lookup = Callable[[str], Sequence[str]]


class LookupFailed(Exception):
    """There is no address. The message goes on after "The host name shop.example"."""


def system_lookup(host: str) -> list[str]:
    """Return the host's addresses as the system knows them, /etc/hosts and search domains included."""
    return [str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


class NameLookups:
    """Looks names up with `lookup`, which may block. To be used from one event loop."""

    def __init__(self, lookup: Lookup, seconds: float, at_once: int = LOOKUPS_AT_ONCE) -> None:
        self._lookup = lookup
        self._seconds = seconds
        self._at_once = at_once
        self._running: dict[str, asyncio.Future[Sequence[str] | Exception]] = {}

    async def addresses(self, host: str) -> Sequence[str]:
        """Return the host's addresses. Raise LookupFailed, at the latest after the time-out.

        A lookup that has timed out goes on in its thread. Who asks for the same name meanwhile waits for it, too.
        """
        running = self._running.get(host) or self._start(host)
        await asyncio.wait([running], timeout=self._seconds)
        if not running.done():
            raise LookupFailed(f"could not be looked up in time ({self._seconds:g} s)")
        found = running.result()
        if isinstance(found, Exception):
            raise LookupFailed("could not be found") from found
        return found

    def _start(self, host: str) -> asyncio.Future[Sequence[str] | Exception]:
        if len(self._running) >= self._at_once:
            raise LookupFailed(f"cannot be looked up: {self._at_once} lookups of other names are not answered yet")
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._run, args=(loop, host), name=f"lookup of {host}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise LookupFailed("cannot be looked up: the system starts no more threads") from error
        self._running[host] = running = loop.create_future()
        return running

    def _run(self, loop: asyncio.AbstractEventLoop, host: str) -> None:
        found: Sequence[str] | Exception
        try:
            found = self._lookup(host)
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is awaited
            found = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._end, host, found)

    def _end(self, host: str, found: Sequence[str] | Exception) -> None:
        self._running.pop(host).set_result(found)
