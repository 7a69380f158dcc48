"""A product service with minimal cost: pages encoded in advance, served by a plain asyncio protocol.

    /{records}/{changed}/{anything}/products?page_size=500&cursor=500

One process serves merchants of any size. `changed` is the percentage of records that differ from `changed` = 0.

"""

import argparse
import asyncio
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

PAGES_KEPT = 1500
PRODUCTS_IN_A_COLLECTION = 20
DESCRIPTION = (
    "Woven in small numbers from combed cotton, washed before it is cut, and sewn with a seam that is meant to be "
    "opened again: what is worn out can be mended. Made to order, so that nothing is left over at the end of a season."
)


def product(number: int, changed: int) -> dict[str, object]:
    """Return a product of about 600 bytes."""
    price = 1000 + number % 9000 + (1 if number % 100 < changed else 0)
    return {
        "id": f"prod-{number:08d}",
        "title": f"Overshirt no. {number}, straight cut",
        "description": DESCRIPTION,
        "thumbnail": {
            "url": f"https://cdn.shop.example/images/{number:08d}/front.jpg",
            "altText": "Seen from the front",
        },
        "listPrice": price,
        "sku": f"OV-{number:08d}",
        "createdAt": "2024-03-01T08:30:00Z",
        "updatedAt": "2025-09-17T16:45:12Z",
        "meta": {"vendor": "Mill & Thread", "season": "AW", "weightGrams": 480 + number % 60},
    }


def collection(number: int, changed: int) -> dict[str, object]:
    """Return a collection with its products."""
    first = number * PRODUCTS_IN_A_COLLECTION
    return {
        "id": f"coll-{number:08d}",
        "title": f"Collection no. {number}",
        "description": DESCRIPTION + (" New." if number % 100 < changed else ""),
        "createdAt": "2024-03-01T08:30:00Z",
        "updatedAt": "2025-09-17T16:45:12Z",
        "products": [product(each, 0) for each in range(first, first + PRODUCTS_IN_A_COLLECTION)],
        "meta": {"season": "AW"},
    }


KINDS = {"products": product, "collections": collection}


@functools.lru_cache(PAGES_KEPT)
def page(kind: str, records: int, changed: int, start: int, size: int) -> bytes:
    """Return a complete HTTP response."""
    end = min(records, start + size)
    paging: dict[str, object] = {"moreResults": end < records, "totalNumber": records}
    if end < records:
        paging["nextCursor"] = str(end)
    body = orjson.dumps({"items": [KINDS[kind](each, changed) for each in range(start, end)], "pagination": paging})
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def answer(target: str) -> bytes:
    """Return the response to a request's target."""
    parts = urlsplit(target)
    path = parts.path.strip("/").split("/")
    query = parse_qs(parts.query)
    start, size = int(query.get("cursor", ["0"])[0]), int(query.get("page_size", ["250"])[0])
    return page(path[-1], int(path[0]), int(path[1]), start, size)


class Connection(asyncio.Protocol):
    """Answers requests without bodies, one after the other."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._read = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remembers where to write to."""
        self._transport: Any = transport  # not one of asyncio's own: uvloop has another

    def data_received(self, data: bytes) -> None:
        """Answer each complete request after the delay."""
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            target = self._read[: self._read.index(b"\r\n")].split(b" ")[1].decode()
            del self._read[: end + 4]
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._write, target)
            else:
                self._write(target)

    def _write(self, target: str) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer(target))


async def serve(delay: float) -> None:
    """Print the port, and serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(delay), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def running(delay: float = 0.0) -> Iterator[str]:
    """Run the service in its own process; yield its address."""
    command = [sys.executable, str(Path(__file__)), "--delay", str(delay)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    import uvloop

    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)
    uvloop.run(serve(parser.parse_args().delay))
