"""Many workers at one long queue: every sync is run, none twice, and few claims lose a race."""

import asyncio
import contextlib
import os
import random
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, event, func, insert, literal, select, update
from uuid_utils.compat import uuid7

from product_gateway.db import claims, generations, tables, types
from product_gateway.db.database import Database, open_database
from product_gateway.errors import Unavailable
from product_gateway.model.syncs import Claim

SYNCS = int(os.environ.get("MANY_CLAIMS") or 1000)
WORKERS = 50
PROCESSES = 5  # or what comes to the same: each with threads and connections of its own
MOST_LOST = 0.05  # of all attempts to claim
AT_A_TIME = 4  # syncs that a worker has before it ends the first: `worker_concurrency`
LEASE = 600.0
RULES = (5, 2)  # workers that a sync may lose, syncs of a merchant at once
OLDEST = (tables.syncs.c.queued_at, tables.syncs.c.id)


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


class Process:
    """A process of several workers. It claims one sync at a time, as the claim loop of `Worker` does."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.attempts = self.claimed = 0
        self._place = claims.Place()
        self._turn = asyncio.Lock()
        event.listen(database.engine, "after_cursor_execute", self._count)

    async def claim(self, owner: str) -> Claim | None:
        async with self._turn:
            claim = await self.database.write(claims.claim, owner, LEASE, *RULES, None, self._place)
        self.claimed += claim is not None
        return claim

    def _count(self, _connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        """Count the UPDATEs that are to claim a sync. Those that claim none have lost a race."""
        self.attempts += sql.startswith("UPDATE syncs SET") and "lease_owner=" in sql and "attempt=" in sql


async def work(process: Process, name: str) -> list[UUID]:
    """Claims and ends syncs until there are none; a database that is busy for too long is asked again."""
    had: list[UUID] = []
    held: list[Claim] = []
    while True:
        try:
            claim = await process.claim(name)
            if claim is not None:
                had.append(claim.sync_id)
                held.append(claim)
            while len(held) > (0 if claim is None else AT_A_TIME):
                await process.database.write(generations.succeed, held[0])
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
        processes = [Process(stack.enter_context(open_database(database_url))) for _ in range(PROCESSES)]
        await processes[0].database.write(fill)
        workers = [work(processes[n % PROCESSES], f"worker {n}") for n in range(WORKERS)]
        had = [sync_id for each in await asyncio.gather(*workers) for sync_id in each]
        assert len(had) == len(set(had)) == SYNCS
        assert await processes[0].database.read(statuses) == [("SUCCEEDED", 1, SYNCS)]
    attempts, claimed = sum(each.attempts for each in processes), sum(each.claimed for each in processes)
    assert claimed == SYNCS
    assert 0 <= attempts - claimed <= MOST_LOST * attempts, f"{attempts - claimed} of {attempts} attempts lost"


def test_a_claim_that_loses_a_race_takes_another_sync(database_url: str) -> None:
    """The counter above sees it: another worker claims the candidate between the read and the UPDATE."""
    with open_database(database_url) as database:
        database.call(fill)
        process = Process(database)
        stolen: list[UUID] = []

        def steal(connection: Connection, _cursor: Any, sql: str, *_: Any) -> None:
            if sql.startswith("UPDATE syncs SET") and not stolen:
                stolen.append(connection.execute(select(tables.syncs.c.id).order_by(*OLDEST).limit(1)).scalar_one())
                connection.execute(update(tables.syncs).where(tables.syncs.c.id == stolen[0]).values(lease_token=7))

        event.listen(database.engine, "before_cursor_execute", steal)
        random.seed(1)  # one loser in 128 would try the same candidate again
        claim = database.call(claims.claim, "worker", LEASE, *RULES)
    assert claim is not None
    assert claim.sync_id not in stolen
    assert process.attempts == 2
