"""Raw HTTP/1.1 over a socket: sends any bytes, and reads responses as strictly as the standard allows."""

import json
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from product_gateway.api.error_responses import TITLES

PATIENCE = 20
"""Seconds without a byte in either direction after which a test fails."""
LIVE = b"GET /health/live HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Return the values of a header; `name` is in lower case."""
        return [value for each, value in self.headers if each == name]

    @property
    def closes(self) -> bool:
        """Whether the response has `Connection: close`."""
        return self.all("connection") == ["close"]


@dataclass
class Conversation:
    """The responses of a connection, and its end: "eof", "reset" or "open"."""

    replies: list[Reply] = field(default_factory=list)
    end: str = "open"

    @property
    def statuses(self) -> list[int]:
        return [each.status for each in self.replies]


class Wire:
    """A connection. `methods` are those of the requests: the response to HEAD has no body."""

    def __init__(self, url: str, methods: Sequence[str] = ()) -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._methods = list(methods)
        self._received = bytearray()
        self.said = Conversation()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send everything. Do not fail where the server has closed."""
        self._exchange(data, lambda: False, when_sent=True)

    def trickle(self, data: bytes) -> None:
        """Send byte by byte until the server closes."""
        try:
            for byte in data:
                self.socket.sendall(bytes([byte]))
        except OSError:
            return  # closed at the other end: what it said before is still to be read

    def listen(self) -> None:
        """Read the available bytes."""
        self.socket.setblocking(False)
        self._receive()

    def half_close(self) -> None:
        """Close the sending half."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.said.end = "reset" if self.said.end == "open" else self.said.end

    def until_end(self, data: bytes = b"") -> Conversation:
        """Send, and read until the server closes."""
        self._exchange(data, lambda: False)
        return self.said

    def replies(self, count: int, data: bytes = b"") -> Conversation:
        """Send, and read until there are `count` responses or the server closes."""
        self._exchange(data, lambda: len(self.said.replies) >= count)
        return self.said

    def _exchange(self, data: bytes, enough: Any, *, when_sent: bool = False) -> None:
        rest = memoryview(data)
        with selectors.DefaultSelector() as ready:
            ready.register(self.socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if rest else 0))
            last = time.monotonic()
            self.socket.setblocking(False)
            while self.said.end == "open" and not (when_sent and not rest) and (rest or not enough()):
                events = ready.select(0.1)
                if events:
                    last = time.monotonic()
                waited = time.monotonic() - last
                assert waited < PATIENCE, f"The server hangs: {len(rest)} bytes unsent, answers {self.said.statuses}"
                for _, event in events:
                    if event & selectors.EVENT_READ:
                        self._receive()
                    if event & selectors.EVENT_WRITE and rest and self.said.end == "open":
                        rest = rest[self._transmit(rest) :]
                        if not rest:
                            ready.modify(self.socket, selectors.EVENT_READ)

    def _transmit(self, rest: memoryview) -> int:
        try:
            return self.socket.send(rest[:65536])
        except BlockingIOError:
            return 0
        except OSError:  # closed at the other end: what it said before is still to be read
            return len(rest)

    def _receive(self) -> None:
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self.said.end = "reset"
            return
        if not data:
            self.said.end = "eof"
        self._received += data
        while (reply := self._next()) is not None:
            self.said.replies.append(reply)
        if self.said.end == "eof":
            assert not self._received, f"not a whole answer: {bytes(self._received[:300])!r}"

    def _next(self) -> Reply | None:
        head, found, rest = bytes(self._received).partition(b"\r\n\r\n")
        if not found:
            return None
        line, *fields = head.decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert version == "HTTP/1.1", line
        headers = [(name.lower(), value) for name, _, value in (each.partition(": ") for each in fields)]
        lengths = [value for name, value in headers if name == "content-length"]
        if status in ("100", "204", "304"):
            # A body behind it would be read as the next answer (RFC 9110 §6.4.1, §8.6).
            assert not lengths, f"an answer that cannot have a body, with a length: {head!r}"
            length = 0
        else:
            assert len(lengths) == 1, f"an answer without one length: {head!r}"
            index = len([each for each in self.said.replies if each.status != 100])
            is_head = self._methods[index : index + 1] == ["HEAD"]
            length = 0 if is_head else int(lengths[0])
        if len(rest) < length:
            return None
        self._received = bytearray(rest[length:])
        return Reply(int(status), headers, rest[:length])


def assert_is_our_error(reply: Reply, *, with_body: bool = True) -> None:
    """Check for the contract's error body, a request id and the security headers."""
    status = HTTPStatus(reply.status)
    assert reply.status != 500, reply
    assert reply.all("content-type") == ["application/json"], reply
    assert reply.all("x-content-type-options") == ["nosniff"], reply
    assert reply.all("cache-control") == ["no-store"], reply
    assert len(reply.all("x-request-id")) == 1, reply
    if not with_body:
        assert reply.body == b"", reply
        return
    body = json.loads(reply.body)
    assert set(body) == {"error"}, body
    for each in body["error"]:
        assert set(each) == {"status", "title", "detail"}, each
        assert each["status"] == str(reply.status), each
        assert each["title"] == TITLES.get(status, status.phrase), each
        assert each["detail"].isprintable(), each
        assert each["detail"], each
