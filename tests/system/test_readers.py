"""Many concurrent readers while syncs run: each list, read page by page, is of one generation.

READERS and READ_RECORDS set the numbers of readers and of records; `make replica` has 1,000 readers of 100,000 records.
"""

import asyncio
import os
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import httpx2
import orjson

from product_gateway.db import claims, merchants
from product_gateway.db.database import Database, open_database
from product_gateway.model.catalog import Page, Record
from product_gateway.model.merchants import Platform
from tests.support.deployment import API, Deployment
from tests.support.pulls import pull, started, write

READERS = int(os.environ.get("READERS") or 200)
RECORDS = int(os.environ.get("READ_RECORDS") or 600)
CONNECTIONS = 200  # fewer than a server's concurrent requests
PAGE_SIZE = 200 if RECORDS < 10_000 else 500
PAUSE = 0.1  # seconds between two syncs
OVERLOADED = 503
SETTINGS = {"log_level": "WARNING", "requests_at_once": "1000"}
PATIENCE = 60 + RECORDS / 50


class Writer(threading.Thread):
    """Runs syncs until told to stop, each with all records in the edition of its generation; every third sync fails."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="writer")
        self.generation = 0
        self.failed = 0
        self.error: BaseException | None = None
        self._database = database
        self._told_to_stop = threading.Event()

    def sync(self) -> None:
        """Publish the next generation. All ids change with each generation except the first half."""
        pull(self._database, *self._pages(self.generation + 1), step=500)
        self.generation += 1

    def run(self) -> None:
        """Run one sync after the other."""
        try:
            while not self._told_to_stop.wait(PAUSE):
                if self.generation % 3 == 2:
                    self._fail()
                self.sync()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.error = error

    def stop(self) -> None:
        """Stop after the current sync."""
        self._told_to_stop.set()
        self.join()
        if self.error is not None:
            raise self.error

    def _fail(self) -> None:
        claim = started(self._database)
        write(self._database, claim, *self._pages(-1)[:-1], step=500)
        self._database.call(claims.fail, claim, "INVALID_PAGE", "No JSON.")
        self.failed += 1

    def _pages(self, edition: int) -> list[Page]:
        document = '{"id":"%s","title":"%s","edition":' + str(edition) + "}"
        half = RECORDS // 2
        ids = [f"{n:06}" for n in range(half)] + [f"{n:06}-{edition % 2}" for n in range(half, RECORDS)]
        records = [Record(each, document % (each, each)) for each in ids]
        return [
            Page(tuple(records[at : at + 500]), (), str(at) if at + 500 < RECORDS else None, None)
            for at in range(0, RECORDS, 500)
        ]


async def read_list(client: httpx2.AsyncClient, busy: Counter[str]) -> int:
    """Read one list page by page; check that it is whole and of one generation. Return the generation."""
    query = {"page_size": str(PAGE_SIZE)}
    editions: Counter[tuple[int, int]] = Counter()
    number, last = 0, ""  # not all ids: a thousand readers would need gigabytes
    while True:
        answer = await client.get(f"{API}/products", params=query)
        if answer.status_code == OVERLOADED:
            busy["503"] += 1
            await asyncio.sleep(1)
            continue
        assert answer.status_code == 200, answer.text
        body = orjson.loads(answer.content)
        editions.update((body["meta"]["generation"], each["edition"]) for each in body["data"])
        ids = [last, *(each["id"] for each in body["data"])]
        assert all(before < after for before, after in pairwise(ids))
        number, last = number + len(body["data"]), ids[-1]
        if "nextCursor" not in body["meta"]:
            break
        query["cursor"] = body["meta"]["nextCursor"]
    [(generation, edition)] = editions  # the edition is the generation that wrote it
    assert generation == edition
    assert number == RECORDS
    return generation


async def read_all(url: str, token: str) -> tuple[Counter[int], Counter[str]]:
    """Let all readers read at once. Return the generations that they read, and how many requests were too many."""
    busy: Counter[str] = Counter()
    limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=PATIENCE) as client:
        found = await asyncio.gather(*(read_list(client, busy) for _ in range(READERS)))
    return Counter(found), busy


def test_lists_are_of_one_generation_while_syncs_run(database_url: str, tmp_path: Path) -> None:
    """Every reader gets one whole catalog, though each sync rewrites all records and every third one fails."""
    deployment = Deployment(tmp_path, database_url, **SETTINGS)
    with open_database(database_url) as database, deployment.serving() as url:
        database.call(merchants.add, "shop", Platform.BYOP, "https://shop.example")
        writer = Writer(database)
        writer.sync()
        token = deployment.token("shop", "--expires", "7d")
        writer.start()
        began = time.monotonic()
        try:
            found, busy = asyncio.run(read_all(url, token))
        finally:
            seconds = time.monotonic() - began
            writer.stop()
    assert sum(found.values()) == READERS
    assert writer.generation > 1
    print(
        f"{READERS} readers of {RECORDS} records in {seconds:.0f} s over {CONNECTIONS} connections: generations "
        f"{min(found)} to {max(found)}, {writer.generation} published, {writer.failed} failed syncs, {dict(busy)}"
    )
