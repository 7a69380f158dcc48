"""The throughput of two, four and eight workers compared with one, with slow product services."""

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import page_service
from rounds import ROUNDS, Chart, Section, Values, row
from stores import store
from syncing import PATIENCE, register, worker

from product_gateway.db import syncs
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.syncs import EntityType, SyncStatus

MERCHANTS = int(os.environ.get("BENCH_MERCHANTS", "200"))
RECORDS = 500  # of each merchant, in pages of 100
DELAY = 0.05
WORKERS = [1, 2, 4, 8]


def run() -> Section:
    """Measure on PostgreSQL, the database for several workers."""
    found: Values = {str(count): [] for count in WORKERS}
    with page_service.running(DELAY) as service:
        for _ in range(ROUNDS):
            for count in WORKERS:
                found[str(count)].append(MERCHANTS / seconds(count, service))
    rates = [sorted(found[str(count)])[ROUNDS // 2] for count in WORKERS]
    ideal = [rates[0] * count for count in WORKERS]
    title = f"{MERCHANTS} merchants of {RECORDS} products, every page {DELAY * 1000:.0f} ms away"
    return Section(
        "workers",
        "Workers",
        [row(f"PostgreSQL: {count} workers against one", found[str(count)], found["1"]) for count in WORKERS[1:]],
        [Chart(title, "syncs/s", {"": {"workers": rates, "linear": ideal}}, x=[float(count) for count in WORKERS])],
        [
            "A worker runs four syncs at a time (PRODUCT_GATEWAY_WORKER_CONCURRENCY). All of it shares the cores of "
            "one machine: workers, database and product service."
        ],
    )


def seconds(count: int, service: str) -> float:
    """Return the seconds from the start of the workers, with all syncs queued, to the last success."""
    names = [f"shop{number:04d}" for number in range(MERCHANTS)]
    with store("postgresql") as url, open_database(url) as database, ExitStack() as running:
        for name in names:
            register(database, name, f"{service}/{RECORDS}/0/{name}")
        for _ in range(count):
            folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
            running.enter_context(worker(url, folder, page_size="100", max_page_size="100", worker_poll_seconds="0.1"))
        started = time.perf_counter()
        for name in names:
            database.call(enqueue, name, EntityType.PRODUCT)
        while database.call(syncs.active):
            time.sleep(0.05)
            if time.perf_counter() - started > PATIENCE:
                raise RuntimeError(f"{count} workers do not come to an end")
        took = time.perf_counter() - started
        _check(database, names)
    return took


def _check(database: Database, names: list[str]) -> None:
    for name in names:
        sync = database.call(syncs.latest, name, EntityType.PRODUCT)
        if sync is None or sync.status is not SyncStatus.SUCCEEDED or sync.counts.created != RECORDS:
            raise RuntimeError(f"{name}: {sync}")
