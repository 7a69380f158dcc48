"""What is counted is what was done: real processes, known traffic, and the numbers that come out."""

import re
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from product_gateway.db import syncs
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.syncs import EntityType, SyncStatus
from product_gateway.telemetry.metrics import Metrics
from tests.support import hostile_service
from tests.support.deployment import API, Deployment, Process, ended, within
from tests.support.hostile_service import Hostile
from tests.support.merchants import client, headers, open_shops
from tests.support.metrics_scrape import Scrape
from tests.support.product_service_faults.misbehaviour import RECORDS

NAME = re.compile(r"product_gateway_[a-z]+(_[a-z]+)*")
LABELS = {
    "operation",
    "status",
    "reason",
    "outcome",
    "process",
    "entity_type",
    "failure_code",
    "loop",
    "le",
    "python",
    "version",
}
NOWHERE = "http://127.0.0.1:1"
ENDED = (SyncStatus.SUCCEEDED, SyncStatus.FAILED, SyncStatus.CANCELLED)


@pytest.fixture
def gateway(sqlite_deployment: Deployment) -> Iterator[Process]:
    """A gateway without a worker, and the merchant `shop`. Nothing has been asked of it yet."""
    open_shops(sqlite_deployment, NOWHERE, ["shop"])
    with sqlite_deployment.process("serve", "--port", "0") as process:
        yield process


@pytest.fixture(scope="module")
def service() -> Iterator[Hostile]:
    """Product services that misbehave."""
    with hostile_service.serve() as server:
        yield server


def test_every_request_is_counted_once_by_operation_and_status(gateway: Process, sqlite_deployment: Deployment) -> None:
    """Who looks at a rate must be able to believe it, to the last request."""
    with client(sqlite_deployment, gateway.url(), "shop") as shop:
        sync = f"{API}/sync/PRODUCT"
        statuses = [shop.put(sync).status_code, shop.put(sync).status_code, shop.put(sync).status_code]
        assert statuses == [202, 429, 429]
        assert shop.get(sync).status_code == 404
        assert shop.head(f"{API}/products").status_code == 200
        assert shop.get(f"{API}/sync/PRODUCTS").status_code == 400
        assert shop.get(f"{API}/nothing").status_code == 404
        assert shop.post(sync).status_code == 405
        assert shop.delete(sync).status_code == 202
        assert httpx2.put(f"{gateway.url()}{sync}").status_code == 401
        assert httpx2.put(f"{gateway.url()}{sync}", headers=headers(sqlite_deployment, "unknown")).status_code == 403
    scrape = Scrape(gateway.operations_url())
    assert scrape.of("requests_total") == {
        "enqueueSync 202": 1,
        "enqueueSync 429": 2,
        "enqueueSync 401": 1,
        "enqueueSync 403": 1,
        "getSyncStatus 404": 1,
        "getSyncStatus 400": 1,
        "listProducts 200": 1,
        "cancelSync 202": 1,
        "none 404": 1,
        "none 405": 1,
    }
    took = scrape.of("request_duration_seconds_count")
    assert took == {"enqueueSync": 5, "getSyncStatus": 2, "listProducts": 1, "cancelSync": 1, "none": 2}
    assert scrape.of("syncs_ended_total") == {"PRODUCT  CANCELLED": 1}
    assert scrape.total("requests_in_flight") == 0
    assert scrape.total("requests_refused_total") == 0


def test_nothing_that_a_request_brings_becomes_a_label(gateway: Process, sqlite_deployment: Deployment) -> None:
    """A client that could create series would exhaust the memory of the metrics server."""
    with client(sqlite_deployment, gateway.url(), "shop") as shop:
        before = len(Scrape(gateway.operations_url()).samples)
        for strange in ("stranger", "stranger/2", "sync/stranger", "syncs/stranger", "products/stranger"):
            shop.get(f"{API}/{strange}", headers={"X-Request-Id": "stranger"})
            shop.request("STRANGER", f"{API}/{strange}")
        shop.put(f"{API}/sync/PRODUCT", headers={"Idempotency-Key": "stranger"})
    scrape = Scrape(gateway.operations_url())
    assert len(scrape.samples) > before
    labels = {value for sample in scrape.samples for value in sample.labels.values()}
    assert {value for value in labels if re.search("strange|shop", value, re.IGNORECASE)} == set()


def test_names_labels_and_help_keep_the_rules_of_prometheus(gateway: Process) -> None:
    """Its linter's: a unit or `_total` at the end, base units, a help text for each."""
    ours = [each for each in Scrape(gateway.operations_url()).families if each.name.startswith("product_gateway_")]
    assert len(ours) > 15
    for family in ours:
        assert NAME.fullmatch(family.name), family.name
        assert family.documentation.endswith("."), f"{family.name} needs a help text that is a sentence"
        assert family.type in ("counter", "gauge", "histogram"), family.name
        is_info = family.name == "product_gateway_build_info"
        assert is_info or not family.name.endswith(("_count", "_sum", "_bucket", "_info")), family.name
        for sample in family.samples:
            assert set(sample.labels) <= LABELS, f"{sample}: is the new label's number of values bounded?"
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name


def test_what_is_turned_away_and_what_is_under_way_can_be_seen(sqlite_deployment: Deployment) -> None:
    """The first sign that a process has too much to do."""
    sqlite_deployment.environment |= {"PRODUCT_GATEWAY_REQUESTS_AT_ONCE": "1"}
    open_shops(sqlite_deployment, NOWHERE, ["shop"])
    enough = threading.Event()
    refused = []
    with sqlite_deployment.process("serve", "--port", "0") as gateway:
        url, seen = gateway.url(), gateway.operations_url()

        def ask() -> int:
            with client(sqlite_deployment, url, "shop") as shop:
                answer = shop.put(f"{API}/sync/PRODUCT")
                if "more requests than it can serve" in answer.text:
                    refused.append(answer)
                return answer.status_code

        def keep_asking() -> None:
            while not enough.is_set():
                ask()

        within(20, lambda: ask() == 202)
        with closing(sqlite3.connect(sqlite_deployment.folder / "gateway.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # PUTs wait for it
            threads = [threading.Thread(target=keep_asking) for _ in range(2)]
            for thread in threads:
                thread.start()
            try:
                within(20, lambda: Scrape(seen).total("requests_in_flight"))
                within(20, lambda: refused)
            finally:
                other.execute("ROLLBACK")
                enough.set()
                for thread in threads:
                    thread.join()
        assert Scrape(seen).of("requests_refused_total") == {"overload": len(refused)}
        assert Scrape(seen).total("requests_in_flight") == 0


def test_a_limit_that_refuses_is_counted_by_its_reason(sqlite_deployment: Deployment) -> None:
    """An operator who has set a limit wants to know whom it meets."""
    sqlite_deployment.environment |= {"PRODUCT_GATEWAY_RATE_LIMIT_PER_MERCHANT": "3/hour"}
    open_shops(sqlite_deployment, NOWHERE, ["shop"])
    with (
        sqlite_deployment.process("serve", "--port", "0") as gateway,
        client(sqlite_deployment, gateway.url(), "shop") as shop,
    ):
        statuses = [shop.get(f"{API}/products").status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert Scrape(gateway.operations_url()).of("requests_refused_total") == {"merchant": 2}


def run(database: Database, *merchants: str) -> None:
    """A sync of products for each merchant, to its end."""
    asked = [database.call(enqueue, each, EntityType.PRODUCT) for each in merchants]
    within(30, lambda: all(database.call(syncs.get, each.merchant, each.id).status in ENDED for each in asked))


def test_a_worker_counts_what_it_read_what_it_left_out_and_how_each_sync_ended(
    deployment: Deployment, service: Hostile
) -> None:
    """From these an operator tells whether it is the gateway that fails, or one merchant's service."""
    shops = {
        "good": hostile_service.HONEST,
        "spoilt": "record-nested-too-deeply",
        "again": "error-503-once",
        "no": "unauthorized",
    }
    for merchant, behaviour in shops.items():
        open_shops(deployment, service.url(behaviour), [merchant])
    with deployment.process("worker") as worker, open_database(url_of(deployment)) as database:
        run(database, *shops)
        seen = worker.operations_url()
        within(20, lambda: sum(Scrape(seen).of("syncs_ended_total").values()) == 4)
        scrape = Scrape(seen)
    failed = "PRODUCT PRODUCT_SERVICE_UNAUTHORIZED FAILED"
    assert scrape.of("syncs_ended_total") == {"PRODUCT  SUCCEEDED": 3, failed: 1}
    assert scrape.of("sync_duration_seconds_count") == {"PRODUCT": 4}
    assert scrape.of("records_read_total") == {"PRODUCT": 3 * RECORDS}
    assert scrape.of("records_rejected_total") == {"PRODUCT": 1}
    assert scrape.total("pull_retries_total") == 1
    assert scrape.total("claims_total") == 4
    assert scrape.total("syncs_running") == 0
    assert (scrape.total("lease_losses_total"), scrape.total("lease_takeovers_total")) == (0, 0)


def test_a_lost_lease_and_its_takeover_are_counted_and_a_cancelled_sync_is_neither(deployment: Deployment) -> None:
    """A worker that stands still now and then shows nowhere else; a client that cancels is no reason to look."""
    deployment.environment |= {"PRODUCT_GATEWAY_LEASE_SECONDS": "1", "PRODUCT_GATEWAY_PAGE_SIZE": "10"}
    deployment.environment["PRODUCT_GATEWAY_MAX_PAGE_SIZE"] = "10"
    slow = ("--records", "100", "--delay", "0.3")
    with deployment.sample_service(*slow) as sample, open_database(url_of(deployment)) as database:
        open_shops(deployment, sample, ["shop"])
        with deployment.process("worker") as first:
            seen = first.operations_url()
            sync = database.call(enqueue, "shop", EntityType.PRODUCT)
            within(20, lambda: Scrape(seen).total("syncs_running") == 1)
            database.call(syncs.cancel, "shop", EntityType.PRODUCT)
            within(20, lambda: Scrape(seen).total("syncs_running") == 0)
            assert Scrape(seen).total("lease_losses_total") == 0

            sync = database.call(enqueue, "shop", EntityType.PRODUCT)
            within(20, lambda: database.call(syncs.get, "shop", sync.id).records_read)
            stop_between_transactions(first, url_of(deployment))
            try:
                with deployment.process("worker") as second:
                    within(30, lambda: database.call(syncs.get, "shop", sync.id).status is SyncStatus.SUCCEEDED)
                    took_over = Scrape(second.operations_url())
            finally:
                first.send(signal.SIGCONT)
            within(20, lambda: Scrape(seen).total("lease_losses_total") == 1)
            assert Scrape(seen).total("lease_takeovers_total") == 0
    assert (took_over.total("claims_total"), took_over.total("lease_takeovers_total")) == (1, 1)
    assert took_over.total("lease_losses_total") == 0


def stop_between_transactions(process: Process, url: str) -> None:
    """Stop the process at a moment when it does not hold SQLite's write lock, for which all others would wait."""
    process.send(signal.SIGSTOP)
    while url.startswith("sqlite:") and is_locked(Path(url.removeprefix("sqlite:///"))):
        process.send(signal.SIGCONT)
        time.sleep(0.01)
        process.send(signal.SIGSTOP)


def is_locked(path: Path) -> bool:
    """Whether another connection holds the write lock of the SQLite file."""
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


def test_a_sync_that_is_given_up_is_counted_by_who_gave_it_up(deployment: Deployment) -> None:
    """It ends in a claim, without having been run: easily forgotten."""
    deployment.environment |= {"PRODUCT_GATEWAY_LEASE_SECONDS": "1", "PRODUCT_GATEWAY_MAX_LOST_WORKERS": "1"}
    slow = ("--records", "1000", "--delay", "0.3")
    with deployment.sample_service(*slow) as sample, open_database(url_of(deployment)) as database:
        open_shops(deployment, sample, ["shop"])
        sync = database.call(enqueue, "shop", EntityType.PRODUCT)
        with deployment.process("worker") as first:
            within(20, lambda: database.call(syncs.get, "shop", sync.id).records_read)
            first.send(signal.SIGKILL)
            first.wait()
        with deployment.process("worker") as second:
            within(20, lambda: database.call(syncs.get, "shop", sync.id).status is SyncStatus.FAILED)
            ends = within(20, lambda: Scrape(second.operations_url()).of("syncs_ended_total"))
    assert ends == {"PRODUCT WORKER_LOST FAILED": 1}


def test_the_age_of_the_oldest_grows_while_no_worker_runs(deployment: Deployment) -> None:
    """This metric alone shows that no worker runs. Every process exports it."""
    open_shops(deployment, NOWHERE, ["shop", "other"])
    with deployment.process("serve", "--port", "0") as gateway, client(deployment, gateway.url(), "shop") as shop:
        seen = gateway.operations_url()
        empty = Scrape(seen)
        assert (empty.total("queue_depth"), empty.total("queue_oldest_seconds"), empty.total("syncs_active")) == (
            0,
            0,
            0,
        )
        for entity_type in EntityType:
            assert shop.put(f"{API}/sync/{entity_type}").status_code == 202
        within(20, lambda: Scrape(seen).total("queue_depth") == 2)
        early = Scrape(seen).total("queue_oldest_seconds") or 0
        assert 0 < early < 60
        within(30, lambda: (Scrape(seen).total("queue_oldest_seconds") or 0) > early + 4)
        assert Scrape(seen).of("syncs_active") == {"PRODUCT QUEUED": 1, "COLLECTION QUEUED": 1}
        with deployment.process("worker") as worker:
            sync = shop.get(f"{API}/syncs").json()["data"][0]
            assert ended(shop, sync)["status"] == "FAILED"
            within(30, lambda: Scrape(worker.operations_url()).total("queue_depth") == 0)


def test_a_demo_counts_both_of_its_halves_in_one_place(tmp_path: Path) -> None:
    """`serve --with-worker` is one process, so it is one target."""
    deployment = Deployment(tmp_path, "")
    with deployment.process("demo", "--port", "0", "--sample-port", "0", "--delay", "0") as demo:
        seen = demo.operations_url()
        url = within(20, lambda: re.findall(r"The product gateway is at (\S+),", demo.log.read_text()))[0]
        token = (tmp_path / "var" / "demo.token").read_text().strip()
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as merchant:
            sync = merchant.put(f"{API}/sync/PRODUCT").json()["data"]
            assert ended(merchant, sync)["status"] == "SUCCEEDED"
        scrape = within(20, lambda: (found := Scrape(seen)).of("syncs_ended_total") and found)
    assert scrape.of("requests_total")["enqueueSync 202"] == 1
    assert scrape.of("records_read_total") == {"PRODUCT": 24}


def test_counting_a_request_makes_no_series_twice() -> None:
    """The labels of an answer are looked up once; from then on it is two additions."""
    metrics = Metrics()
    for _ in range(3):
        metrics.observe_request("getSync", 200, 0.002)
    metrics.observe_request("", 404, 0.1)
    metrics.observe_request("getSync", 0, 0.1)
    lines = metrics.exposition().decode().splitlines()
    assert [line for line in lines if line.startswith("product_gateway_requests_total{")] == [
        'product_gateway_requests_total{operation="getSync",status="200"} 3.0',
        'product_gateway_requests_total{operation="none",status="404"} 1.0',
        'product_gateway_requests_total{operation="getSync",status="none"} 1.0',
    ]


def url_of(deployment: Deployment) -> str:
    """The database of a deployment."""
    return deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]
