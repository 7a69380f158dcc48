"""Wake-ups from the processes of the API to the worker beside them, over a socket pair.

SQLite has no notifications, and a pooler delivers none. A wake-up may be lost: the worker also looks by itself.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

WAKE = b"\0"


def tell(worker: socket.socket) -> None:
    """Wake the worker. If it does not read, what it has not read yet will wake it."""
    with suppress(OSError):
        worker.send(WAKE, socket.MSG_DONTWAIT)


def hear(servers: socket.socket, wake: Callable[[], None]) -> None:
    """Call `wake` for each wake-up from now on, in a thread."""

    def listen() -> None:
        with suppress(OSError):
            while servers.recv(1):
                wake()

    threading.Thread(target=listen, name="wakeups", daemon=True).start()
