"""Whose turn it is on a connection: answers in the order of their requests, a refusal behind them, a clean end.

Built on uvicorn's protocol, which has the pipeline; http_protocol adds what is read.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from product_gateway.http import limits as rules
from product_gateway.http.unsent import UNSENT, UnsentBytes

SLOWEST_READING_BYTES = 16 * 1024  # of an answer, in `reading_seconds`


class DeadlineSupervisor(Protocol):
    """Who looks after all connections: calls `expire` of those whose `deadline` is over."""

    limits: rules.Limits
    now: float  # the event loop's time, as deadlines are reckoned
    unsent: UnsentBytes

    def refusal(self, refused: rules.MalformedRequest, client: str, *, with_body: bool) -> bytes:
        """A whole answer, which says that it is the connection's last."""


class _DeferredCloseTransport:
    """The transport as a request with a body sees it: closing is left to the protocol."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class RequestPipeline(HttpToolsProtocol):
    """One connection, from the end of a request's headers on."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop,
        watch: DeadlineSupervisor,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""
        self.deadline = watch.now + watch.limits.keep_alive_timeout
        self._watch = watch
        self._limits = watch.limits
        self._in_head = self._in_body = False  # of a request that has begun and is not here as a whole
        self._ready: tuple[RequestResponseCycle, Any] | None = None  # begins when the bytes at hand are parsed
        self._running: RequestResponseCycle | None = None  # is being answered
        self._buffered = b""  # not parsed yet: there is enough to answer
        self._pending_error = b""  # a refusal that waits for the answers before it
        self._ignoring_input = False  # nothing more is parsed
        self._unread_bytes = self._untaken_bytes = 0
        self._unsent_bytes = 0  # what of this connection `watch.unsent` counts
        self._read_until = 0.0  # the end of the time that the client has for the whole answer
        self._client_is_done = False  # it has closed its half
        self._draining = False  # we have closed ours
        self._hurry: asyncio.Future[bool] | None = None  # what hurry() has made
        self._is_to_end = False  # the server

    def _parse(self, data: bytes) -> None:
        raise NotImplementedError

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._ready = cycle, app  # not at once: the bytes at hand may show that it is no request after all

    def _start(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._ready, self._running = None, cycle
        cycle.scope[rules.HURRY] = self.hurry  # type: ignore[literal-required]  # one of ours
        cycle.scope[UNSENT] = self._watch.unsent  # type: ignore[literal-required]  # one of ours
        super()._start_asgi_task(cycle, app)

    def hurry(self) -> asyncio.Future[bool]:
        """Is done when nobody should wait any longer for the request that is being answered.

        True where the client is gone; False where it has closed its half, which is how most go, or the server is to
        end: then there may be somebody who hears the answer.
        """
        if self._hurry is None or self._hurry.done():
            self._hurry = self.loop.create_future()
            if self._running is None:
                self._hurry.set_result(True)
            elif self._client_is_done or self._is_to_end:
                self._hurry.set_result(False)
        return self._hurry

    def _wait_no_longer(self, *, gone: bool) -> None:
        if self._hurry is not None and not self._hurry.done():
            self._hurry.set_result(gone)

    def shutdown(self) -> None:
        """Called by uvicorn when the server is to end."""
        self._is_to_end = True
        super().shutdown()
        self._wait_no_longer(gone=False)

    def on_response_complete(self) -> None:
        """It is the next one's turn."""
        self.server_state.total_requests += 1
        self._running = None
        if self.transport.is_closing():
            self.deadline = self._watch.now + self._limits.write_timeout
        elif self._draining:
            return
        elif self.pipeline or self._buffered or self._pending_error or self._client_is_done:
            if self.pipeline:
                self._start(*self.pipeline.pop())
            # In a context of its own: this one is about the request that has just been answered.
            self.loop.call_soon(self._go_on, context=Context())
        else:
            self.flow.resume_reading()
            if not (self._in_head or self._in_body):
                self.deadline = self._watch.now + self._limits.keep_alive_timeout

    def _go_on(self) -> None:
        if self.pipeline or self._draining or self.transport.is_closing():
            return
        held, self._buffered = self._buffered, b""
        self._parse(held)
        if self._draining or self.transport.is_closing():
            return
        if self._pending_error:
            if self._running is None:
                self._write_error(self._pending_error)
        elif self._client_is_done:
            self._end_after_answers()
        elif not (self._buffered or self.pipeline):
            self.flow.resume_reading()

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio has it
        """A client that has said all that it wants to gets its answers all the same."""
        self._client_is_done = True
        self._wait_no_longer(gone=False)
        if self._draining:
            return False
        self._end_after_answers()
        return True

    def _end_after_answers(self) -> None:
        if self._buffered or self._pending_error:
            return  # _go_on comes back to this
        if self._in_head:
            self._refuse(rules.bad_request("The request ended before its headers did."))
        elif self._running is not None:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody works on for a client that is gone."""
        self._disconnect()
        self._buffered = b""
        self._count_unsent(0)
        super().connection_lost(exc)

    def _refuse(self, refused: rules.MalformedRequest) -> None:
        """Says so where no answer has begun, behind the answers before it; then closes."""
        self._ignoring_input = True
        faulty = self.cycle if self._in_body else None
        if faulty is not None:
            if faulty.response_started or faulty.disconnected:
                faulty.keep_alive = False
                if faulty.response_complete:
                    self._finish()
                return
            if self._ready is not None and self._ready[0] is faulty:
                self._ready = None
            elif self.pipeline and self.pipeline[0][0] is faulty:
                self.pipeline.popleft()
            else:
                self._disconnect()
        is_head = bool(self.url) and self.parser.get_method() == b"HEAD"
        words = self._watch.refusal(refused, self.client[0] if self.client else "", with_body=not is_head)
        if self._running is not None or self._ready is not None:
            self._pending_error = words
        else:
            self._write_error(words)

    def _write_error(self, words: bytes) -> None:
        self.transport.write(words)
        self._finish()

    def _keep_line(self) -> None:
        """The newest request's answer will not close the connection in the client's face."""
        self.cycle.transport = _DeferredCloseTransport(self.transport, self._finish)  # type: ignore[assignment]  # all that is used

    def _finish(self) -> None:
        """Closes; our half first where more may be under way, which would drown the answer (RFC 9112 §9.6)."""
        limits = self._limits
        if self._client_is_done or not (self._ignoring_input or self._in_head or self._in_body):
            self.transport.close()
            self.deadline = self._watch.now + limits.write_timeout
        elif not self.transport.is_closing():
            self._ignoring_input = self._draining = True
            self._buffered = b""
            seconds = limits.write_timeout if self.flow.write_paused else limits.lingering_timeout
            self.deadline = self._watch.now + seconds
            self.transport.write_eof()
            self.flow.resume_reading()

    def _leave_unread(self, size: int) -> None:
        """What comes when nothing is parsed any more; too much of it is not even taken in."""
        self._unread_bytes += size
        if self._unread_bytes > rules.LARGEST_BODY_BYTES:
            if self._draining:
                self._abort()
            else:
                self.flow.pause_reading()

    def _disconnect(self) -> None:
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
            self._running = None
            self._wait_no_longer(gone=True)

    def _abort(self) -> None:
        self._disconnect()
        self.transport.abort()

    def pause_writing(self) -> None:
        """Start the client's time to take the answer: it must make progress, at a lowest average rate."""
        untaken = self.transport.get_write_buffer_size()
        self._untaken_bytes = untaken
        self._count_unsent(untaken)
        self.deadline = self._watch.now + self._limits.write_timeout
        self._read_until = self.deadline + untaken / self._limits.reading_bytes_per_second
        super().pause_writing()

    def resume_writing(self) -> None:
        """Stop counting the answer as unsent: the client has taken all but a small rest."""
        self._count_unsent(0)
        super().resume_writing()

    def _count_unsent(self, size: int) -> None:
        self._watch.unsent.add(size - self._unsent_bytes)
        self._unsent_bytes = size

    def expire(self) -> None:
        """The deadline is over. Who has begun nothing is let go without a word."""
        limits = self._limits
        untaken = self.transport.get_write_buffer_size()
        has_progress = 0 < untaken <= self._untaken_bytes - SLOWEST_READING_BYTES
        if has_progress and self._watch.now < self._read_until:
            self._untaken_bytes = untaken
            self.deadline = min(self._watch.now + limits.write_timeout, self._read_until)
            return
        self.deadline = self._watch.now + limits.body_timeout
        if self.flow.write_paused or self._draining or self.transport.is_closing():
            self._abort()
        elif (
            self._in_body
            and self._running in (None, self.cycle)
            and not (self._ignoring_input or self.flow.read_paused)
        ):
            self._refuse(rules.too_slow("body", limits.body_timeout))
        elif self._running is not None:
            return  # it is the client who waits
        elif self._in_head:
            self._refuse(rules.too_slow("request", limits.header_timeout))
        else:
            self.transport.close()
