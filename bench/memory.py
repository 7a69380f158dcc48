"""The peak memory of a worker, by the number of a merchant's products."""

import os
import tempfile
from pathlib import Path

import page_service
from rounds import Row, Section
from stores import DIALECTS, NAMES, store
from syncing import register, timed, worker

from product_gateway.db.database import open_database

FEW = 10_000
WANTED = 1_000_000  # what the targets are about: with fewer there is no verdict
MANY = int(os.environ.get("BENCH_MANY_RECORDS", WANTED))
TARGETS = (30, 10) if MANY >= WANTED else (None, None)


def run() -> Section:
    """Measure once per database: memory does not depend on the load of the machine."""
    rows = []
    peaks = []
    with page_service.running() as service:
        for dialect in DIALECTS:
            few, many = (peak_megabytes(dialect, service, records) for records in (FEW, MANY))
            peaks.append(f"{NAMES[dialect]} {few:.0f} and {many:.0f} MB")
            what = f"{NAMES[dialect]}: worker at {MANY:,} products, above {FEW:,}"
            rows.append(Row(what, [many - few], *TARGETS, at_most=True, unit="MB"))
    said = "The largest resident set (VmHWM) of a worker process that ran one first sync: " + "; ".join(peaks) + "."
    return Section("memory", "A worker's memory", rows, said=[said])


def peak_megabytes(dialect: str, service: str, records: int) -> float:
    """Return the peak memory of a worker that has run one sync of `records` products."""
    with tempfile.TemporaryDirectory() as folder, store(dialect) as url, worker(url, Path(folder)) as pid:
        with open_database(url) as database:
            register(database, "shop", f"{service}/{records}/0/shop")
            _, sync = timed(database, "shop")
            if sync.counts.created != records:
                raise RuntimeError(f"not all records came: {sync}")
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
