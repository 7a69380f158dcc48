"""A product service that misbehaves in every way that we could think of, by name: a real server on loopback."""

import asyncio
import itertools
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qsl, urlsplit

from tests.support.product_service_faults import pages, records, statuses, transport
from tests.support.product_service_faults.misbehaviour import ALL, OLD, Call
from tests.support.product_service_faults.misbehaviour import records as honest_records

STARTS_WITHIN = STOPS_WITHIN = 10
HONEST = "honest"

MISBEHAVIOURS = ALL
"""By name; every one has a name, and what it means in words."""

ROOMS = (pages, records, statuses, transport)


class Hostile:
    """The server. Each address that it gives out misbehaves in one way, and counts for itself."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: defaultdict[str, list[Call]] = defaultdict(list)
        self._numbers = itertools.count(1)

    def url(self, name: str) -> str:
        """A new address whose service has this misbehaviour; "honest" has none, and older records."""
        assert name == HONEST or name in MISBEHAVIOURS
        return f"http://127.0.0.1:{self.port}/{name}/{next(self._numbers)}"

    def requests(self, url: str) -> list[Call]:
        """What was asked at the address so far."""
        return self.asked[urlsplit(url).path]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer; then the connection is closed."""
        with suppress(OSError, asyncio.IncompleteReadError):
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *headers = head.split("\r\n")
                target = urlsplit(line.split()[1])
                named = dict(header.lower().split(": ", 1) for header in headers if header)
                token = next((each[22:] for each in headers if each.lower().startswith("authorization: bearer ")), "")
                assert named["user-agent"].startswith("product-gateway/")
                address, _, path = target.path.rpartition("/")
                calls = self.asked[address]
                call = Call(f"/{path}", dict(parse_qsl(target.query)), token, len(calls) + 1, writer)
                calls.append(call)
                name = address.split("/")[1]
                await self.answer(name, call)
            finally:
                writer.close()

    async def answer(self, name: str, call: Call) -> None:
        """What the service with this misbehaviour answers."""
        await (call.page(honest_records(OLD)) if name == HONEST else MISBEHAVIOURS[name].behave(call))


@contextmanager
def serve(kind: type[Hostile] = Hostile) -> Iterator[Hostile]:
    """The server, in a thread, until the block ends."""
    hostile = kind()
    started = threading.Event()
    state: dict[str, asyncio.AbstractEventLoop | asyncio.Event] = {}

    async def until_told() -> None:
        stop = asyncio.Event()
        state.update(loop=asyncio.get_running_loop(), stop=stop)
        server = await asyncio.start_server(hostile.handle, "127.0.0.1", 0)
        hostile.port = server.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(until_told(),), name="hostile", daemon=True)
    thread.start()
    assert started.wait(STARTS_WITHIN)
    try:
        yield hostile
    finally:
        loop, stop = state["loop"], state["stop"]
        assert isinstance(loop, asyncio.AbstractEventLoop)
        assert isinstance(stop, asyncio.Event)
        loop.call_soon_threadsafe(stop.set)
        thread.join(STOPS_WITHIN)
        assert not thread.is_alive()
