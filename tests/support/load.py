"""A load generator without back-off, and the footprint of a process."""

import asyncio
import collections
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 60
"""Seconds after which a missing response fails the test."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def error(self) -> dict[str, str]:
        """The only error of the contract's error body."""
        (found,) = json.loads(self.body)["error"]
        return dict(found)


@dataclass
class Tally:
    """The responses of many connections."""

    seconds: dict[int, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    overtaken: dict[int, list[int]] = field(default_factory=lambda: collections.defaultdict(list))
    """For each response, how many others with its status came since its request was sent."""
    odd: list[str] = field(default_factory=list)  # what no answer may be

    @property
    def statuses(self) -> dict[int, int]:
        """The number of responses by status."""
        return {status: len(each) for status, each in sorted(self.seconds.items())}

    def median_overtaken(self, status: int) -> float:
        """Return the median of `overtaken`. In contrast to a time, it does not depend on other load of the machine."""
        return statistics.median(self.overtaken[status])


class Connection:
    """A minimal, fast HTTP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, url: str) -> "Connection":
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port))

    async def ask(self, request: bytes) -> Answer:
        """Send a request and return the response. Raise OSError or EOFError where the connection ends."""
        started = time.perf_counter()
        self._writer.write(request)
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(lines[0].split()[1]), headers, body, time.perf_counter() - started)

    def close(self) -> None:
        self._writer.close()


def written(target: str, token: str | None = None, method: str = "GET") -> bytes:
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"{method} {target} HTTP/1.1\r\nHost: gateway\r\n{authorization}\r\n".encode()


async def press(
    url: str, request: bytes, connections: int, seconds: float, check: Callable[[Answer], str | None] = lambda _: None
) -> Tally:
    """Send requests on each of the connections, one after the other. `check` returns a fault of a response, or None."""
    tally = Tally()
    deadline = time.monotonic() + seconds

    async def one() -> None:
        connection = await Connection.to(url)
        try:
            while time.monotonic() < deadline:
                before = tally.statuses
                answer = await connection.ask(request)
                others = len(tally.seconds[answer.status]) - before.get(answer.status, 0)
                tally.overtaken[answer.status].append(others)
                tally.seconds[answer.status].append(answer.seconds)
                if (odd := check(answer)) is not None:
                    tally.odd.append(odd)
        finally:
            connection.close()

    await asyncio.gather(*[one() for _ in range(connections)])
    return tally


async def beside(
    work: Awaitable[Any], url: str, request: bytes, pause: float = 0.05
) -> tuple[Any, list[tuple[int, float]]]:
    """Await `work` while repeating a request. Return its result, and the status and seconds of each request."""
    seen: list[tuple[int, float]] = []
    done = asyncio.Event()

    async def look() -> None:
        connection = await Connection.to(url)
        while not done.is_set():
            answer = await connection.ask(request)
            seen.append((answer.status, answer.seconds))
            await asyncio.sleep(pause)
        connection.close()

    looking = asyncio.create_task(look())
    try:
        result = await work
    finally:
        done.set()
        await looking
    return result, seen


@dataclass(frozen=True)
class Footprint:
    """The resources of a process."""

    rss: int
    """Bytes of memory."""
    threads: int
    files: int
    cpu: float = 0.0
    """Seconds of processor time."""

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        """Measure a process (Linux only)."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        ticks = map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])
        cpu = sum(ticks) / os.sysconf("SC_CLK_TCK")
        return cls(int(status["VmRSS"].split()[0]) * 1024, int(status["Threads"]), files, cpu)


def slope(values: list[float]) -> float:
    """Return the slope per step by Theil and Sen: the median over all pairs, robust against outliers."""
    pairs = [(values[j] - values[i]) / (j - i) for i in range(len(values)) for j in range(i + 1, len(values))]
    return statistics.median(pairs) if pairs else 0.0
