"""The transport of one response: sends its head together with the first part of its body."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from product_gateway.http.limits import LARGE_BYTES

LENGTH = b"\r\ncontent-length: "  # uvicorn writes names in lower case


@dataclass(slots=True, eq=False)
class ResponseTransport:
    """What uvicorn's response cycle uses of a transport. A write of its own for the head would be a second system call.

    Only a head with a Content-Length waits: its body follows at once. The head of a stream is sent immediately.
    """

    transport: asyncio.Transport
    close_connection: Callable[[], None]
    _is_head_next: bool = True
    _head: bytes = b""

    def write(self, data: bytes) -> None:
        if self._is_head_next and not data.startswith(b"HTTP/1.1 100 "):
            self._is_head_next = False
            if LENGTH in data:
                self._head = data
                return
        if len(data) <= LARGE_BYTES:
            data, self._head = self._head + data, b""
        self.flush()
        self.transport.write(data)

    def flush(self) -> None:
        """Send a head that no body follows, such as that of HEAD."""
        if self._head:
            self.transport.write(self._head)
            self._head = b""

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def close(self) -> None:
        self.flush()
        self.close_connection()
