"""PgBouncer in transaction mode: many connections of the gateway share a few sessions."""

import asyncio
import collections
from contextlib import ExitStack
from pathlib import Path

import httpx2
from sqlalchemy import text

from product_gateway.db import migrate
from product_gateway.db.database import connect, open_database
from tests.support.deployment import API, Deployment, ended
from tests.support.merchants import client, headers, open_shops
from tests.support.pgbouncer import SESSIONS

CALLERS = 200
RECORDS = 60


async def test_everything_works_behind_pgbouncer(pgbouncer: str, tmp_path: Path) -> None:
    """Four processes share two sessions, so each transaction may get another session."""
    deployment = Deployment(tmp_path, pgbouncer, page_size="25", max_page_size="25")
    deployment.run("migrate")
    with ExitStack() as stack:
        service = stack.enter_context(deployment.sample_service("--records", str(RECORDS)))
        open_shops(deployment, service, ["m"])
        urls = [stack.enter_context(deployment.serving()) for _ in range(2)]

        async with httpx2.AsyncClient(
            headers=headers(deployment, "m"), timeout=30, limits=httpx2.Limits(max_connections=None)
        ) as crowd:
            answered = await asyncio.gather(
                *[crowd.put(f"{urls[number % 2]}{API}/sync/PRODUCT") for number in range(CALLERS)]
            )
        statuses = collections.Counter(each.status_code for each in answered)
        assert statuses[202] == 1, statuses
        assert statuses[429] >= 2 * SESSIONS, statuses
        assert statuses.keys() <= {202, 429, 503}, statuses  # 503: for whom a busy machine has no time

        workers = [stack.enter_context(deployment.process("worker")) for _ in range(2)]
        (accepted,) = [each.json()["data"] for each in answered if each.status_code == 202]
        with client(deployment, urls[0], "m") as caller:
            assert ended(caller, accepted)["result"]["created"] == RECORDS
            for entity_type, count in (("PRODUCT", "unchanged"), ("COLLECTION", "created")):
                sync = ended(caller, caller.put(f"{API}/sync/{entity_type}").json()["data"])
                assert (sync["status"], sync["result"][count]) == ("SUCCEEDED", sync["progress"]["recordsRead"])
            assert caller.get(f"{API}/sync/PRODUCT").json()["data"]["numRecords"] == RECORDS
        with open_database(pgbouncer) as database:
            left = text("SELECT (SELECT count(*) FROM pg_prepared_statements) + count(*) FROM pg_listening_channels()")
            for _ in range(2 * SESSIONS):
                assert database.call(lambda connection: connection.execute(left).scalar_one()) == 0
        for each in workers:
            assert "WARNING" not in each.log.read_text()


async def test_concurrent_migrations_work_behind_pgbouncer(pgbouncer: str) -> None:
    """The migration lock ends with its transaction, not with a session."""
    opened = [connect(pgbouncer) for _ in range(4)]
    revisions = await asyncio.gather(*[asyncio.to_thread(each.call, migrate.upgrade) for each in opened])
    assert set(revisions) == {migrate.newest()}
    for each in opened:
        each.close()
