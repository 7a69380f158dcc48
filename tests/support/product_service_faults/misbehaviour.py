"""What a misbehaviour of the hostile product service is made of: a request, ways to answer it, and a name."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

RECORDS = 12
OLD, NEW = "old", "new"
Behaviour = Callable[["Call"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """`name` is for people and tools; `meaning` says what the service does wrong."""

    name: str
    meaning: str
    behave: Behaviour


ALL: dict[str, Misbehaviour] = {}


def record(number: int, title: str = NEW, **fields: Any) -> dict[str, Any]:
    """A record of the service; its title tells which version it is."""
    return {"id": f"r{number:02}", "title": title, **fields}


def records(title: str = NEW) -> list[dict[str, Any]]:
    """The whole catalog of the service."""
    return [record(number, title) for number in range(RECORDS)]


def page_of(items: list[Any], next_cursor: str | None = None, **pagination: Any) -> dict[str, Any]:
    """A page that keeps the contract, but for what is said otherwise."""
    more = {"moreResults": next_cursor is not None, "nextCursor": next_cursor}
    return {"items": items, "pagination": {**more, **pagination}}


@dataclass(frozen=True, slots=True)
class Call:
    """A request, and the connection that it came on. `number` counts the requests so far, this one included."""

    path: str
    query: dict[str, str]
    token: str
    number: int
    writer: asyncio.StreamWriter

    @property
    def cursor(self) -> str | None:
        """Where the page starts; None for the first."""
        return self.query.get("cursor")

    @property
    def page_size(self) -> int:
        """How many records are wanted."""
        return int(self.query.get("page_size", "100"))

    async def say(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Bytes, as they are."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(pause)

    async def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        """A whole answer; a body that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        named = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in named.items())]
        await self.say("\r\n".join([*lines, "", ""]).encode("latin-1"), content)

    async def page(self, items: list[Any] | None = None, **pagination: Any) -> None:
        """The page that was asked for, of these records; cursors are places in the list."""
        items = records() if items is None else items
        start = int(self.cursor or 0)
        end = start + self.page_size
        await self.answer(page_of(items[start:end], str(end) if end < len(items) else None, **pagination))

    def reset(self) -> None:
        """Breaks the connection off at once, without the usual goodbye."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def misbehaviour(from_page: int = 1) -> Callable[[Behaviour], Behaviour]:
    """Registers a function under its name, with dashes; pages before `from_page` (1 or 2) are as they should be."""

    def register(function: Any) -> Behaviour:
        async def behave(call: Call) -> None:
            await (call.page() if from_page == 2 and call.cursor is None else function(call))

        name = function.__name__.replace("_", "-")
        ALL[name] = Misbehaviour(name, str(function.__doc__), behave)
        return behave

    return register
