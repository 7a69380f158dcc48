"""Many connections that ask again as soon as they are answered, and what a process has of memory, threads and files."""

import asyncio
import collections
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 60
"""Seconds after which an answer counts as never coming."""


@dataclass(frozen=True)
class Answer:
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def error(self) -> dict[str, str]:
        """The one error of the contract's body."""
        (found,) = json.loads(self.body)["error"]
        return dict(found)


@dataclass
class Tally:
    """What many connections were answered."""

    seconds: dict[int, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    odd: list[str] = field(default_factory=list)  # what no answer may be

    @property
    def statuses(self) -> dict[int, int]:
        """How many answers of each status."""
        return {status: len(each) for status, each in sorted(self.seconds.items())}

    def latency(self, status: int, part: float = 0.5) -> float:
        """In seconds: the median, or the one that so large a part of the answers stays below."""
        taken = sorted(self.seconds[status])
        return taken[min(int(len(taken) * part), len(taken) - 1)]


class Connection:
    """One connection, as quick as Python can be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, url: str) -> "Connection":
        """A new one."""
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port))

    async def ask(self, request: bytes) -> Answer:
        """Sends, and waits for the answer. Raises OSError or EOFError where the connection ends."""
        started = time.perf_counter()
        self._writer.write(request)
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(lines[0].split()[1]), headers, body, time.perf_counter() - started)

    def close(self) -> None:
        """Lets go."""
        self._writer.close()


def written(target: str, token: str | None = None, method: str = "GET") -> bytes:
    """A request."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"{method} {target} HTTP/1.1\r\nHost: gateway\r\n{authorization}\r\n".encode()


async def press(
    url: str, request: bytes, connections: int, seconds: float, check: Callable[[Answer], str | None] = lambda _: None
) -> Tally:
    """So many connections, each with one request under way at a time; `check` says what is odd about an answer."""
    tally = Tally()
    deadline = time.monotonic() + seconds

    async def one() -> None:
        connection = await Connection.to(url)
        try:
            while time.monotonic() < deadline:
                answer = await connection.ask(request)
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
    """What `work` brings, and status and seconds of one more request again and again meanwhile."""
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
    """What a process has."""

    rss: int
    """Bytes of memory."""
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        """Now (Linux only)."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return cls(int(status["VmRSS"].split()[0]) * 1024, int(status["Threads"]), files)


def slope(values: list[float]) -> float:
    """How much one more step adds: the median of the slopes of all pairs (Theil and Sen), which outliers don't move."""
    pairs = [(values[j] - values[i]) / (j - i) for i in range(len(values)) for j in range(i + 1, len(values))]
    return statistics.median(pairs) if pairs else 0.0
