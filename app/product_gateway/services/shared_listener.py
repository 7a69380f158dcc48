"""A listening socket that several processes accept from: each leaves new connections to others once it has its share.

Without that, the process that wakes up first accepts most connections of a burst, and keeps them.
"""

import asyncio
import mmap
import socket
import struct
from collections.abc import Callable

SECONDS_TO_YIELD = 0.002  # a busy process does not take a connection in this time, and need not get it
SECONDS_BETWEEN_COUNTS = 0.25
SECONDS_WITHOUT_FILES = 1.0
_number = struct.Struct("<Q")


class ConnectionCounts:
    """The open connections of each of several processes, in memory that they inherit from their parent."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._memory = mmap.mmap(-1, processes * _number.size)

    def publish(self, process: int, count: int) -> None:
        """Set the number of open connections of a process, from 0."""
        _number.pack_into(self._memory, process * _number.size, count)

    def mean(self) -> float:
        """Return the mean over all processes."""
        counts = _number.iter_unpack(self._memory[: self._processes * _number.size])
        return sum(int(count) for (count,) in counts) / self._processes


class Share:
    """What one process needs to know of the others: the counts, and its own number, from 0."""

    def __init__(self, counts: ConnectionCounts, process: int) -> None:
        self._counts, self._process = counts, process

    def is_used_up(self, count: int) -> bool:
        """Publish the number of open connections of this process. Return whether it is more than its share."""
        self._counts.publish(self._process, count)
        return count > self._counts.mean() + 1


class Acceptor:
    """Accepts connections in the running event loop until it is closed. `count_open` counts those of this process."""

    def __init__(
        self,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        count_open: Callable[[], int],
        share: Share,
    ) -> None:
        self._listening = listening
        self._make_protocol = make_protocol
        self._count_open = count_open
        self._share = share
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_closed = False
        listening.setblocking(False)
        self._loop.add_reader(listening.fileno(), self._on_readable)
        self._publish()

    def close(self) -> None:
        """Accept nothing more. Does not close the socket."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._listening.fileno())

    async def wait_closed(self) -> None:
        """Return once no connection is being set up."""
        await asyncio.gather(*self._connecting)

    def _publish(self) -> None:
        """Publish the number of connections now and then: they also end."""
        if not self._is_closed:
            self._has_enough()
            self._loop.call_later(SECONDS_BETWEEN_COUNTS, self._publish)

    def _has_enough(self) -> bool:
        return self._share.is_used_up(self._count_open() + len(self._connecting))

    def _on_readable(self) -> None:
        if self._has_enough():
            self._pause(SECONDS_TO_YIELD, accept=True)
        else:
            self._accept()

    def _pause(self, seconds: float, *, accept: bool) -> None:
        self._loop.remove_reader(self._listening.fileno())
        self._loop.call_later(seconds, self._resume, accept)

    def _resume(self, accept: bool) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listening.fileno(), self._on_readable)
            if accept:
                self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was faster, or the client has gone
        except OSError:  # no file descriptor is left
            self._pause(SECONDS_WITHOUT_FILES, accept=False)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._connect(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            transport, _ = await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:  # the client has gone
            connection.close()
        else:
            if self._is_closed:
                transport.close()
