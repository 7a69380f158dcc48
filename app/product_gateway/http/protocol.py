"""HTTP/1.1 as strangers write it: uvicorn's protocol, and an end to everything that a client can send.

What the parser takes and http_rules do not is refused before any application sees it.
"""

import asyncio
import math
from typing import Any

import httptools
from uvicorn import Config
from uvicorn.server import ServerState

from product_gateway.http import limits as rules
from product_gateway.http.request_pipeline import DeadlineSupervisor, RequestPipeline

SLICE_BYTES = 4096  # so much is parsed before we look whether the client is ahead of us
HEAD_END = b"\r\n\r\n"
PLACEHOLDER = b"PATCH"  # a method that the parser treats as any other


class _Over(Exception):
    """The request before this one was the connection's last."""


class HTTPProtocol(RequestPipeline):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop,
        watch: DeadlineSupervisor,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop, watch)
        self._telling: dict[bytes, bytes] = {}
        self._known_host = b""
        self._head_bytes = self._body_bytes = self._framing_bytes = 0
        self._body_left = 0.0  # of the request that is being read; infinite where only the parser finds its end
        self._line_so_far = b""  # a request line whose method has not arrived as a whole
        self._head_end = b""  # the last bytes of a head that has not arrived as a whole
        self._unknown_method = ""  # stands behind the placeholder that the parser was given

    def data_received(self, data: bytes) -> None:
        """Parses, but holds back what comes behind a request that waits for its turn."""
        if self._ignoring_input:
            self._leave_unread(len(data))
        elif self._buffered or self.pipeline:
            self._buffered += data
            self.flow.pause_reading()
        elif len(data) <= SLICE_BYTES:
            self._feed(data)
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and not self._ignoring_input:
            if self.pipeline:
                self._buffered = bytes(rest)
                self.flow.pause_reading()
                return
            self._feed(rest[:SLICE_BYTES])
            rest = rest[SLICE_BYTES:]
        self._leave_unread(len(rest))

    def _feed(self, data: bytes | memoryview) -> None:
        while data and not self._ignoring_input:
            piece, data = self._next_piece(data)
            if piece:
                self._feed_piece(piece)
        self._leave_unread(len(data))
        if self._ready is not None:
            self._start(*self._ready)

    def _next_piece(self, data: bytes | memoryview) -> tuple[bytes | memoryview, bytes | memoryview]:
        """Return what the parser gets next, and the rest: a piece never reaches into the following request."""
        if self._in_body:
            size = int(min(len(data), self._body_left))
            self._body_left -= size
            return data[:size], data[size:]
        if not self._in_head or self._line_so_far:
            data = self._line_so_far + bytes(data)
            self._line_so_far = self._head_end = b""
            if data[0] in b"\r\n":  # empty lines before a request are skipped (RFC 9112 §2.2)
                rest = data.lstrip(b"\r\n")
                return data[: len(data) - len(rest)], rest
            if not data.startswith(rules.COMMON_METHODS):
                data = self._with_known_method(data)
        seen = len(self._head_end)
        text = self._head_end + bytes(data)
        end = text.find(HEAD_END) + len(HEAD_END) - seen
        if end <= 0 or end > len(data):
            self._head_end = text[1 - len(HEAD_END) :]
            return data, b""
        return data[:end], data[end:]

    def _with_known_method(self, data: bytes) -> bytes:
        """Return the request line with a placeholder for a method that the parser would take for bad HTTP.

        Whether a path has the method is then the application's question (RFC 9110 §15.5.6). Returns nothing while the
        method has not arrived as a whole.
        """
        method, space, _ = data[: rules.LONGEST_METHOD_CHARACTERS + 1].partition(b" ")
        if not rules.METHOD.fullmatch(method):
            return data
        if not space:
            self._line_so_far, self._in_head, self.url = data, True, b""
            self.deadline = self._watch.now + self._limits.header_timeout
            return b""
        if method in rules.METHODS_OF_THE_PARSER:
            return data
        self._unknown_method = method.decode()
        return PLACEHOLDER + data[len(method) :]

    def _feed_piece(self, data: bytes | memoryview) -> None:
        if self._in_body:
            self._framing_bytes += len(data)
        else:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._ignoring_input = (
                True  # nothing is upgraded here: the request is answered, what follows it is not HTTP
            )
        except httptools.HttpParserError as error:
            self._stop_at(error)
        else:
            if self._in_head and len(self.headers) > rules.MOST_HEADERS:
                self._refuse(rules.too_many_headers())
            elif self._head_bytes > rules.LARGEST_HEAD_BYTES:
                self._refuse(rules.head_too_large())
            elif self._framing_bytes > rules.LARGEST_HEAD_BYTES:
                self._refuse(rules.framing_too_large())

    def _stop_at(self, error: httptools.HttpParserError) -> None:
        cause = error.__context__  # what one of the callbacks below has raised
        if isinstance(cause, _Over):
            return
        if isinstance(cause, rules.MalformedRequest):
            self._refuse(cause)
        elif cause is None:
            self._refuse(rules.bad_request(f"This is not HTTP as it should be: {error}."))
        else:
            raise cause

    # What the parser finds

    def on_message_begin(self) -> None:
        """Behind the last request of a connection there is none."""
        if self.cycle is not None and not self.cycle.keep_alive:
            raise _Over
        super().on_message_begin()
        self._telling = {}
        self._body_left = 0.0
        self._in_head = True
        self.deadline = self._watch.now + self._limits.header_timeout

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers come here too; they are no headers, and nobody wants them (RFC 9110 §6.5.1)."""
        if self._in_body:
            return
        name = name.lower()
        value = value.strip(b" \t")  # the parser leaves what stands behind a value (RFC 9112 §5.1)
        self.headers.append((name, value))
        if name in rules.FRAMING_HEADERS:
            if name in self._telling:
                raise rules.bad_request(f"There is more than one {name.decode().title()} header.")
            self._telling[name] = value
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """Decides also whether this is the connection's last request."""
        if len(self.headers) > rules.MOST_HEADERS:
            raise rules.too_many_headers()
        if len(self.url) > rules.LARGEST_TARGET_BYTES or self._is_too_large():
            raise rules.head_too_large()
        if self.url[:1] != b"/" or b"#" in self.url:
            self.url = rules.origin_form(self.parser.get_method(), self.url)
        super().on_headers_complete()
        if self._unknown_method:
            self.scope["method"], self._unknown_method = self._unknown_method, ""
        # From here on the request has a cycle; a refusal takes it back.
        self._in_head, self._in_body = False, True
        self._body_bytes = self._framing_bytes = 0
        self.deadline = self._watch.now + self._limits.body_timeout
        telling = self._telling
        host = telling.get(b"host")
        if len(telling) > 1 or host != self._known_host:
            rules.check_framing(self.scope["http_version"], telling)
            self._known_host = host or b""
            self._expect_body(int(telling.get(b"content-length", b"0")), b"transfer-encoding" in telling)
        elif self.scope["http_version"] != "1.1":
            rules.check_framing(self.scope["http_version"], telling)
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def _expect_body(self, length: int, chunked: bool) -> None:
        if length or chunked:
            self._body_left = math.inf if chunked else length
            self._keep_line()
            self._ignoring_input = length > rules.LARGEST_BODY_BYTES  # the application answers 413 by itself
            # Where a next request would begin, a proxy before us may see otherwise, or the client not send.
            if self._ignoring_input or chunked or self.expect_100_continue:
                self.cycle.keep_alive = False

    def _is_too_large(self) -> bool:
        if self._head_bytes <= rules.LARGEST_HEAD_BYTES - SLICE_BYTES:  # reckoned without the slice that it began in
            return False
        line = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n\r\n")
        headers = sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        return line + headers > rules.LARGEST_HEAD_BYTES

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._body_bytes += len(body)
        self._framing_bytes -= len(body)
        if self._body_bytes > rules.LARGEST_BODY_BYTES and not self._ignoring_input:
            raise rules.body_too_large()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here as a whole; it may have been the last."""
        self._in_body = False
        self._head_bytes = 0
        self.deadline = self._watch.now + self._limits.keep_alive_timeout
        super().on_message_complete()
        if not self.cycle.keep_alive:
            self._ignoring_input = True
            self._keep_line()
