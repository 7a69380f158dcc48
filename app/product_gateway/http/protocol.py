"""The HTTP/1.1 protocol of one connection: uvicorn's, made strict, with deadlines and a clean close.

A request that httptools accepts and `limits` does not is refused before an application sees it. Responses are sent in
the order of their requests (pipelining, RFC 9112 §9.3.2), and a refusal after them.
"""

import asyncio
import math
from contextvars import Context
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from product_gateway.http import limits as rules
from product_gateway.http.context import KEY, RequestContext
from product_gateway.http.limits import MalformedRequest
from product_gateway.http.response_transport import ResponseTransport

if TYPE_CHECKING:
    from product_gateway.http.connections import ConnectionSupervisor

SLICE_BYTES = 4096  # bytes parsed at a time; after each slice, pipelined requests hold back the rest
HEAD_END = b"\r\n\r\n"
PLACEHOLDER = b"PATCH"  # a method that the parser treats like any unknown one
MIN_PROGRESS_BYTES = 16 * 1024  # that a client must read within `write_timeout`


class State(IntEnum):
    """What the connection does with its input. Responses are sent meanwhile, independently of it."""

    IDLE = auto()  # no request has begun to arrive
    READING_HEADERS = auto()
    READING_BODY = auto()
    ANSWERING = auto()  # the last request was read or refused: input is ignored until its response is sent
    DRAINING = auto()  # our half is closed: input is ignored until the client closes its half


class _RequestAfterLast(Exception):
    """The previous request was the connection's last."""


class HTTPProtocol(HttpToolsProtocol):
    """One connection. `test_protocol.py` lists what it overrides and uses of uvicorn's class."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop,
        supervisor: "ConnectionSupervisor",
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._supervisor = supervisor
        self._limits = supervisor.limits
        self.deadline = supervisor.now + self._limits.keep_alive_timeout
        self._state = State.IDLE
        # The request that is being read
        self.url = b""
        self._framing: dict[bytes, bytes] = {}  # its FRAMING_HEADERS
        self._known_host = b""  # the last valid Host header
        self._head_bytes = self._body_bytes = self._framing_bytes = 0
        self._body_left = 0.0  # infinite where only the parser finds the end
        self._partial_line = b""  # a request line whose method is incomplete
        self._head_end = b""  # the last bytes of incomplete headers
        self._unknown_method = ""  # replaced by PLACEHOLDER for the parser
        # Input and output that wait
        self._buffered = b""  # not parsed until the pipelined requests before it are answered
        self._ignored_bytes = 0
        self._running: RequestResponseCycle | None = None  # its response is being made
        self._pending_error = b""  # a refusal that waits for earlier responses
        self._unread_bytes = self._counted_bytes = 0  # of the response: in our buffer; in `supervisor.unsent`
        self._read_until = 0.0  # when the client must have read the whole response
        # The client's half
        self._received_eof = False
        self._disconnected: asyncio.Future[bool] = self.loop.create_future()

    # Input from the client

    def data_received(self, data: bytes) -> None:
        if self._state >= State.ANSWERING:
            self._ignore(len(data))
        elif self._buffered or self.pipeline:
            self._buffered += data
            self.flow.pause_reading()
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and self._state < State.ANSWERING:
            if self.pipeline:
                self._buffered = bytes(rest)
                self.flow.pause_reading()
                return
            self._parse_slice(rest[:SLICE_BYTES])
            rest = rest[SLICE_BYTES:]
        self._ignore(len(rest))

    def _parse_slice(self, data: bytes | memoryview) -> None:
        while data and self._state < State.ANSWERING:
            piece, data = self._next_piece(data)
            if piece:
                self._parse_piece(piece)
        self._ignore(len(data))
        # Requests start only now: the rest of the slice can show that one is malformed.
        if self._running is None and self.pipeline:
            self._start(*self.pipeline.pop())

    def _next_piece(self, data: bytes | memoryview) -> tuple[bytes | memoryview, bytes | memoryview]:
        """Return what the parser gets next, and the rest. A piece never reaches into the following request."""
        if self._state is State.READING_BODY:
            size = int(min(len(data), self._body_left))
            self._body_left -= size
            return data[:size], data[size:]
        if self._state is State.IDLE or self._partial_line:
            data = self._partial_line + bytes(data)
            self._partial_line = self._head_end = b""
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
        """Return the request line with PLACEHOLDER for a method that the parser does not know.

        The application decides which methods a path has (RFC 9110 §15.5.6). Return nothing while the method is
        incomplete.
        """
        method, space, _ = data[: rules.LONGEST_METHOD_CHARACTERS + 1].partition(b" ")
        if not rules.METHOD.fullmatch(method):
            return data
        if not space:
            self._partial_line, self.url = data, b""
            self._enter(State.READING_HEADERS, self._limits.header_timeout)
            return b""
        if method in rules.METHODS_OF_THE_PARSER:
            return data
        self._unknown_method = method.decode()
        return PLACEHOLDER + data[len(method) :]

    def _parse_piece(self, data: bytes | memoryview) -> None:
        if self._state is State.READING_BODY:
            self._framing_bytes += len(data)
        else:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._state = State.ANSWERING  # no upgrade is offered: the request is answered, the rest is not HTTP
        except httptools.HttpParserError as error:
            cause = error.__context__  # the exception of a parser callback
            if isinstance(cause, MalformedRequest):
                self._refuse(cause)
            elif cause is None:
                self._refuse(rules.not_http(bytes(data[:32]), self._unknown_method, str(error)))
            elif not isinstance(cause, _RequestAfterLast):
                raise cause from None
        else:
            if self._state is State.READING_HEADERS and len(self.headers) > rules.MOST_HEADERS:
                self._refuse(MalformedRequest(*rules.TOO_MANY_HEADERS))
            elif self._head_bytes > rules.LARGEST_HEAD_BYTES:
                self._refuse(MalformedRequest(*rules.HEAD_TOO_LARGE))
            elif self._framing_bytes > rules.LARGEST_HEAD_BYTES:
                self._refuse(MalformedRequest(*rules.FRAMING_TOO_LARGE))

    def _ignore(self, size: int) -> None:
        """Count input that is not parsed. Stop reading where a client sends too much of it."""
        self._ignored_bytes += size
        if self._ignored_bytes > rules.LARGEST_BODY_BYTES:
            if self._state is State.DRAINING:
                self._abort()
            else:
                self.flow.pause_reading()

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio has it
        """Answer the requests of a client that has closed its half. Return whether to keep the transport open."""
        self._received_eof = True
        self._end_long_polls(gone=False)
        if self._state is State.DRAINING:
            return False
        self._end_after_responses()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._disconnect()
        self._end_long_polls(gone=True)
        self._buffered = b""
        self._count_unsent(0)
        super().connection_lost(exc)

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Begin a request, unless the previous one was the last."""
        if self.cycle is not None and not self.cycle.keep_alive:
            raise _RequestAfterLast
        super().on_message_begin()
        self._framing = {}
        self._body_left = 0.0
        self._enter(State.READING_HEADERS, self._limits.header_timeout)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Drop trailers (RFC 9110 §6.5.1)."""
        if self._state is not State.READING_HEADERS:
            return
        name = name.lower()
        value = value.strip(b" \t")  # the parser keeps white space after a value (RFC 9112 §5.1)
        self.headers.append((name, value))
        if name in rules.FRAMING_HEADERS:
            if name in self._framing:
                raise rules.bad_request(f"There is more than one {name.decode().title()} header.")
            self._framing[name] = value
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        """Check the headers, and decide whether this is the connection's last request."""
        if len(self.headers) > rules.MOST_HEADERS:
            raise MalformedRequest(*rules.TOO_MANY_HEADERS)
        if len(self.url) > rules.LARGEST_TARGET_BYTES or self._is_head_too_large():
            raise MalformedRequest(*rules.HEAD_TOO_LARGE)
        if self.url[:1] != b"/" or b"#" in self.url:
            self.url = rules.origin_form(self.parser.get_method(), self.url)
        super().on_headers_complete()
        if self._unknown_method:
            self.scope["method"], self._unknown_method = self._unknown_method, ""
        # From here on the request has a cycle; a refusal removes it.
        self.cycle.transport = ResponseTransport(self.transport, self.transport.close)  # type: ignore[assignment]
        self._enter(State.READING_BODY, self._limits.body_timeout)
        self._body_bytes = self._framing_bytes = 0
        framing = self._framing
        host = framing.get(b"host")
        if len(framing) > 1 or host != self._known_host or self.scope["http_version"] != "1.1":
            rules.check_framing(self.scope["http_version"], framing)
            self._known_host = host or b""
            self._expect_body(int(framing.get(b"content-length", b"0")), b"transfer-encoding" in framing)
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def _is_head_too_large(self) -> bool:
        if self._head_bytes <= rules.LARGEST_HEAD_BYTES - SLICE_BYTES:  # without the slice in which it began
            return False
        line = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n\r\n")
        headers = sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        return line + headers > rules.LARGEST_HEAD_BYTES

    def _expect_body(self, length: int, chunked: bool) -> None:
        if length or chunked:
            self._body_left = math.inf if chunked else length
            self._defer_close()
            too_large = length > rules.LARGEST_BODY_BYTES  # the application answers 413
            if too_large:
                self._state = State.ANSWERING
            # A proxy may see the next request elsewhere (request smuggling), or the client may not send the body.
            if too_large or chunked or self.expect_100_continue:
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._framing_bytes -= len(body)
        if self._body_bytes > rules.LARGEST_BODY_BYTES:
            raise MalformedRequest(*rules.BODY_TOO_LARGE)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._enter(State.IDLE, self._limits.keep_alive_timeout)
        super().on_message_complete()
        if not self.cycle.keep_alive:
            self._state = State.ANSWERING
            self._defer_close()

    # Responses, in the order of their requests

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.pipeline.appendleft((cycle, app))  # _parse_slice starts it

    def _start(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        context = RequestContext(disconnected=self._disconnected, unsent=self._supervisor.unsent)
        cycle.scope[KEY] = context  # type: ignore[literal-required]  # not one of ASGI's keys
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Start the next request, or wait for one."""
        self.server_state.total_requests += 1
        if self._running is not None:
            cast(ResponseTransport, self._running.transport).flush()
        self._running = None
        if self.transport.is_closing():
            self.deadline = self._supervisor.now + self._limits.write_timeout
        elif self._state is State.DRAINING:
            return
        elif self.pipeline or self._buffered or self._pending_error or self._received_eof:
            if self.pipeline:
                self._start(*self.pipeline.pop())
            # In a new context: the current one belongs to the request that has been answered.
            self.loop.call_soon(self._continue, context=Context())
        else:
            self.flow.resume_reading()
            if self._state is State.IDLE:
                self.deadline = self._supervisor.now + self._limits.keep_alive_timeout

    def _continue(self) -> None:
        """Parse what was buffered. Then send a pending refusal, or end the connection of a client at its EOF."""
        if self.pipeline or self._is_ending():
            return
        buffered, self._buffered = self._buffered, b""
        self._parse(buffered)
        if self._is_ending():
            return
        if self._pending_error:
            if self._running is None:
                self._write_error(self._pending_error)
        elif self._received_eof:
            self._end_after_responses()
        elif not (self._buffered or self.pipeline):
            self.flow.resume_reading()

    def _end_long_polls(self, *, gone: bool) -> None:
        if not self._disconnected.done():
            self._disconnected.set_result(gone)

    def _disconnect(self) -> None:
        """Tell the running request that its client is gone."""
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
            self._running = None
            self._end_long_polls(gone=True)

    def pause_writing(self) -> None:
        """Start the client's time to read the response: it must make progress, at a minimum average rate."""
        unread = self.transport.get_write_buffer_size()
        self._unread_bytes = unread
        self._count_unsent(unread)
        self.deadline = self._supervisor.now + self._limits.write_timeout
        self._read_until = self.deadline + unread / self._limits.reading_bytes_per_second
        super().pause_writing()

    def resume_writing(self) -> None:
        """Stop counting the response as unsent: the client has read all but a small rest."""
        self._count_unsent(0)
        super().resume_writing()

    def _count_unsent(self, size: int) -> None:
        self._supervisor.unsent.add(size - self._counted_bytes)
        self._counted_bytes = size

    # Refusals, deadlines and the end

    def _refuse(self, refused: MalformedRequest) -> None:
        """Answer with an error after earlier responses, unless the request's own has begun. Then close."""
        faulty = self.cycle if self._state is State.READING_BODY else None
        self._state = State.ANSWERING
        if faulty is not None:
            if faulty.response_started or faulty.disconnected:
                faulty.keep_alive = False
                if faulty.response_complete:
                    self._close()
                return
            if self.pipeline and self.pipeline[0][0] is faulty:
                self.pipeline.popleft()
            else:
                self._disconnect()
        is_head = bool(self.url) and self.parser.get_method() == b"HEAD"
        response = self._supervisor.refusal(refused, self.client[0] if self.client else "", with_body=not is_head)
        if self._running is not None or self.pipeline:
            self._pending_error = response
        else:
            self._write_error(response)

    def _write_error(self, response: bytes) -> None:
        self.transport.write(response)
        self._close()

    def expire(self) -> None:
        """End what has passed its deadline. A connection without a request is closed without a response."""
        limits = self._limits
        unread = self.transport.get_write_buffer_size()
        has_progress = 0 < unread <= self._unread_bytes - MIN_PROGRESS_BYTES
        if has_progress and self._supervisor.now < self._read_until:
            self._unread_bytes = unread
            self.deadline = min(self._supervisor.now + limits.write_timeout, self._read_until)
            return
        self.deadline = self._supervisor.now + limits.body_timeout
        if self.flow.write_paused or self._is_ending():
            self._abort()
        elif self._state is State.READING_BODY and self._running in (None, self.cycle) and not self.flow.read_paused:
            self._refuse(rules.too_slow("body", limits.body_timeout))
        elif self._running is not None:
            return  # the client waits for us
        elif self._state is State.READING_HEADERS:
            self._refuse(rules.too_slow("request", limits.header_timeout))
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """End long polls and close after the running response. uvicorn calls it when the server stops."""
        super().shutdown()
        self._end_long_polls(gone=False)

    def _enter(self, state: State, timeout: float) -> None:
        self._state = state
        self.deadline = self._supervisor.now + timeout

    def _is_ending(self) -> bool:
        return self._state is State.DRAINING or self.transport.is_closing()

    def _end_after_responses(self) -> None:
        """End the connection of a client that sends nothing more."""
        if self._buffered or self._pending_error:
            return  # _continue comes back to this
        if self._state is State.READING_HEADERS:
            self._refuse(rules.bad_request("The request ended before its headers did."))
        elif self._running is not None:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def _defer_close(self) -> None:
        """Let the newest request's close go through `_close`, which may drain first."""
        cast(ResponseTransport, self.cycle.transport).close_connection = self._close

    def _close(self) -> None:
        """Close. Where input may follow, close our half first: a reset would destroy the response (RFC 9112 §9.6)."""
        limits = self._limits
        if self._received_eof or self._state is State.IDLE:
            self.transport.close()
            self.deadline = self._supervisor.now + limits.write_timeout
        elif not self.transport.is_closing():
            self._buffered = b""
            self._enter(State.DRAINING, limits.write_timeout if self.flow.write_paused else limits.lingering_timeout)
            self.transport.write_eof()
            self.flow.resume_reading()

    def _abort(self) -> None:
        self._disconnect()
        self.transport.abort()
