"""The channel between a parent and one of its processes: JSON objects, one per line, over a socket pair."""

import json
import selectors
import socket
from typing import Any

Message = dict[str, Any]
LARGEST_READ = 1 << 20


def encode(message: Message) -> bytes:
    """Return the message as a line."""
    return json.dumps(message).encode() + b"\n"


class ParentEnd:
    """The parent's end of a channel. It never blocks: a stopped process must not stop the parent."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.socket = end
        self.is_open = True  # until the process has closed its end
        self._received = bytearray()
        self._unsent = bytearray()

    @property
    def events(self) -> int:
        """The events of a selector after which `flush` or `receive` has something to do."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)

    def receive(self) -> list[Message]:
        """Return the messages that have arrived."""
        try:
            while self.is_open:
                found = self.socket.recv(LARGEST_READ)
                self.is_open = bool(found)
                self._received += found
        except BlockingIOError:
            pass
        except OSError:
            self.is_open = False
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines]

    def send(self, message: Message) -> None:
        """Send a message, now or with later calls of `flush`."""
        self._unsent += encode(message)
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes."""
        try:
            while self._unsent:
                del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # the process has ended
            self._unsent.clear()

    def close(self) -> None:
        self.socket.close()
