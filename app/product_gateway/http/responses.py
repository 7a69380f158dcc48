"""What a handler returns, and how it is sent: at once, after a long poll, or as a stream of events."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Generic, TypeVar

import orjson
from starlette.types import Receive, Scope, Send

from product_gateway.http.context import request_context
from product_gateway.http.limits import LARGE_BYTES

Body = TypeVar("Body")


@dataclass(frozen=True, slots=True)
class Response(Generic[Body]):
    """A complete response. A `body` of bytes is sent unchanged, any other as JSON."""

    body: Body
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"

    async def send(self, scope: Scope, send: Send) -> None:
        content = self.body if isinstance(self.body, bytes) else orjson.dumps(self.body)
        own = {name.lower().encode(): value.encode("latin-1") for name, value in self.headers.items()}
        headers = [*((name, value) for name, value in request_context(scope).headers if name not in own), *own.items()]
        if self.status != HTTPStatus.NOT_MODIFIED:  # a 304 has no content (RFC 9110 §15.4.5)
            headers[:0] = [(b"content-type", self.media_type.encode()), (b"content-length", b"%d" % len(content))]
        await send_whole(scope, send, self.status, headers, content)


async def send_whole(scope: Scope, send: Send, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
    """Send a response with its whole body. Raise Overloaded where too much of earlier responses is still unsent.

    First release the request's slot: a client that is slow to read the response costs memory alone.
    """
    context = request_context(scope)
    context.release_slot()
    is_large = len(content) > LARGE_BYTES and scope["method"] != "HEAD"
    with context.unsent.reserve(len(content)) if context.unsent and is_large else nullcontext():
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


@dataclass(frozen=True, slots=True)
class DeferredResponse(Generic[Body]):
    """A long poll: `wait` returns the response, soon after its argument is done (see RequestContext.disconnected)."""

    wait: Callable[[asyncio.Future[bool]], Awaitable[Response[Body]]]

    async def resolve(self, scope: Scope) -> Response[Body] | None:
        """Release the request's slot and wait. Return the response, or None if the client is gone."""
        context = request_context(scope)
        context.release_slot()
        disconnected = context.disconnected or asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        try:
            response = await self.wait(disconnected)
        finally:
            context.waited = time.perf_counter() - began
        return None if disconnected.done() and disconnected.result() else response


@dataclass(frozen=True, slots=True)
class EventStream(Response[AsyncGenerator[bytes, None]]):
    """An endless response: what the generator yields, until it ends or the client disconnects."""

    media_type: str = "text/event-stream"

    async def send_until_disconnected(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. Close the generator at the end in any case."""
        headers = [(b"content-type", self.media_type.encode()), *request_context(scope).headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if scope["method"] != "HEAD":
            tasks = [asyncio.create_task(self._send_events(send)), asyncio.create_task(_disconnected(receive))]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self.body.aclose()
        await send({"type": "http.response.body", "body": b""})

    async def _send_events(self, send: Send) -> None:
        async for part in self.body:
            await send({"type": "http.response.body", "body": part, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
