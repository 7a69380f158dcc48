"""`make soak`: ordinary load for a short time; memory, files and threads must not grow.

A server, a worker, the database, the product service and the clients are real. Merchants request syncs, cancel and
read, their catalogs change, invalid requests are refused, and Prometheus scrapes. There are no faults: `make chaos` has
them. SOAK_SECONDS is the time on each database. Afterwards, pulls fail late on both.
"""

import collections
import contextlib
import functools
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from product_gateway.auth import encryption
from product_gateway.db import merchants, migrate
from product_gateway.db.database import THREADS, open_database
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from tests.support import databases, failed_pulls
from tests.support.deployment import API, Deployment, within
from tests.support.flaky_service import MoodyService, Shop
from tests.support.load import Footprint, slope
from tests.support.serving import serve
from tests.tools.chaos import at_work, compare, customer, ended
from tests.tools.chaos_clients import Customer

SHOPS, STEADY = 4, 150
SETTINGS = {"page_size": "20", "max_page_size": "20", "worker_poll_seconds": "0.1", "access_log": "false"}
LOOKS = 60
WARM_UP = 0.25  # share of the run after which caches are full and all connections are open
MEBIBYTE = 1024 * 1024
MOST_THREADS, MOST_FILES = 2, 8  # more in the end than after the warm-up
# SQLite keeps up to 2 MiB of pages for each connection; a short run with a small database does not fill them.
MOST_BYTES = {"PostgreSQL": 16 * MEBIBYTE, "SQLite": (16 + 2 * 2 * THREADS) * MEBIBYTE}
MOST_SLOWER = 2.0  # times: of reads, against the health beside them, which a busy machine makes slow as well
SETTLES_WITHIN = 90
LIVE, READ = "/health/live", f"{API}/syncs?page_size=20"


@dataclass
class Watch:
    """The samples of each process, and the response times."""

    footprints: dict[str, list[Footprint]] = field(default_factory=lambda: collections.defaultdict(list))
    seconds: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))

    def look(self, processes: dict[str, int]) -> None:
        """Sample each process once."""
        for name, pid in processes.items():
            self.footprints[name].append(Footprint.of(pid))

    def growth(self, most_bytes: int = MOST_BYTES["PostgreSQL"]) -> list[str]:
        """Return what has grown since the warm-up."""
        found = []
        for name, seen in self.footprints.items():
            kinds: list[tuple[str, Sequence[float], float]] = [
                ("memory (bytes)", [each.rss for each in seen], most_bytes),
                ("threads", [each.threads for each in seen], MOST_THREADS),
                ("open files", [each.files for each in seen], MOST_FILES),
            ]
            for what, values, most in kinds:
                warm = list(values[int(len(values) * WARM_UP) :])
                more = slope(warm) * (len(warm) - 1)
                if more > most:
                    found.append(
                        f"the {name}'s {what}: {warm[0]:.0f} -> {warm[-1]:.0f}, of which {more:.0f} are steady"
                    )
        early, late = self.slowness()
        if late > early * MOST_SLOWER:
            found.append(f"a read took {early:.1f} times as long as the health beside it, and in the end {late:.1f}")
        return found

    def slowness(self) -> tuple[float, float]:
        """Return the ratio of read to health times, after the warm-up and at the end."""

        def parts(values: list[float]) -> tuple[float, float]:
            warm = values[int(len(values) * WARM_UP) :]
            third = max(1, len(warm) // 3)
            return statistics.median(warm[:third]), statistics.median(warm[-third:])

        read, live = parts(self.seconds[READ]), parts(self.seconds[LIVE])
        return read[0] / live[0], read[1] / live[1]

    def table(self) -> str:
        """Return a row for each process and kind of request."""
        lines = [f"{'':<10}{'MiB':>16}{'threads':>12}{'files':>12}   from the end of the warm-up to the last look"]
        for name, seen in self.footprints.items():
            first, last = seen[int(len(seen) * WARM_UP)], seen[-1]
            memory = f"{first.rss / MEBIBYTE:.1f} -> {last.rss / MEBIBYTE:.1f}"
            threads, files = f"{first.threads} -> {last.threads}", f"{first.files} -> {last.files}"
            lines.append(f"{name:<10}{memory:>16}{threads:>12}{files:>12}")
        for path, values in self.seconds.items():
            ranked = sorted(values)
            p99 = ranked[min(int(len(ranked) * 0.99), len(ranked) - 1)]
            lines.append(
                f"GET {path}: {len(ranked)} answers, median {statistics.median(ranked) * 1000:.1f} ms, "
                f"99 % below {p99 * 1000:.1f} ms"
            )
        early, late = self.slowness()
        lines.append(f"a read takes {early:.1f} times as long as health after the warm-up, {late:.1f} times in the end")
        return "\n".join(lines)


class Repeated(threading.Thread):
    """Repeats an action until told to stop; an error ends it and is kept."""

    def __init__(self, what: Callable[[], object], pause: float) -> None:
        super().__init__(name="repeated")
        self.violations: list[str] = []
        self._what = what
        self._pause = pause
        self._told_to_stop = threading.Event()

    def stop(self) -> None:
        """At the next pause."""
        self._told_to_stop.set()

    def run(self) -> None:
        """It ends up in the report when it cannot go on."""
        try:
            while not self._told_to_stop.wait(self._pause):
                self._what()
        except Exception as error:  # noqa: BLE001 - it ends up in the report
            self.violations.append(f"what is done again and again could not go on: {error!r}")


def refused(client: httpx2.Client, scraped: str) -> None:
    """Send invalid requests and a scrape."""
    asked = (("GET", f"{API}/syncs", 401), ("PUT", f"{API}/sync/PRODUCTS", 401), ("GET", "/nothing", 404))
    for method, path, status in asked:
        answer = client.request(method, path)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code}"
    assert "product_gateway_database_up 1" in client.get(f"{scraped}/metrics").text


def timed(client: httpx2.Client, watch: Watch) -> None:
    """Time a read and a health check."""
    for path in (READ, LIVE):
        began = time.perf_counter()
        answer = client.get(path)
        watch.seconds[path].append(time.perf_counter() - began)
        assert answer.status_code == 200, f"GET {path}: {answer.status_code}"


def settle(customers: list[Customer]) -> list[str]:
    """Let every sync end, and run one more of each kind. Return the catalogs that differ from their sources."""
    found = []
    for one in customers:
        statuses = collections.Counter(ended(one, each) for each in one.accepted)
        bad = statuses.keys() - {"SUCCEEDED", "CANCELLED"}
        found += [f"{one.shop.name}: {statuses[status]} syncs are {status}" for status in bad]
        for kind in EntityType:
            last = within(SETTLES_WITHIN, functools.partial(one.put, kind))
            compare(one, kind, ended(one, last))
    return found


def soak(name: str, seconds: float, folder: Path) -> tuple[Watch, collections.Counter[str], list[str]]:
    """Run the load on this database; return the samples, the counts of responses, and the problems."""
    watch = Watch()
    shops = [Shop(f"shop{n}", random.Random(n), STEADY) for n in range(SHOPS)]
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        is_file = name == "SQLite"
        url = f"sqlite:///{folder / 'gateway.db'}" if is_file else stack.enter_context(databases.postgresql())
        deployment = Deployment(folder, url, **SETTINGS)
        address = stack.enter_context(serve(MoodyService(shops)))
        with open_database(url) as database:
            database.call(migrate.upgrade)
            for shop in shops:
                token = encryption.Secrets(deployment.settings()).encrypt("the-merchants-token")
                database.call(merchants.add, shop.name, Platform.BYOP, f"{address}/{shop.name}", token)
        server = stack.enter_context(deployment.process("serve", "--port", "0"))
        worker = stack.enter_context(deployment.process("worker"))
        gateway = server.url()
        scraped = server.operations_url()
        customers = [customer(stack, deployment, [gateway], shop, random.Random(n)) for n, shop in enumerate(shops, 1)]
        stranger = stack.enter_context(httpx2.Client(base_url=gateway, timeout=30))
        reader = stack.enter_context(deployment.client(gateway, shops[0].name, "--expires", "7d"))
        others = [
            Repeated(functools.partial(refused, stranger, scraped), 0.5),
            Repeated(functools.partial(timed, reader, watch), 0.1),
            *(Repeated(shop.change, 0.5) for shop in shops),
        ]
        processes = {"server": server.pid, "worker": worker.pid}
        with at_work([*customers, *others]):
            began = time.monotonic()
            for number in range(LOOKS):
                time.sleep(max(0.0, began + (number + 1) * seconds / LOOKS - time.monotonic()))
                watch.look(processes)
        wrong = settle(customers)
        wrong += [violation for each in customers for violation in each.violations]
        wrong += [violation for each in others for violation in each.violations]
        for which, process in (("server", server), ("worker", worker)):
            if process.status() is not None or "Traceback" in process.log.read_text():
                wrong.append(f"the {which} ended, or logged a traceback: {process.log}")
        answers = sum((each.answers for each in customers), collections.Counter[str]())
    return watch, answers, wrong + watch.growth(MOST_BYTES[name])


def main() -> int:
    """Print the table; exit with 1 on growth or a problem."""
    seconds = float(os.environ.get("SOAK_SECONDS") or 600)
    folder = Path(tempfile.mkdtemp(prefix="soak"))
    wrong: list[str] = []
    for name in MOST_BYTES:
        watch, answers, found = soak(name, seconds, folder / name)
        wrong += [f"{name}: {each}" for each in found]
        print(f"A soak of {seconds:.0f} s: 1 server, 1 worker, {SHOPS} merchants, {name}")
        print(watch.table())
        print("answered: " + ", ".join(f"{number} {what}" for what, number in sorted(answers.items())), flush=True)
    lines, grown = failed_pulls.on_both_databases(folder)
    print("\n".join(lines))
    wrong += grown
    if wrong:
        print("\n".join([f"Not passed, {len(wrong)} things are wrong:", *(f"  ! {each}" for each in wrong[:50])]))
        print(f"The processes' logs are in {folder}")
        return 1
    print("nothing has grown")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
