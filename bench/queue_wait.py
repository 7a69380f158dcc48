"""How long a sync waits in the queue of idle workers: from its PUT to IN_PROGRESS, by the database's clock."""

import random
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import httpx2
import page_service
from rounds import ROUNDS, Row, Section
from servers import client_of, free_port, gateway, serving
from stores import store
from syncing import PATIENCE, register, worker

from product_gateway.db.database import open_database

SYNCS = 60  # in a round, one after the other
LONGEST_PAUSE = 0.5  # between two of them: the time between two looks of an idle worker
SYNC = "/product-gateway/v1/sync/PRODUCT"


def run() -> Section:
    """Measure the 95th percentile in milliseconds."""
    cases = {
        ("sqlite", True): ("SQLite, a worker in the same process", 20),
        ("postgresql", True): ("PostgreSQL, a worker in the same process", 20),
        ("postgresql", False): ("PostgreSQL, a worker in another process", 50),
    }
    found: dict[tuple[str, bool], list[float]] = {case: [] for case in cases}
    with page_service.running() as service:
        for _ in range(ROUNDS):
            for case in cases:
                waits = sorted(waits_of(*case, service))
                found[case].append(waits[int(len(waits) * 0.95)] * 1000)
    rows = [
        Row(f"{what}: PUT to IN_PROGRESS, p95", found[case], at_most_ms, None, at_most=True, unit="ms")
        for case, (what, at_most_ms) in cases.items()
    ]
    said = f"{SYNCS} syncs in each round, with random pauses. `worker_poll_seconds` is 0.5, its default."
    return Section("queue_wait", "The wait in the queue", rows, said=[said])


def waits_of(dialect: str, same_process: bool, service: str) -> list[float]:
    """Return the seconds that each sync was queued."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(store(dialect))
        with open_database(url) as database:
            register(database, "shop", f"{service}/50/0/shop")
        command, environment = gateway(url, folder, port=(port := free_port()))
        if same_process:
            command = [*command, "--with-worker"]
        server = stack.enter_context(serving(command, environment, folder / "log", port))
        if not same_process:
            stack.enter_context(worker(url, folder, worker_poll_seconds="0.5"))
        client = stack.enter_context(client_of(server, folder))
        time.sleep(1)  # the worker listens
        return [_wait_of(client) for _ in range(SYNCS)]


def _wait_of(client: httpx2.Client) -> float:
    time.sleep(random.uniform(0, LONGEST_PAUSE))
    place = client.put(SYNC).raise_for_status().headers["Location"]
    deadline = time.monotonic() + PATIENCE
    while True:
        sync = client.get(place, headers={"Prefer": "wait=20"}).json()["data"]
        if sync["finishedAt"]:
            moments = [datetime.fromisoformat(sync[name]) for name in ("queuedAt", "startedAt")]
            return (moments[1] - moments[0]).total_seconds()
        if time.monotonic() > deadline:
            raise RuntimeError(f"the sync does not end: {sync}")
