"""A TCP proxy between a server and its clients that can silently stop forwarding."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HOST = "127.0.0.1"


class Wires:
    """A proxy from its own port to another one, in its own thread."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._is_dead = False
        self._is_over = False
        self._ends: dict[socket.socket, socket.socket] = {}
        self._silent: list[socket.socket] = []
        self._selector = selectors.DefaultSelector()
        self._listening = socket.create_server((HOST, 0))
        self._selector.register(self._listening, selectors.EVENT_READ)
        self.port = int(self._listening.getsockname()[1])

    @contextmanager
    def dead(self) -> Iterator[None]:
        """Forward nothing meanwhile. Existing connections stay silent for ever, as after the failure of a router."""
        self._is_dead = True
        try:
            yield
        finally:
            self._is_dead = False

    def stop(self) -> None:
        """End `run`; callable from any thread."""
        self._is_over = True

    def run(self) -> None:
        """Forward bytes until `stop` is called."""
        while not self._is_over:
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listening:
                    self._connect(self._listening.accept()[0])
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._ends:
                    self._carry(key.fileobj)
            if self._is_dead:
                self._silence()
        for each in [self._listening, *self._ends, *self._silent]:
            each.close()
        self._selector.close()

    def _connect(self, client: socket.socket) -> None:
        self._ends[client] = client
        try:
            server = client if self._is_dead else socket.create_connection((HOST, self._to))
        except OSError:
            self._hang_up(client)
            return
        for one, other in {client: server, server: client}.items():
            self._ends[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _carry(self, end: socket.socket) -> None:
        if self._is_dead:
            return
        data = b""
        with suppress(OSError):
            data = end.recv(65536)
            self._ends[end].sendall(data)
        if not data:
            self._hang_up(end)

    def _hang_up(self, end: socket.socket) -> None:
        for each in {end, self._ends[end]}:
            with suppress(KeyError):
                self._selector.unregister(each)
            self._ends.pop(each).close()
            each.close()

    def _silence(self) -> None:
        for each in self._ends:
            self._selector.unregister(each)
        self._silent += self._ends
        self._ends = {}


@contextmanager
def wires(to: int) -> Iterator[Wires]:
    """Run a proxy to a port on this machine."""
    made = Wires(to)
    thread = threading.Thread(target=made.run, name="wires")
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(10)
