"""What generations cost: a sync that changes every record, and lists that are read beside a half-written generation."""

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx2
import page_service
from rounds import ROUNDS, Chart, Row, Section, Values, row
from servers import client_of, free_port, gateway, serving
from stores import DIALECTS, NAMES, store
from syncing import PATIENCE, register, timed, worker

from product_gateway.db import syncs
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.syncs import EntityType

RECORDS = int(os.environ.get("BENCH_RECORDS", "50000"))
DELAY = 0.02  # seconds for a page of the sync that is broken off, so that it can be met half-way
PAGE_SIZE = 500  # of a list
FIRST, CHANGED, IDLE, BESIDE = "first sync", "all changed", "lists, no sync", "lists, half-written"


def run() -> Section:
    """Return records a second, on both databases."""
    rows: list[Row] = []
    charts: dict[str, Values] = {}
    with page_service.running() as service, page_service.running(DELAY) as slow_service:
        for dialect in DIALECTS:
            found: Values = {}
            for _ in range(ROUNDS):
                for what, rate in one_round(dialect, service, slow_service).items():
                    found.setdefault(what, []).append(rate)
            charts[NAMES[dialect]] = found
            rows += [
                row(
                    f"{NAMES[dialect]}: all records changed, against the first sync", found[CHANGED], found[FIRST], 0.5
                ),
                row(f"{NAMES[dialect]}: lists beside a half-written generation", found[BESIDE], found[IDLE], 0.5),
            ]
    said = (
        f"A list is read page by page, {PAGE_SIZE} records each, by one client over HTTP. For the half-written "
        "generation, a worker is killed in the middle of a sync that changes all records."
    )
    charted = Chart(f"{RECORDS:,} products of 600 bytes", "records/s", charts)
    return Section("generations", "Generations of the catalog", rows, [charted], [said])


def one_round(dialect: str, service: str, slow_service: str) -> dict[str, float]:
    """Sync, change all records, and read them with and without a half-written generation."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(store(dialect))
        database = stack.enter_context(open_database(url))
        found = {}
        with worker(url, folder):
            for what, changed in ((FIRST, 0), (CHANGED, 100)):
                register(database, "shop", f"{service}/{RECORDS}/{changed}/shop")
                found[what] = RECORDS / timed(database, "shop")[0]
        command, environment = gateway(url, folder, port=(port := free_port()))
        server = stack.enter_context(serving(command, environment, folder / "log", port))
        client = stack.enter_context(client_of(server, folder))
        prices_and_rate(client)  # to warm up
        before, found[IDLE] = prices_and_rate(client)
        register(database, "shop", f"{slow_service}/{RECORDS}/0/shop")
        break_off(database, url, folder)
        after, found[BESIDE] = prices_and_rate(client)
        if before != after:
            raise RuntimeError("readers see a half-written generation")
        return found


def prices_and_rate(client: httpx2.Client) -> tuple[list[int], float]:
    """Read all products, and return their prices and the records per second."""
    prices: list[int] = []
    query: dict[str, str] = {"page_size": str(PAGE_SIZE)}
    started = time.perf_counter()
    while True:
        page = client.get("/product-gateway/v1/products", params=query).raise_for_status().json()
        prices += [each["listPrice"] for each in page["data"]]
        if "nextCursor" not in page["meta"]:
            break
        query["cursor"] = page["meta"]["nextCursor"]
    rate = len(prices) / (time.perf_counter() - started)
    if len(prices) != RECORDS:
        raise RuntimeError(f"{len(prices)} records were read")
    return prices, rate


def break_off(database: Database, url: str, folder: Path) -> None:
    """Kill a worker when it has written half of a sync."""
    with worker(url, folder) as pid:
        sync = database.call(enqueue, "shop", EntityType.PRODUCT)
        deadline = time.monotonic() + PATIENCE
        while (read := sync.records_read) < RECORDS // 2:
            if not sync.is_active or time.monotonic() > deadline:
                raise RuntimeError(f"the sync cannot be met half-way: {sync}")
            time.sleep(0.02)
            sync = database.call(syncs.get, "shop", sync.id)
        os.kill(pid, 9)
    if read > RECORDS * 0.9:
        raise RuntimeError("the worker was killed too late")
