"""The pull: copy a merchant's products into the catalog, compared with dlt and with the limit of the same database.

Every contender reads the same pages from the same product service and commits as durably. A result counts only if the
catalog then has all records with the right prices.
"""

import os
import tempfile
from pathlib import Path

import orjson
import page_service
import pull_dlt
import pull_limit
from rounds import ROUNDS, Chart, Row, Section, Values, row
from sqlalchemy import create_engine, func, select, text
from stores import DIALECTS, NAMES, store, with_driver
from syncing import PAGE_SIZE, cpu_of, postmaster, printed_seconds, register, timed, worker

from product_gateway.db import tables
from product_gateway.db.database import Database, open_database
from product_gateway.model.syncs import EntityType

RECORDS = int(os.environ.get("BENCH_RECORDS", "50000"))
COLLECTIONS = RECORDS // page_service.PRODUCTS_IN_A_COLLECTION
DELAY = 0.05  # seconds that a distant product service takes for a page
FIRST, AGAIN, CHANGED, COLLECTED = "first sync", "nothing changed", "1 % changed", "collections, first sync"
DLT, LIMIT = "dlt", "the limit"
CPU, DATABASE_CPU = ", CPU", ", CPU of PostgreSQL"
DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg"}


def run() -> Section:
    """Return records a second, on both databases."""
    rows: list[Row] = []
    charts: dict[str, Values] = {}
    used: dict[str, Values] = {}
    with page_service.running() as service:
        for dialect in DIALECTS:
            found: Values = {}
            for _ in range(ROUNDS):
                for what, rate in one_round(dialect, service).items():
                    found.setdefault(what, []).append(rate)
            charts[NAMES[dialect]] = {what: values for what, values in found.items() if CPU not in what}
            used[NAMES[dialect]] = {what: values for what, values in found.items() if CPU in what}
            rows += _rows(NAMES[dialect], found)
    rows += _of_a_distant_service()
    return Section(
        "pull",
        "The pull",
        rows,
        [
            Chart(f"{RECORDS:,} products of 600 bytes, pages of {PAGE_SIZE}", "records/s", charts),
            Chart("CPU of a record", "µs", used),
        ],
        [
            "Ours is timed from the request to the success that a client sees: a worker finds the sync, reads the "
            "pages, checks every record, writes what changed with the place to go on from, and looks for what is gone. "
            f"A collection comes with {page_service.PRODUCTS_IN_A_COLLECTION} whole products."
        ],
    )


def _of_a_distant_service() -> list[Row]:
    """Time a first sync where each page takes 50 ms, with three limits on the page size."""
    sizes = {
        "PAGE_SIZE=250, which may grow to 1,000 (the defaults)": ("250", "1000"),
        "MAX_PAGE_SIZE=250": ("250", "250"),
        "MAX_PAGE_SIZE=2000, if the service sends 2,000": ("250", "2000"),
    }
    found: Values = {name: [] for name in sizes}
    with page_service.running(DELAY) as service:
        for _ in range(ROUNDS):
            for name, (start, most) in sizes.items():
                with (
                    tempfile.TemporaryDirectory() as folder,
                    store("sqlite") as url,
                    worker(url, Path(folder), page_size=start, max_page_size=most),
                    open_database(url) as database,
                ):
                    register(database, "shop", f"{service}/{RECORDS}/0/shop")
                    found[name].append(timed(database, "shop")[0])
    what = f"SQLite: {RECORDS:,} products, {DELAY * 1000:.0f} ms a page"
    return [Row(f"{what}, {name}", found[name], None, 5, at_most=True, unit="s") for name in sizes]


def _rows(name: str, found: Values) -> list[Row]:
    return [
        row(f"{name}: first sync, against dlt", found[FIRST], found[DLT], 8, 12),
        row(f"{name}: the limit, against dlt", found[LIMIT], found[DLT]),
        row(f"{name}: first sync, against the limit", found[FIRST], found[LIMIT], 0.5, 0.75),
        row(f"{name}: first sync, CPU of a record against dlt's", found[FIRST + CPU], found[DLT + CPU], at_most=True),
        row(f"{name}: the same against the limit's", found[FIRST + CPU], found[LIMIT + CPU], at_most=True),
        row(f"{name}: nothing changed, against the first sync", found[AGAIN], found[FIRST], 1.5, 2.5),
        row(f"{name}: 1 % changed, against the first sync", found[CHANGED], found[FIRST]),
    ]


def one_round(dialect: str, service: str) -> dict[str, float]:
    """Return records a second of each contender, each in its own database."""
    address = f"{service}/{RECORDS}/0/shop"
    found = {DLT: 0.0, LIMIT: 0.0} | ours(dialect, service)
    for name, script, check in ((DLT, "pull_dlt.py", _check_dlt), (LIMIT, "pull_limit.py", _check_limit)):
        with store(dialect) as url:
            seconds, used = printed_seconds(script, url, address, PAGE_SIZE)
            found |= {name: RECORDS / seconds, name + CPU: used / RECORDS * 1e6}
            check(url)
    return found


def ours(dialect: str, service: str) -> dict[str, float]:
    """Run a first sync, an unchanged one, one with 1 % changes, and a first one of collections."""
    found = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        store(dialect) as url,
        worker(url, Path(folder)) as pid,
        open_database(url) as database,
    ):
        for what, changed in ((FIRST, 0), (AGAIN, 0), (CHANGED, 1)):
            register(database, "shop", f"{service}/{RECORDS}/{changed}/shop")
            before = _used(url, pid)
            seconds, _ = timed(database, "shop")
            mine, theirs = (after - start for after, start in zip(_used(url, pid), before, strict=True))
            found |= {what: RECORDS / seconds, what + CPU: mine / RECORDS * 1e6}
            if dialect == "postgresql":
                found[what + DATABASE_CPU] = theirs / RECORDS * 1e6
            _check_ours(database, changed)
        register(database, "shop", f"{service}/{COLLECTIONS}/0/shop")
        seconds, sync = timed(database, "shop", EntityType.COLLECTION)
        found[COLLECTED] = COLLECTIONS / seconds
        if sync.counts.created != COLLECTIONS:
            raise RuntimeError(f"not all collections came: {sync}")
    return found


def _used(url: str, pid: int) -> tuple[float, float]:
    """Return the CPU seconds of the worker, and of PostgreSQL."""
    return cpu_of(pid), cpu_of(postmaster(url)) if url.startswith("postgresql") else 0.0


def _right(prices: list[int], changed: int) -> None:
    wanted = sorted(int(str(page_service.product(number, changed)["listPrice"])) for number in range(RECORDS))
    if sorted(prices) != wanted:
        raise RuntimeError(f"{len(prices)} records, not those that were sent")


def _check_ours(database: Database, changed: int) -> None:
    records = tables.catalog_records.c
    with database.engine.connect() as connection:
        documents = connection.scalars(select(records.document).where(records.entity_type == "PRODUCT"))
        _right([orjson.loads(each)["listPrice"] for each in documents], changed)
        while connection.scalar(select(func.count()).select_from(tables.seen_records)):  # the worker still tidies up
            connection.rollback()


def _check_dlt(url: str) -> None:
    _right(_column(url, f"SELECT list_price FROM {pull_dlt.TABLE}"), 0)


def _check_limit(url: str) -> None:
    _right([orjson.loads(each)["listPrice"] for each in _column(url, f"SELECT document FROM {pull_limit.TABLE}")], 0)


def _column(url: str, query: str) -> list:
    engine = create_engine(with_driver(url, DRIVERS[_dialect(url)]))
    with engine.connect() as connection:
        values = list(connection.scalars(text(query)))
    engine.dispose()
    return values


def _dialect(url: str) -> str:
    return url.partition(":")[0]
