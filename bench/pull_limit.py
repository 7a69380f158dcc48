"""The limit of the pull: what an HTTP client in C, msgspec and the driver's bulk path do when nothing is checked.

A page and its cursor are written in one transaction, as durable as the gateway's, while the next page is fetched. There
is no check of the claim, no comparison with stored records, and no removal. Prints the wall-clock and CPU seconds.
"""

import asyncio
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import psycopg

TABLE = "products"
CREATE = f"CREATE TABLE {TABLE} (id text PRIMARY KEY, document text NOT NULL)"


class Product(msgspec.Struct, omit_defaults=True):
    id: str
    title: str
    description: str | None = None
    thumbnail: Any = None
    listPrice: int | None = None  # noqa: N815
    sku: str | None = None
    createdAt: str | None = None  # noqa: N815
    updatedAt: str | None = None  # noqa: N815
    meta: Any = None


class Pagination(msgspec.Struct):
    nextCursor: str | None = None  # noqa: N815


class Page(msgspec.Struct):
    items: list[Product]
    pagination: Pagination


Rows = list[tuple[str, str]]
Write = Callable[[Rows, str | None], None]


def to_sqlite(path: str) -> Write:
    """Return a writer of pages for SQLite."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", f"{CREATE} WITHOUT ROWID"):
        connection.execute(statement)
    connection.execute("CREATE TABLE progress (cursor text)")
    connection.execute("INSERT INTO progress VALUES (NULL)")

    def write(rows: Rows, cursor: str | None) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            f"INSERT INTO {TABLE} VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET document = excluded.document", rows
        )
        connection.execute("UPDATE progress SET cursor = ?", (cursor,))
        connection.execute("COMMIT")

    return write


def to_postgresql(url: str) -> Write:
    """Return a writer of pages for PostgreSQL: COPY into a temporary table, then insert from it."""
    connection = psycopg.connect(url, autocommit=True)
    for statement in (CREATE, f"CREATE TEMPORARY TABLE page (LIKE {TABLE}) ON COMMIT DELETE ROWS"):
        connection.execute(statement)
    connection.execute("CREATE TABLE progress (cursor text)")
    connection.execute("INSERT INTO progress VALUES (NULL)")

    def write(rows: Rows, cursor: str | None) -> None:
        with connection.transaction(), connection.cursor() as work:
            with work.copy("COPY page FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            work.execute(
                f"INSERT INTO {TABLE} SELECT * FROM page ON CONFLICT (id) DO UPDATE SET document = excluded.document"
            )
            work.execute("UPDATE progress SET cursor = %s", (cursor,))

    return write


async def pull(service: str, page_size: str, write: Write) -> None:
    """Read and write all pages."""
    decode, encode = msgspec.json.Decoder(Page).decode, msgspec.json.Encoder().encode
    async with aiohttp.ClientSession() as session:

        async def fetch(cursor: str | None) -> bytes:
            query = {"page_size": page_size} | ({"cursor": cursor} if cursor else {})
            async with session.get(f"{service}/products", params=query) as answer:
                return await answer.read()

        coming: asyncio.Task[bytes] | None = asyncio.create_task(fetch(None))
        written: asyncio.Future[None] | None = None
        while coming is not None:
            page = decode(await coming)
            cursor = page.pagination.nextCursor
            coming = asyncio.create_task(fetch(cursor)) if cursor else None
            rows = [(each.id, encode(each).decode()) for each in page.items]
            if written is not None:
                await written
            written = asyncio.get_running_loop().run_in_executor(None, write, rows, cursor)
        if written is not None:
            await written


def main(database: str, service: str, page_size: str) -> None:
    """Pull a merchant's products."""
    to_file = database.startswith("sqlite:///")
    write = to_sqlite(database.removeprefix("sqlite:///")) if to_file else to_postgresql(database)
    started, used = time.perf_counter(), time.process_time()
    asyncio.run(pull(service, page_size, write))
    print(time.perf_counter() - started, time.process_time() - used)


if __name__ == "__main__":
    main(*sys.argv[1:])
