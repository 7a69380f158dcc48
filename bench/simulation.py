"""Simulate a day of a million merchants: how long their syncs wait, by the number of workers.

Plain Python, with the service times that the other sections measured on PostgreSQL (results/*.json). Arrivals are
random, with a wave over the day and a peak at each full hour, as cron causes it. Sizes are log-normal: most catalogs
are small, a few are very large. Syncs are claimed in the order of their requests, as in the sync table.
"""

import heapq
import math
import random
import statistics
from dataclasses import dataclass

from rounds import Chart, Row, Section, load

MERCHANTS = 1_000_000
SYNCS_A_DAY = 1.0  # of a merchant
MEDIAN_RECORDS, SPREAD, MOST_RECORDS = 200, 1.5, 1_000_000
SHARE_AT_THE_FULL_HOUR = 0.3
PAGE, PAGE_SECONDS = 500, 0.05  # what a product service takes
SLOTS = 4  # of a worker (PRODUCT_GATEWAY_WORKER_CONCURRENCY)
WORKERS = (4, 8, 16, 32)
DAY = 86400.0
ASSUMED = {"worker": 40e-6, "database": 40e-6, "claim": 5e-3}  # seconds, where nothing was measured


@dataclass(frozen=True)
class ServiceTimes:
    """Core seconds: of a record in the worker and in the database, and of a claim in the database."""

    worker: float
    database: float
    claim: float


def run() -> Section:
    """Return a section of the results."""
    times, source = measured()
    asked = arrivals(random.Random(1))
    hours = [float(hour) for hour in range(24)]
    waits = {f"{workers} workers": simulate(asked, times, workers) for workers in WORKERS}
    records = sum(size for _, size in asked)
    busiest = max(sum(size for at, size in asked if int(at // 3600) == hour) for hour in range(24)) / 3600
    cores = busiest * times.database + len(asked) / DAY * times.claim
    said = [
        f"{len(asked):,} syncs of {records:,} records in a day; service times {source}: a record takes "
        f"{times.worker * 1e6:.0f} µs of a core in the worker and {times.database * 1e6:.0f} µs in PostgreSQL, a claim "
        f"{times.claim * 1e3:.1f} ms.",
        f"In the busiest hour PostgreSQL writes {busiest:,.0f} records a second, for which it needs {cores:.1f} cores.",
    ]
    rows = [
        Row(f"{name}: longest p99 of an hour's waits", [max(each)], at_most=True, unit="s")
        for name, each in waits.items()
    ]
    chart = Chart("A day of a million merchants: p99 of the wait, by the hour", "s", {"": waits}, x=hours)
    return Section("simulation", "A million merchants, simulated", rows, [chart], said)


def measured() -> tuple[ServiceTimes, str]:
    """Return the times from sections that ran here; nine of ten syncs change almost nothing."""
    pull, history = load("pull"), load("history")
    if pull is None or history is None or len(pull.charts) < 2:
        return ServiceTimes(**ASSUMED), "assumed, as nothing was measured here"
    used = {what: statistics.median(each) * 1e-6 for what, each in pull.charts[1].values["PostgreSQL"].items()}
    claim = [each for what, each in history.charts[0].values.items() if what.startswith("PostgreSQL, claim")]

    def mixed(of: str) -> float:
        return 0.9 * used["1 % changed" + of] + 0.1 * used["first sync" + of]

    longest = statistics.median(list(claim[0].values())[-1]) / 1000
    return ServiceTimes(mixed(", CPU"), mixed(", CPU of PostgreSQL"), longest), "as measured"


def arrivals(dice: random.Random) -> list[tuple[float, int]]:
    """Return the request time and the number of records of each sync, in order."""
    found = []
    for hour in dice.choices(range(24), _WAVE, k=int(MERCHANTS * SYNCS_A_DAY)):
        part = dice.random() ** (1 if dice.random() > SHARE_AT_THE_FULL_HOUR else 20)
        size = min(MOST_RECORDS, int(dice.lognormvariate(math.log(MEDIAN_RECORDS), SPREAD)) + 1)
        found.append(((hour + part) * 3600, size))
    return sorted(found)


_WAVE = [1.0 + 0.6 * math.sin((hour - 9) / 24 * 2 * math.pi) for hour in range(24)]


def simulate(asked: list[tuple[float, int]], times: ServiceTimes, workers: int) -> list[float]:
    """Return the 99th percentile of the waits by the hour of the request."""
    free = [0.0] * (workers * SLOTS)  # when each slot is next
    waits: list[list[float]] = [[] for _ in range(24)]
    for at, size in asked:
        begins = max(at, free[0])
        waits[int(at // 3600)].append(begins - at)
        heapq.heapreplace(free, begins + seconds(size, times))
    return [statistics.quantiles(each, n=100)[98] for each in waits]


def seconds(size: int, times: ServiceTimes) -> float:
    """Return the seconds of a sync: fetching and writing overlap, and a worker's slots share its core."""
    pages = -(-size // PAGE)
    written = times.worker * SLOTS + times.database
    return times.claim + PAGE_SECONDS + max(pages * PAGE_SECONDS, size * written)
