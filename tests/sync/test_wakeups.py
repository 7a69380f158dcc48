"""An idle worker takes a queued sync at once: the next look of these workers at the queue is a minute away."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import text

from product_gateway.db import wakeups
from product_gateway.db.database import open_database
from tests.support import databases
from tests.support.deployment import API, Deployment, ended, within
from tests.support.merchants import client, open_shops

SECONDS_BETWEEN_LOOKS = "60"  # the most that the setting allows; a test waits half as long for a sync to end
LISTENING = "FROM pg_stat_activity WHERE query LIKE 'LISTEN %' AND datname = current_database()"


@contextmanager
def shop(deployment: Deployment, *arguments: str) -> Iterator[httpx2.Client]:
    """A client of a gateway, whose merchant has a product service."""
    with deployment.sample_service("--records", "3") as service:
        open_shops(deployment, service, ["shop"])
        with deployment.serving(*arguments) as url, client(deployment, url, "shop") as caller:
            yield caller


def sync(caller: httpx2.Client) -> str:
    """Request a sync and return its id when it has succeeded."""
    done = ended(caller, caller.put(f"{API}/sync/PRODUCT").json()["data"])
    assert done["status"] == "SUCCEEDED"
    return str(done["id"])


def listening(url: str) -> bool:
    """Return whether a worker listens to the database."""
    with open_database(url) as database:
        return bool(database.call(lambda connection: connection.execute(text(f"SELECT 1 {LISTENING}")).first()))


def test_a_worker_of_the_same_process_is_woken(database_url: str, tmp_path: Path) -> None:
    """By a PUT and by a revert, more than once."""
    deployment = Deployment(tmp_path, database_url, worker_poll_seconds=SECONDS_BETWEEN_LOOKS)
    with shop(deployment, "--with-worker") as caller:
        sync(caller)
        second = sync(caller)
        assert ended(caller, caller.post(f"{API}/syncs/{second}/revert").json()["data"])["status"] == "SUCCEEDED"


@pytest.fixture
def postgresql_url(postgresql_server: str, postgresql_template: str) -> str:
    """A migrated database on PostgreSQL."""
    return databases.copy_of(postgresql_server, postgresql_template)


def test_workers_of_other_processes_are_woken(postgresql_url: str, tmp_path: Path) -> None:
    """Also after the connection that listens was lost."""
    deployment = Deployment(tmp_path, postgresql_url, worker_poll_seconds=SECONDS_BETWEEN_LOOKS)
    with shop(deployment) as caller, deployment.process("worker") as worker:
        within(20, lambda: listening(postgresql_url))
        sync(caller)
        databases.run(postgresql_url, f"SELECT pg_terminate_backend(pid) {LISTENING}")
        queued = caller.put(f"{API}/sync/PRODUCT").json()["data"]
        assert ended(caller, queued)["status"] == "SUCCEEDED"  # found as soon as the worker listens again
        within(20, lambda: listening(postgresql_url))
        sync(caller)
        assert "ERROR" not in worker.log.read_text()


async def test_notifications_are_few(postgresql_url: str) -> None:
    """However many syncs are queued at once, the workers of other processes hear of it now and then."""
    heard, first, third = 0, asyncio.Event(), asyncio.Event()

    def hear() -> None:
        nonlocal heard
        heard += 1
        first.set()
        if heard == 3:  # one as it begins to listen, the first notification, and a later one
            third.set()

    with open_database(postgresql_url) as database, open_database(postgresql_url) as other:
        listens = asyncio.create_task(wakeups.listen(other, hear))
        async with asyncio.timeout(20):
            await first.wait()
            notifier = wakeups.Notifier(database, wakeups.Wakeups())
            began = time.monotonic()
            for _ in range(100):
                notifier.queued()
                await asyncio.sleep(0.001)
            await third.wait()
        most = 1 + (time.monotonic() - began) / wakeups.SECONDS_BETWEEN_NOTIFICATIONS + 1
        await notifier.aclose()
        listens.cancel()
        await asyncio.gather(listens, return_exceptions=True)
    assert heard <= most
