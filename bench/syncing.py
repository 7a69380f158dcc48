"""Syncs run by real workers, timed from the request to the success."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import process
from sqlalchemy import make_url

from product_gateway.db import merchants, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType, Sync, SyncStatus

PATIENCE = 1800.0
PAGE_SIZE = "500"
LOG = "worker.log"


@contextmanager
def worker(url: str, folder: Path, **settings: str) -> Iterator[int]:
    """Run `product-gateway worker` on all cores; yield its process id when it waits for syncs."""
    made = {
        "data_dir": str(folder),
        "database_url": url,
        "operations_port": "0",
        "allow_private_addresses": "true",
        "worker_poll_seconds": "0.05",
        "page_size": PAGE_SIZE,
        "max_page_size": PAGE_SIZE,
        **settings,
    }
    environment = {f"PRODUCT_GATEWAY_{name.upper()}": value for name, value in made.items()}
    log = folder / LOG
    with process([sys.executable, "-m", "product_gateway", "worker"], environment, log, core=None) as pid:
        deadline = time.monotonic() + 60
        while "waiting for syncs" not in log.read_text():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the worker did not start: {log.read_text()}")
            time.sleep(0.05)
        yield pid


def register(database: Database, name: str, address: str) -> None:
    """Add or update a merchant with that product service."""
    if database.call(merchants.find, name) is None:
        database.call(merchants.add, name, Platform.BYOP, address)
    else:
        database.call(merchants.update_merchant, name, product_service_url=address)


def timed(database: Database, merchant: str, entity_type: EntityType = EntityType.PRODUCT) -> tuple[float, Sync]:
    """Return the seconds of a sync, and the sync. Raises RuntimeError if it did not succeed."""
    started = time.perf_counter()
    sync = database.call(enqueue, merchant, entity_type)
    while sync.is_active:
        time.sleep(0.05)  # more often would take time from the worker that is measured
        with database.engine.connect() as connection:  # without a write lock, as clients read it
            sync = syncs.get(connection, merchant, sync.id)
        if time.perf_counter() - started > PATIENCE:
            raise RuntimeError(f"the sync does not end: {sync}")
    seconds = time.perf_counter() - started
    if sync.status is not SyncStatus.SUCCEEDED:
        raise RuntimeError(f"the sync failed: {sync}")
    return seconds, sync


def printed_seconds(script: str, *arguments: str) -> tuple[float, float]:
    """Run a peer in its own process; return the wall-clock and CPU seconds that it prints."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=dict(os.environ))
    if done.returncode != 0:
        raise RuntimeError(f"{script}: {done.stderr[-2000:]}")
    clock, used = done.stdout.split()[-2:]
    return float(clock), float(used)


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = sum(int(each) for each in fields[11:15]) / os.sysconf("SC_CLK_TCK")  # with children that are gone
    return ended + sum(cpu_of(int(each)) for each in children)


def postmaster(url: str) -> int:
    """Return the id of the server's first process."""
    folder = Path(str(make_url(url).query["host"]))
    return int((folder / "postmaster.pid").read_text().split()[0])
