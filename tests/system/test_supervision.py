"""Background loops survive every error: it is logged once and counted, other loops continue, readiness reports it."""

import asyncio
import logging
import re
import signal
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.fernet import Fernet
from sqlalchemy.exc import DBAPIError

from product_gateway import settings
from product_gateway.api.app import create_app
from product_gateway.api.long_poll import SyncWaiters
from product_gateway.db import syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import LeaseLost, Unavailable
from product_gateway.http_client.client import HttpClient, product_service_limits
from product_gateway.model.syncs import EntityType, SyncStatus
from product_gateway.operations.app import create_operations_app
from product_gateway.operations.monitor import broadcast
from product_gateway.supervisor import Loop, Supervisor
from product_gateway.sync.worker import Worker
from product_gateway.telemetry.metrics import CLAIMS, DELIVERIES, HEARTBEATS, LONG_POLLS, MONITOR, Metrics
from tests.support import databases
from tests.support.contract import Gateway
from tests.support.database_faults import is_postgresql, raising, renamed
from tests.support.deployment import API, Deployment, ended, within
from tests.support.metrics_scrape import Scrape
from tests.support.paced_service import PacedService
from tests.support.serving import serve

PRODUCT = EntityType.PRODUCT
SOON = 20  # seconds, on a busy machine
NEVER = 3600.0


def failures(metrics: Metrics, loop: str) -> float:
    """Return the number of unexpected errors counted for the loop."""
    return metrics.registry.get_sample_value("product_gateway_loop_failures_total", {"loop": loop}) or 0.0


async def test_a_loop_that_fails_goes_on_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """A traceback for every attempt would hide the rest of the log."""
    metrics, tried = Metrics(), 0

    async def work(loop: Loop) -> None:
        nonlocal tried
        tried += 1
        if tried < 4:
            raise ValueError(f"failure {tried}")
        loop.progressed()

    with caplog.at_level(logging.INFO):
        await Supervisor(metrics).keep(CLAIMS, work, longest_pause=0.01)
    assert (tried, failures(metrics, CLAIMS)) == (4, 3)
    (logged,) = (record for record in caplog.records if record.exc_info)
    assert "failure 1" in str(logged.exc_info)
    assert "The loop claims works again after 3 failures." in caplog.text


async def test_a_database_that_is_away_is_waited_for_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """An outage is expected and has its own metric."""
    metrics, tried = Metrics(), 0

    async def work(_: Loop) -> None:
        nonlocal tried
        tried += 1
        if tried < 4:
            raise Unavailable("Away.")

    await Supervisor(metrics).keep(CLAIMS, work, away="Nothing is done until it is back", longest_pause=0.01)
    assert failures(metrics, CLAIMS) == 0
    assert [(each.getMessage(), each.exc_info) for each in caplog.records] == [
        ("Nothing is done until it is back: Away.", None)
    ]


async def test_pauses_grow_up_to_a_limit() -> None:
    """Constant retries would not help an overloaded database."""
    loop = Loop(CLAIMS, Metrics())
    pauses = [loop.failed(ValueError()) for _ in range(50)]
    assert pauses[0] <= 0.5
    assert all(8 <= each <= 15 for each in pauses[6:])
    assert len(set(pauses[6:])) > 1, "all processes would come back at the same moment"
    loop.progressed()
    assert loop.failed(ValueError()) <= 0.5


async def test_a_failing_loop_does_not_affect_others_and_can_be_ended() -> None:
    """Cancellation ends a loop, and an exception in `ends_with` is its result."""
    supervisor, stop, done = Supervisor(Metrics()), asyncio.Event(), asyncio.Event()

    async def fail(_: Loop) -> None:
        raise ValueError

    async def lose(_: Loop) -> None:
        raise LeaseLost("Lost.")

    async def work(loop: Loop) -> None:
        while True:
            await asyncio.sleep(0.01)
            loop.progressed()
            done.set()

    failing = asyncio.create_task(supervisor.keep(CLAIMS, fail))
    told_to_stop = asyncio.create_task(supervisor.keep(CLAIMS, fail, stop=stop))
    working = asyncio.create_task(supervisor.keep(DELIVERIES, work))
    with pytest.raises(LeaseLost):
        await supervisor.keep(HEARTBEATS, lose, ends_with=(LeaseLost,))
    async with asyncio.timeout(SOON):
        await done.wait()
        stop.set()
        await told_to_stop
    assert not failing.done()
    for each in (failing, working):
        each.cancel()
    assert [type(each) for each in await asyncio.gather(failing, working, return_exceptions=True)] == [
        asyncio.CancelledError,
        asyncio.CancelledError,
    ]


async def test_a_loop_is_stalled_where_it_hangs_or_fails_but_not_where_it_waits() -> None:
    """A worker with no free slot is healthy; one that hangs in a statement is not."""
    supervisor, idle, working = Supervisor(Metrics(), stalled_after=0.2), asyncio.Event(), asyncio.Event()

    async def work(loop: Loop) -> None:
        with loop.idle():
            await idle.wait()
        await working.wait()

    task = asyncio.create_task(supervisor.keep(CLAIMS, work))
    await asyncio.sleep(0.4)
    supervisor.check()
    idle.set()
    await asyncio.sleep(0.4)
    with pytest.raises(Unavailable, match=r"make no progress: claims \(0 s\)"):
        supervisor.check()
    working.set()
    await task
    supervisor.check()

    async def fail(loop: Loop) -> None:
        with loop.idle():
            await asyncio.sleep(0.01)
        raise ValueError

    task = asyncio.create_task(supervisor.keep(CLAIMS, fail, longest_pause=0.01))
    unneeded = asyncio.create_task(supervisor.keep(DELIVERIES, fail, longest_pause=0.01, is_needed=False))
    await asyncio.sleep(0.4)
    with pytest.raises(Unavailable, match=r"claims \(\d+ s\)\. Its log"):
        supervisor.check()
    for each in (task, unneeded):
        each.cancel()
    await asyncio.gather(task, unneeded, return_exceptions=True)


def test_syncs_run_again_after_an_unexpected_error(deployment: Deployment) -> None:
    """With a column of `syncs` renamed for two seconds on PostgreSQL. SQLite's error for that says "away"."""
    url = deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]
    fault: Any = renamed(url, "syncs", "queued_at") if is_postgresql(url) else raising(url, "sync_events")
    command = ("serve", "--port", "0", "--with-worker")
    with deployment.sample_service("--records", "40") as service, deployment.process(*command) as process:
        gateway = Gateway(deployment, process.url())
        gateway.add("shop", service)
        with gateway.of("shop") as shop:
            assert ended(shop, shop.put(f"{API}/sync/PRODUCT").json()["data"], SOON)["status"] == "SUCCEEDED"
            with fault:
                shop.put(f"{API}/sync/COLLECTION")
                time.sleep(2)
                assert process.status() is None
            within(SOON, lambda: shop.put(f"{API}/sync/COLLECTION").status_code in (202, 429))
            sync = shop.get(f"{API}/syncs").json()["data"][0]
            assert ended(shop, sync, SOON)["status"] == "SUCCEEDED"
            assert shop.get("/health/ready").status_code == 200
        counted = Scrape(process.operations_url()).of("loop_failures_total")
        said = process.log.read_text()
    assert counted["claims"] >= 1
    assert said.count("The loop claims met an unexpected error") == 1
    assert "The loop claims works again" in said


def test_a_sync_whose_heartbeats_fail_goes_on(deployment: Deployment) -> None:
    """Its pages renew the lease as well. Both writes fail here while the one page is on its way; then all is well."""
    deployment.environment["PRODUCT_GATEWAY_LEASE_SECONDS"] = "9"  # a heartbeat is due after three seconds
    url, service = deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"], PacedService()
    with serve(service) as address, deployment.process("serve", "--port", "0", "--with-worker") as process:
        gateway = Gateway(deployment, process.url())
        gateway.add("shop", f"{address}/shop")
        with gateway.of("shop") as shop:
            sync = shop.put(f"{API}/sync/PRODUCT").json()["data"]
            within(SOON, lambda: shop.get(f"{API}/syncs/{sync['id']}").json()["data"]["status"] == "IN_PROGRESS")
            with raising(url, "syncs"):
                within(SOON, lambda: Scrape(process.operations_url()).of("loop_failures_total").get("heartbeats", 0))
            service.allow("shop")
            after = ended(shop, sync, SOON)
    assert (after["status"], after["attempt"]) == ("SUCCEEDED", 1)


def test_the_worker_beside_a_server_starts_when_it_can(sqlite_deployment: Deployment) -> None:
    """It cannot without the secret key; the server beside it goes on, and so does the worker once the key is right."""
    key = sqlite_deployment.folder / "secret.key"
    key.write_text("no key")
    sqlite_deployment.environment["PRODUCT_GATEWAY_SECRET_KEY_FILE"] = str(key)
    service = PacedService()
    service.allow("shop")
    with serve(service) as address, sqlite_deployment.process("serve", "--port", "0", "--with-worker") as process:
        url = process.url()
        assert "The loop worker met an unexpected error" in process.log.read_text()
        key.write_bytes(Fernet.generate_key())
        found = within(SOON, lambda: re.search(r"The loop worker works again after (\d+)", process.log.read_text()))
        assert int(found[1]) < 4, "the server waited for its worker"
        token = sqlite_deployment.folder / "service.token"
        token.write_text("any")
        options = ("--product-service-url", f"{address}/shop", "--product-service-token-file", str(token))
        sqlite_deployment.run("merchant", "add", "shop", "--platform", "BYOP", *options)
        with sqlite_deployment.client(url, "shop") as shop:
            assert ended(shop, shop.put(f"{API}/sync/PRODUCT").json()["data"], SOON)["status"] == "SUCCEEDED"


def test_a_worker_with_no_free_slot_stops_when_told(sqlite_deployment: Deployment) -> None:
    """It hands its syncs back at once, without waiting for a product service."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_WORKER_CONCURRENCY"] = "1"
    service = PacedService()
    with serve(service) as address, sqlite_deployment.serving() as url, sqlite_deployment.process("worker") as worker:
        gateway = Gateway(sqlite_deployment, url)
        gateway.add("shop", f"{address}/shop")
        with gateway.of("shop") as shop:
            sync = shop.put(f"{API}/sync/PRODUCT").json()["data"]
            within(SOON, lambda: shop.get(f"{API}/syncs/{sync['id']}").json()["data"]["status"] == "IN_PROGRESS")
            worker.send(signal.SIGTERM)
            assert worker.wait() == 0
            assert shop.get(f"{API}/syncs/{sync['id']}").json()["data"]["status"] == "QUEUED"
        service.allow("shop")


async def test_readiness_names_a_loop_that_makes_no_progress(database: Database, tmp_path: Path) -> None:
    """On both ports, and it is well again when the loop is."""
    url = databases.url_of(database)
    made = settings.load(data_dir=tmp_path / "var", database_url=url, worker_poll_seconds=0.05)
    metrics = Metrics()
    supervisor = Supervisor(metrics, stalled_after=1.0)
    private, end_streams = create_operations_app(made, metrics, supervisor)
    with serve(create_app(made, metrics, supervisor)) as here, serve(private) as there:
        async with HttpClient(**product_service_limits(made)) as outbound:
            stop = asyncio.Event()
            working = asyncio.create_task(Worker(made, database, outbound, metrics, supervisor).run(stop))
            try:
                await until_ready((here, there), 200)
                with raising(url, "sync_events"):
                    await database.write(enqueue, "shop", PRODUCT)
                    for said in await until_ready((here, there), 503):
                        assert "make no progress: claims (" in said
                await until_ready((here, there), 200)
            finally:
                end_streams()
                stop.set()
                await asyncio.wait_for(working, SOON)


async def until_ready(bases: tuple[str, ...], status: int) -> list[str]:
    """Wait until all answer with the status. Return their bodies."""
    async with asyncio.timeout(SOON), httpx2.AsyncClient() as client:
        while True:
            found = [await client.get(f"{base}/health/ready") for base in bases]
            if {each.status_code for each in found} == {status}:
                return [each.text for each in found]
            await asyncio.sleep(0.05)


async def test_a_waiting_client_keeps_waiting_through_an_unexpected_error(database: Database) -> None:
    """Only a client whose time is up gets the error."""
    metrics = Metrics()
    waiting = SyncWaiters(database, supervisor=Supervisor(metrics))
    never: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    sync = await database.write(enqueue, "shop", PRODUCT)
    patient = asyncio.create_task(waiting.wait_until_ended(sync, NEVER, never))
    with renamed(databases.url_of(database), "syncs", "finished_at"):
        with pytest.raises((DBAPIError, Unavailable)):
            await waiting.wait_until_ended(sync, 1.0, never)
        assert not patient.done()
    await database.write(syncs.cancel, "shop", PRODUCT)
    async with asyncio.timeout(SOON):
        assert (await patient).status is SyncStatus.CANCELLED
    assert (failures(metrics, LONG_POLLS) > 0) == is_postgresql(databases.url_of(database))
    await waiting.aclose()


async def test_the_monitor_continues_after_an_unexpected_error() -> None:
    """Its viewers are told what has changed as soon as that can be seen again."""
    metrics, looks = Metrics(), 0

    async def look() -> broadcast.Parts:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise ValueError
        return {"queue": str(looks)}

    stream = broadcast.Broadcaster(look, Supervisor(metrics)).stream()
    async with asyncio.timeout(SOON):
        assert (await anext(stream)).startswith(b"retry")
        assert b'"queue":"2"' in await anext(stream)
    assert failures(metrics, MONITOR) == 1
    await stream.aclose()
