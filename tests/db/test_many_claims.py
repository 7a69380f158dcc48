"""Many workers at one long queue: every sync is run, and none twice."""

import asyncio
import contextlib
import os
from uuid import UUID

from sqlalchemy import Connection, func, insert, literal, select
from uuid_utils.compat import uuid7

from product_gateway.db import claims, generations, tables, types
from product_gateway.db.database import Database, open_database
from product_gateway.errors import Unavailable
from product_gateway.model.syncs import Claim

SYNCS = int(os.environ.get("MANY_CLAIMS") or 300)
WORKERS = 50
PROCESSES = 5  # or what comes to the same: each with threads and connections of its own
AT_A_TIME = 4  # syncs that a worker has before it ends the first: `worker_concurrency`
LEASE = 600.0
RULES = (5, 2)  # workers that a sync may lose, syncs of a merchant at once


def fill(connection: Connection) -> None:
    """As many merchants, each with a sync in the queue."""
    names = [f"merchant{n:05d}" for n in range(SYNCS)]
    merchant = {"platform": "BYOP", "product_service_url": "https://shop.example", "disabled": False}
    clock = {"created_at": types.now(), "updated_at": types.now()}
    connection.execute(insert(tables.merchants).values(**clock), [{**merchant, "name": each} for each in names])
    sync = {"entity_type": "PRODUCT", "status": "QUEUED"}
    connection.execute(
        insert(tables.syncs).values(queued_at=types.now(literal(-60))),
        [{**sync, "merchant": each, "id": uuid7()} for each in names],
    )


async def work(database: Database, name: str) -> list[UUID]:
    """Claims and ends syncs until there are none; a database that is busy for too long is asked again."""
    had: list[UUID] = []
    held: list[Claim] = []
    while True:
        try:
            claim = await database.write(claims.claim, name, LEASE, *RULES)
            if claim is not None:
                had.append(claim.sync_id)
                held.append(claim)
            while len(held) > (0 if claim is None else AT_A_TIME):
                await database.write(generations.succeed, held[0])
                del held[0]
            if claim is None:
                return had
        except Unavailable:
            await asyncio.sleep(0.1)


def statuses(connection: Connection) -> list[tuple[str, int, int]]:
    """How many syncs have which status after how many claims."""
    columns = (tables.syncs.c.status, tables.syncs.c.lease_token)
    return [tuple(row) for row in connection.execute(select(*columns, func.count()).group_by(*columns))]


async def test_fifty_workers_run_each_of_many_syncs_exactly_once(database_url: str) -> None:
    """No sync waits for ever, and no merchant is called twice for one PUT."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(open_database(database_url)) for _ in range(PROCESSES)]
        await processes[0].write(fill)
        workers = [work(processes[n % PROCESSES], f"worker {n}") for n in range(WORKERS)]
        had = [sync_id for each in await asyncio.gather(*workers) for sync_id in each]
        assert len(had) == len(set(had)) == SYNCS
        assert await processes[0].read(statuses) == [("SUCCEEDED", 1, SYNCS)]
