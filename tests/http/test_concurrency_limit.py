"""Overload and shutdown: accepted requests are answered in time, others are refused, and no request is lost."""

import asyncio
import itertools
import json
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from product_gateway.db import catalog_write, claims, generations
from product_gateway.db.database import open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.catalog import Page, Record
from product_gateway.model.syncs import EntityType
from tests.support.contract import Gateway
from tests.support.deployment import API, Deployment, Process, within
from tests.support.load import Answer, Footprint, Tally, beside, press, written
from tests.support.metrics_scrape import Scrape

AT_ONCE, CONNECTIONS = 8, 200
PRODUCT = EntityType.PRODUCT


@pytest.fixture
def deployment(sqlite_template: Path, tmp_path: Path) -> Deployment:
    """A gateway with a small concurrency limit."""
    shutil.copy(sqlite_template, tmp_path / "gateway.db")
    return Deployment(
        tmp_path, f"sqlite:///{tmp_path / 'gateway.db'}", requests_at_once=str(AT_ONCE), access_log="false"
    )


@pytest.fixture
def process(deployment: Deployment) -> Iterator[Process]:
    """The gateway's process."""
    with deployment.process("serve", "--port", "0") as process:
        yield process


@pytest.fixture
def served(deployment: Deployment, process: Process) -> Gateway:
    """A gateway with the merchant `shop`, which has 500 products."""
    served = Gateway(deployment, process.url())
    served.add("shop")
    records = tuple(Record(f"r{n:03}", json.dumps({"id": f"r{n:03}", "title": "t" * 300})) for n in range(500))
    with open_database(deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]) as database:
        database.call(enqueue, "shop", PRODUCT)
        claim = database.call(claims.claim, "tester", 30.0, 5, 2)
        assert claim is not None
        database.call(catalog_write.write_page, claim, Page(records, (), None, None), 30.0)
        database.call(generations.succeed, claim)
    return served


def odd(answer: Answer) -> str | None:
    """Return what is wrong with a response under load, or None."""
    if answer.status == 200:
        return None if len(json.loads(answer.body)["data"]) == 100 else "a page that is not whole"
    wanted = ("503", "Service Unavailable", "The gateway has more requests than it can serve at the moment.")
    said = answer.error
    if answer.status != 503 or (said["status"], said["title"], said["detail"]) != wanted:
        return f"{answer.status}: {said}"
    if answer.headers.get("retry-after") != "1" or answer.headers.get("x-content-type-options") != "nosniff":
        return f"a 503 with the headers {answer.headers}"
    return None


def test_overload_is_refused_while_accepted_requests_stay_fast(served: Gateway, process: Process) -> None:
    """200 clients without back-off compete for 8 slots: a queue would make every request late.

    Counts and the server's processor time are compared, because times depend on the other load of the machine.
    """
    request = written(f"{API}/products?page_size=100", served.token("shop"))

    async def phases() -> tuple[list[Tally], list[tuple[int, float]], list[Footprint]]:
        await press(served.url, request, CONNECTIONS, 1)
        footprints = [Footprint.of(process.pid)]
        full = await press(served.url, request, AT_ONCE, 1.5)
        footprints.append(Footprint.of(process.pid))
        high, live = await beside(press(served.url, request, CONNECTIONS, 4, odd), served.url, written("/health/live"))
        footprints.append(Footprint.of(process.pid))
        after = await press(served.url, request, AT_ONCE, 1.5)
        return [full, high, after], live, [*footprints, Footprint.of(process.pid)]

    (full, high, after), live, footprints = asyncio.run(phases())
    seen = f"full: {full.statuses}; high: {high.statuses}; after: {after.statuses}"
    assert high.odd == [], high.odd[:5]
    assert high.statuses.keys() == {200, 503}, seen
    assert high.statuses[503] > 100, f"most of the connections must be refused: {seen}"
    waited = high.median_overtaken(200)
    assert waited < CONNECTIONS / 4, f"accepted requests wait for {waited} others, as in a queue of all: {seen}"
    calm, busy, later = (end.cpu - start.cpu for start, end in itertools.pairwise(footprints))
    accepted = calm / full.statuses[200]
    refused = (busy - high.statuses[200] * accepted) / high.statuses[503]
    assert refused < accepted, f"refusals slow down accepted requests: {seen}"
    assert {status for status, _ in live} == {200}, "health must answer all the while"
    assert max(seconds for _, seconds in live) < 5
    assert len(live) > 10
    assert after.statuses.keys() == full.statuses.keys() == {200}, f"eight must have room: {after.statuses}"
    assert later / after.statuses[200] < 2 * accepted, f"requests cost more afterwards: {seen}"
    first, last = footprints[0], footprints[-1]
    assert last.threads <= first.threads + 8, "the database may have got all of its threads by now, no more"
    within(10, lambda: Footprint.of(process.pid).files <= first.files + CONNECTIONS // 4)
    assert last.rss < first.rss + 32 * 1024 * 1024, f"memory grew from {first.rss} to {last.rss} bytes"
    assert "Traceback" not in process.log.read_text()


def test_a_slot_is_released_however_its_request_ends(served: Gateway) -> None:
    """A slot that leaks after a disconnect, an error or a refusal is lost for ever."""
    token = served.token("shop")

    async def go_away() -> None:
        for _ in range(20):
            writers = []
            for _ in range(AT_ONCE):
                address = served.url.removeprefix("http://").split(":")
                _, writer = await asyncio.open_connection(address[0], int(address[1]))
                writer.write(written(f"{API}/products?page_size=500", token))
                await writer.drain()
                writers.append(writer)
            for writer in writers:
                writer.transport.abort()

    asyncio.run(go_away())
    with served.of("shop") as client, served.client("garbage") as stranger:
        for _ in range(3 * AT_ONCE):
            assert stranger.get(f"{API}/products").status_code in (401, 503)
            assert client.get(f"{API}/products?page_size=0").status_code in (400, 503)
    request = written(f"{API}/products?page_size=100", token)

    def all_have_room() -> bool:
        return asyncio.run(press(served.url, request, AT_ONCE, 0.5)).statuses.keys() == {200}

    within(20, all_have_room)


def test_shutdown_finishes_running_requests_and_accepts_no_new_ones(
    served: Gateway, process: Process, deployment: Deployment
) -> None:
    """PUTs that wait for a locked database get 202 and are stored; the process exits with 0 within ten seconds."""
    for n in range(5):
        served.add(f"shop{n}")
    path = deployment.folder / "gateway.db"
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    answers: list[httpx2.Response] = []
    clients = [served.of(f"shop{n}") for n in range(5)]

    def put(client: httpx2.Client) -> None:
        answers.append(client.put(f"{API}/sync/PRODUCT"))

    for client in clients:
        client.get("/health/live")  # so that the connection is there
    threads = [threading.Thread(target=put, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    operations = process.operations_url()
    within(20, lambda: Scrape(operations).total("requests_in_flight") == len(clients))
    assert answers == [], "they must be waiting, or this proves nothing"
    started = time.monotonic()
    process.send(signal.SIGTERM)
    within(5, lambda: is_refused(served.url))
    assert process.status() is None
    lock.execute("ROLLBACK")
    lock.close()
    for thread in threads:
        thread.join(10)
    assert process.wait() == 0
    assert time.monotonic() - started < 10
    assert [answer.status_code for answer in answers] == [202] * 5, [answer.text for answer in answers]
    assert "Traceback" not in process.log.read_text()
    for client in clients:
        client.close()
    with closing(sqlite3.connect(path)) as connection:
        kept = connection.execute("SELECT count(*) FROM syncs WHERE status = 'QUEUED'").fetchone()
    assert kept == (5,)


def is_refused(url: str) -> bool:
    """Return whether a new connection is refused."""
    try:
        httpx2.get(f"{url}/health/live", timeout=2)
    except httpx2.TransportError:
        return True
    return False
