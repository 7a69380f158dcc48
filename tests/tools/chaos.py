"""`make chaos`: inject faults for a while, then check that nothing was lost.

Two servers, three workers, the database, the product service and the clients are real. Workers are killed, suspended
for longer than a lease, and stopped. PostgreSQL is restarted without warning, and the database raises unexpected
errors. The product service fails, hangs and cuts its responses, and the catalogs change. Clients also revert syncs, and
publish some only after a review. One run uses PostgreSQL, one SQLite.
CHAOS_SECONDS is the time for each, CHAOS_SEED the random seed. With CHAOS_PROCESSES=2 or --processes 2, servers and
workers have several processes, which are killed one by one, too.

Every change of a sync is compared with the model in tests/model_checking. Then processes without HTTP make
CHAOS_TRANSITIONS more changes on each database: see chaos_drive.py.
"""

import argparse
import collections
import contextlib
import functools
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2

from product_gateway.auth import encryption, keys
from product_gateway.db import merchants, migrate
from product_gateway.db.database import open_database
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from tests.model_checking import recorder
from tests.model_checking.conformance import Verdict, judge
from tests.support import databases
from tests.support.deployment import Deployment, within
from tests.support.flaky_service import MoodyService, Shop
from tests.support.serving import serve
from tests.tools.chaos_clients import FINAL, Customer
from tests.tools.chaos_drive import drive
from tests.tools.chaos_faults import LEASE, WORKERS, Faults
from tests.tools.chaos_witness import Witness

POSTGRESQL, SQLITE = "PostgreSQL", "SQLite"
SERVERS, SHOPS, STEADY = 2, 4, 150
SETTINGS = {
    "lease_seconds": str(LEASE),
    "page_size": "20",
    "max_page_size": "20",
    "worker_poll_seconds": "0.1",
    "max_lost_workers": "6",
    "catalog_history_days": str(20 / 86400),  # each worker prunes once it has started
    "log_level": "WARNING",
}
SETTLES_WITHIN = 90
INVARIANTS = (
    "every sync of a 202 is there and has ended",
    "never two active syncs of one merchant and entity type",
    "no sync changes after its end, no cancelled one runs again",
    "tokens only grow, and only after the lease or from the queue",
    "no record is written without a claim",
    "the number of records is exact at every moment",
    "readers see exactly the last published generation, and lists and replicas are each of one generation",
    "records that a shop always had are there from the first success on, each of one edition",
    "a key stands for one sync; after a DELETE a PUT is accepted at once",
    "only responses of the contract; 500 only for injected unexpected database errors",
    "a last sync succeeds, and the catalog equals its source record by record",
    "no id of a pull and nothing unpublished is left behind",
    "every change of a sync and of what is unpublished is a step of the model in tests/model_checking",
)


@dataclass
class Report:
    """The result of a run."""

    seconds: float
    database: str
    processes: int
    syncs: dict[str, int] = field(default_factory=dict)
    takeovers: int = 0
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    figures: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        def line(name: str, values: Any) -> str:
            return f"{name:<22}" + ", ".join(f"{value} {key}" for key, value in sorted(values.items()))

        return "\n".join(
            [
                f"Chaos for {self.seconds:.0f} s on {self.database}: "
                f"{SERVERS} servers, {WORKERS} workers, {SHOPS} merchants; processes of each: {self.processes}",
                line("syncs run", self.syncs),
                line("faults injected", self.faults),
                line("requests answered", self.answers),
                *(f"{name:<22}{value}" for name, value in self.figures.items()),
                f"invariants checked    {len(INVARIANTS)}:",
                *(f"  - {each}" for each in INVARIANTS),
                f"violations            {len(self.violations)}",
                *(f"  ! {each}" for each in self.violations[:50]),
            ]
        )


def chaos(seconds: float, folder: Path, seed: int, database_name: str, processes: int) -> Report:
    """Run chaos on one database, with this number of processes of each server and worker."""
    report = Report(seconds, database_name, processes)
    dice = random.Random(seed)
    shops = [Shop(f"shop{n}", random.Random(seed + n), STEADY) for n in range(SHOPS)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(databases.postgresql_server()) if database_name == POSTGRESQL else None
        url = server.get_uri() if server else f"sqlite:///{folder / 'gateway.db'}"
        deployment = Deployment(folder, url, **SETTINGS)
        address = stack.enter_context(serve(MoodyService(shops)))
        with open_database(url) as database:
            database.call(migrate.upgrade)
            for shop in shops:
                token = encryption.Secrets(deployment.settings()).encrypt("the-merchants-token")
                database.call(merchants.add, shop.name, Platform.BYOP, f"{address}/{shop.name}", token)
        command = ("serve", "--port", "0", "--processes", str(processes))
        servers = [stack.enter_context(deployment.process(*command)) for _ in range(SERVERS)]
        urls = [each.url() for each in servers]
        customers = [
            customer(stack, deployment, urls, shop, random.Random(seed * n)) for n, shop in enumerate(shops, 1)
        ]
        witness = Witness(url)
        recorder.install(url)
        stack.callback(witness.close)
        faults = Faults(deployment, server, shops, dice, servers, processes)
        stack.callback(faults.end)
        for each in customers:
            each.may_be_unexpected = faults.may_be_unexpected
            each.loses_connections = processes > 1
        with at_work([witness]):
            with at_work(customers):
                faults.run(seconds)
                faults.calm()
            settle(customers, witness)
        witness.in_the_end(
            [each for one in customers for each in one.accepted], [each for one in customers for each in one.cancelled]
        )
        for one in customers:
            for (kind, number), records in one.read.items():
                if number and records != witness.generation(one.shop.name, kind, number):
                    witness.violations.append(f"{one.shop.name}: generation {number} of {kind} was published otherwise")
        with open_database(url) as database:
            verdict = database.call(lambda connection: judge(recorder.recorded(connection)))
        report.syncs, report.faults = witness.statuses(), faults.injected
        report.takeovers = witness.takeovers()
        report.answers = sum((each.answers for each in customers), collections.Counter())
        report.figures = {
            "taken over": f"{report.takeovers} times a sync that another worker had lost",
            "pages asked for": sum(sum(shop.requests.values()) for shop in shops),
            "generations read": sum(len(each.read) for each in customers),
            "catalog changes": sum(shop.changes for shop in shops),
            "slowest answer": f"{max(each.slowest for each in customers):.1f} s",
            "changes of syncs": str(verdict),
            "looks at the database": f"{witness.looks}, and {witness.blind} while it was away",
        }
        report.violations = [*faults.died, *witness.violations, *(v for each in customers for v in each.violations)]
        report.violations += verdict.refused
    return report


def customer(
    stack: contextlib.ExitStack, deployment: Deployment, urls: list[str], shop: Shop, dice: random.Random
) -> Customer:
    """Return a client for every server, with the merchant's token."""
    token = keys.issue_token(deployment.settings(), shop.name, list(keys.SCOPES), timedelta(days=1))
    headers = {"Authorization": f"Bearer {token}"}
    clients = [stack.enter_context(httpx2.Client(base_url=url, headers=headers, timeout=30)) for url in urls]
    return Customer(shop, clients, dice)


@contextlib.contextmanager
def at_work(threads: list[Any]) -> Iterator[None]:
    """Run the threads until the block ends."""
    for each in threads:
        each.start()
    try:
        yield
    finally:
        for each in threads:
            each.stop()
        for each in threads:
            each.join()


def settle(customers: list[Customer], witness: Witness) -> None:
    """Let every sync end, then run one more of each kind, so that the catalogs equal their sources."""
    for one in customers:
        for sync_id in one.accepted:
            ended(one, sync_id)
    last = [
        (one, kind, within(SETTLES_WITHIN, functools.partial(one.put, kind)))
        for one in customers
        for kind in EntityType
    ]
    for one, kind, sync_id in last:
        compare(one, kind, ended(one, sync_id))
    if not witness.is_quiet_within(SETTLES_WITHIN):
        witness.violations.append("syncs or ids of pulls are left")


def ended(one: Customer, sync_id: str) -> str:
    """Wait for the end of the sync, and return its status."""
    deadline = time.monotonic() + SETTLES_WITHIN
    while True:
        status = one.check(sync_id)
        if status in FINAL or time.monotonic() > deadline:
            return str(status)
        time.sleep(0.05)


def compare(one: Customer, kind: EntityType, status: str) -> None:
    """Compare the catalog and the number of records with the source."""
    source = [as_published(each) for each in one.shop.records(kind)]
    if status != "SUCCEEDED":
        one.violations.append(f"{one.shop.name}: the last sync of {kind} {status}")
    elif one.read_catalog(kind) != source:
        one.violations.append(f"{one.shop.name}: the catalog of {kind} is not what its source has")
    elif one.read_status(kind) != len(source):
        one.violations.append(f"{one.shop.name}: numRecords of {kind} is not {len(source)}")


def as_published(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of the source in the form of the gateway's list."""
    if "products" not in record:
        return record
    return {**{k: v for k, v in record.items() if k != "products"}, "productCount": len(record["products"])}


def drive_on(database_name: str, folder: Path, transitions: int, seed: int) -> tuple[Verdict, float]:
    """Make transitions without HTTP on a new database. Return what the model says of them, and the seconds."""
    with contextlib.ExitStack() as stack:
        postgresql = stack.enter_context(databases.postgresql()) if database_name == POSTGRESQL else None
        url = postgresql or f"sqlite:///{folder / 'driven.db'}"
        with open_database(url) as database:
            database.call(migrate.upgrade)
        return drive(url, transitions, seed)


def main() -> int:
    """Print the report; exit with 1 on a violation."""
    logging.getLogger("uvicorn.error").disabled = True  # answers that are cut short are meant
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10_000))
    print(f"The dice are CHAOS_SEED={seed}", flush=True)
    parser = argparse.ArgumentParser(description="Inject faults, and check that nothing is lost.")
    several = int(os.environ.get("CHAOS_PROCESSES") or 1)
    parser.add_argument("--processes", type=int, default=several, help="of each server and worker (CHAOS_PROCESSES)")
    processes = parser.parse_args().processes
    status, transitions = 0, int(os.environ.get("CHAOS_TRANSITIONS") or 2000)
    for database in (POSTGRESQL, SQLITE):
        folder = Path(tempfile.mkdtemp(prefix="chaos"))
        report = chaos(float(os.environ.get("CHAOS_SECONDS") or 60), folder, seed, database, processes)
        print(report, flush=True)
        verdict, seconds = drive_on(database, folder, transitions, seed)
        print(
            f"Changes of syncs without HTTP on {database}: {verdict}, in {seconds:.0f} s",
            *verdict.refused[:5],
            sep="\n  ",
        )
        if report.violations or verdict.refused:
            print(f"The processes' logs are in {folder}")
            status = 1
        else:
            shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
