"""What a handler gives back, and how it is sent: at once, later, or as a stream."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import orjson
from starlette.types import Receive, Scope, Send

from product_gateway.http.limits import HURRY
from product_gateway.http.unsent import LARGE_BYTES, UNSENT

# In the scope:
STAMP = "product_gateway.stamp"  # headers that the answer gets, whatever it is
LEAVE = "product_gateway.leave"  # to be called when nobody works for the request any more: others may come in
WAITED = "product_gateway.waited"  # to be told how many seconds the client has waited because it wanted to

Body = TypeVar("Body")
Hurry = asyncio.Future[bool]
"""Done when nobody should wait any longer; True where the client is gone."""


@dataclass(frozen=True, slots=True)
class Response(Generic[Body]):
    """What a handler gives back. `body` is sent as JSON, or as it is where it is bytes."""

    body: Body
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"

    async def send(self, scope: Scope, send: Send) -> None:
        """Sends the whole answer to the request of the scope."""
        content = self.body if isinstance(self.body, bytes) else orjson.dumps(self.body)
        headers = [
            (b"content-type", self.media_type.encode()),
            (b"content-length", b"%d" % len(content)),
            *scope.get(STAMP, ()),
            *((name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()),
        ]
        await send_whole(scope, send, self.status, headers, content)


async def send_whole(scope: Scope, send: Send, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
    """Send a response with its whole body. Raise Overloaded where too much of earlier responses is still unsent.

    Another request may have this one's place: a client that is slow to take the response costs memory alone.
    """
    scope.get(LEAVE, lambda: None)()
    is_large = len(content) > LARGE_BYTES and scope["method"] != "HEAD" and UNSENT in scope
    with scope[UNSENT].reserve(len(content)) if is_large else nullcontext():
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


@dataclass(frozen=True, slots=True)
class DeferredResponse(Generic[Body]):
    """What a handler gives back where the client wants to wait for the answer, and it costs nothing to let it."""

    wait: Callable[[Hurry], Awaitable[Response[Body]]]

    async def answer(self, scope: Scope) -> Response[Body] | None:
        """The answer; None where the client is gone. Meanwhile another request may have this one's place."""
        scope.get(LEAVE, lambda: None)()
        hurry = scope[HURRY]() if HURRY in scope else asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        try:
            answer = await self.wait(hurry)
        finally:
            scope.get(WAITED, lambda _: None)(time.perf_counter() - began)
        return None if hurry.done() and hurry.result() else answer


@dataclass(frozen=True, slots=True)
class EventStream(Response[AsyncGenerator[bytes, None]]):
    """An answer that goes on: what the generator yields, until it ends or the client goes."""

    media_type: str = "text/event-stream"

    async def send_while_there(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whichever ends first, the generator is closed."""
        headers = [(b"content-type", self.media_type.encode()), *scope.get(STAMP, ())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if scope["method"] != "HEAD":
            sending, leaving = asyncio.create_task(self._send_parts(send)), asyncio.create_task(_client_left(receive))
            try:
                await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sending.cancel()
                leaving.cancel()
                await asyncio.gather(sending, leaving, return_exceptions=True)
                await self.body.aclose()
        await send({"type": "http.response.body", "body": b""})

    async def _send_parts(self, send: Send) -> None:
        async for part in self.body:
            await send({"type": "http.response.body", "body": part, "more_body": True})


async def _client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
