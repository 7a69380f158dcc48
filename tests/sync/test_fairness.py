"""Fairness: a slow product service costs the other merchants only the slot that its sync holds."""

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, literal, select, update

from product_gateway import settings
from product_gateway.db import claims, events, generations, merchants, syncs, tables
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.db.types import now
from product_gateway.http_client.client import HttpClient
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import Claim, Demand, EntityType, SyncStatus
from product_gateway.supervisor import Supervisor
from product_gateway.sync.worker import Worker
from product_gateway.telemetry.metrics import Metrics
from tests.support.contract import Gateway
from tests.support.deployment import API, Deployment, ended, within
from tests.support.flaky_service import Mood, MoodyService, Shop
from tests.support.paced_service import RECORDS, PacedService
from tests.support.serving import serve

PRODUCT = EntityType.PRODUCT
PATIENCE = 30
SOON = 20  # seconds, on a busy machine
SLOW = 0.5  # seconds for a page of the slow product services
RULES = (5, 2)


@pytest.mark.parametrize("mood", [Mood.WELL, Mood.HANGING])
async def test_ten_quick_syncs_finish_beside_one_that_does_not_end(
    database: Database, tmp_path: Path, mood: Mood
) -> None:
    """Two slots, one of them taken for as long as the test runs: by a catalog without end, or by silence."""
    slow, *quick = [Shop(f"shop{n}", random.Random(n), steady=2000 if n == 0 else 60) for n in range(11)]
    slow.mood, slow.delay = mood, 0.5
    made = settings.load(
        data_dir=tmp_path,
        page_size=20,
        max_page_size=20,
        worker_poll_seconds=0.02,
        allow_private_addresses=True,
        worker_concurrency=2,
    )
    with serve(MoodyService([slow, *quick])) as address:
        ids = {}
        for shop in (slow, *quick):
            database.call(merchants.add, shop.name, Platform.BYOP, f"{address}/{shop.name}")
            ids[shop.name] = database.call(enqueue, shop.name, PRODUCT).id
        async with HttpClient(allow_private_addresses=True) as outbound, asyncio.timeout(PATIENCE):
            stop, metrics = asyncio.Event(), Metrics()
            running = asyncio.create_task(Worker(made, database, outbound, metrics, Supervisor(metrics)).run(stop))
            try:
                for shop in quick:
                    while (await database.read(syncs.get, shop.name, ids[shop.name])).is_active:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                still = await database.read(syncs.get, slow.name, ids[slow.name])
            finally:
                slow.mood = Mood.WELL
                stop.set()
                await running
        for shop in quick:
            assert database.call(syncs.get, shop.name, ids[shop.name]).status is SyncStatus.SUCCEEDED
        assert (still.status, still.attempt) == (SyncStatus.IN_PROGRESS, 1)
        assert sum(slow.requests.values()) > 0


def claim(database: Database) -> Claim:
    """Claim the next sync."""
    found = database.call(claims.claim, "tester", 60.0, *RULES)
    assert found is not None
    return found


def test_a_merchants_second_sync_is_claimed_after_the_first_syncs_of_others(database: Database) -> None:
    """For any order of the requests. Without other merchants, both syncs run at once."""
    for each in EntityType:
        database.call(enqueue, "shop", each)
    database.call(enqueue, "other", PRODUCT)
    taken = [claim(database) for _ in range(3)]
    assert [each.merchant for each in taken] == ["shop", "other", "shop"]
    assert database.call(claims.claim, "tester", 60.0, *RULES) is None


def test_a_released_sync_stands_behind_all_that_wait_and_keeps_its_place_for_clients(database: Database) -> None:
    """It is not taken up again at once, no worker counts as lost, and what comes later stands behind it."""
    asked = database.call(enqueue, "shop", PRODUCT)
    first = claim(database)
    database.call(enqueue, "other", PRODUCT)
    database.call(claims.release, first)
    released = database.call(syncs.get, "shop", asked.id)
    assert (released.status, released.queued_at) == (SyncStatus.QUEUED, asked.queued_at)
    assert released.started_at is not None
    second = claim(database)
    assert second.merchant == "other"
    database.call(generations.succeed, second)
    database.call(merchants.add, "late", Platform.BYOP, "https://shop.example")
    wait_a_moment(database)
    database.call(enqueue, "late", PRODUCT)
    third = claim(database)
    assert (third.sync_id, third.attempt, third.taken_over) == (asked.id, 2, False)
    told = [each.kind for each in database.call(events.of_sync, "shop", asked.id)]
    assert told == ["QUEUED", "CLAIMED", "RELEASED", "CLAIMED"]


def wait_a_moment(database: Database) -> None:
    """SQLite's clock has milliseconds."""
    before = database.call(lambda connection: connection.execute(select(now())).scalar_one())
    while database.call(lambda connection: connection.execute(select(now())).scalar_one()) == before:
        pass


def test_the_demand_is_of_merchants_without_a_slot_and_names_the_second_syncs(database: Database) -> None:
    """Who has one in progress does not wait; who has waited for a moment only will be served by a free slot."""
    for each in EntityType:
        database.call(enqueue, "shop", each)
    held = [claim(database) for _ in range(2)]
    assert database.call(claims.demand, 0.0, 4) == Demand(frozenset(), frozenset())
    for each in EntityType:
        database.call(enqueue, "other", each)
    assert database.call(claims.demand, 60.0, 4) == Demand(frozenset(), frozenset())
    wait_a_moment(database)
    found = database.call(claims.demand, 0.0, 4)
    assert found == Demand(frozenset({"other"}), frozenset({max(each.sync_id for each in held)}))
    database.call(claims.release, held[1])
    assert claim(database).merchant == "other"
    assert database.call(claims.demand, 0.0, 4) == Demand(frozenset(), frozenset())


def test_the_queue_is_as_old_as_its_first_wait_not_as_its_first_request(database: Database) -> None:
    """Otherwise a sync that has shared its slot for an hour would look unserved for an hour."""
    sync = database.call(enqueue, "shop", PRODUCT)
    long_ago = update(tables.syncs).where(tables.syncs.c.id == sync.id).values(queued_at=now(literal(-3600)))
    database.call(lambda connection: connection.execute(long_ago))
    (group,) = database.call(syncs.active)
    assert group.oldest_seconds > 3000
    database.call(claims.release, claim(database))
    (group,) = database.call(syncs.active)
    assert group.oldest_seconds < 60


@pytest.mark.parametrize(
    ("slots", "each_runs", "turn"),
    [
        pytest.param("4", list(EntityType), "3600", id="with two syncs each, of which the second ones give way"),
        pytest.param("2", [PRODUCT], "1", id="with one sync each, whose turn ends"),
    ],
)
def test_two_slow_merchants_that_have_all_slots_make_room_for_a_third(
    deployment: Deployment, slots: str, each_runs: list[EntityType], turn: str
) -> None:
    """Its sync ends long before theirs. Theirs continue from their cursors: no record is read twice."""
    deployment.environment |= {
        "PRODUCT_GATEWAY_WORKER_CONCURRENCY": slots,
        "PRODUCT_GATEWAY_SYNC_TURN_SECONDS": turn,
        "PRODUCT_GATEWAY_PAGE_SIZE": "2",
        "PRODUCT_GATEWAY_MAX_PAGE_SIZE": "2",
    }
    service = Slow()
    with serve(service) as address, deployment.serving("--with-worker") as url:
        gateway = Gateway(deployment, url)
        for name in ("slow1", "slow2", "quick"):
            gateway.add(name, f"{address}/{name}")
            service.allow(name)
        slow = [gateway.of(name) for name in ("slow1", "slow2")]
        running = [(each, each.put(f"{API}/sync/{kind}").json()["data"]) for kind in each_runs for each in slow]
        within(SOON, lambda: all(look(*each)["status"] == "IN_PROGRESS" for each in running))
        with gateway.of("quick") as quick:
            sync = quick.put(f"{API}/sync/PRODUCT").json()["data"]
            assert ended(quick, sync, SOON)["status"] == "SUCCEEDED"
        seen = [look(*each) for each in running]
        assert {each["status"] for each in seen} <= {"QUEUED", "IN_PROGRESS"}, "the slow ones had ended by themselves"
        service.seconds = 0.0
        after = [ended(*each, SOON) for each in running]
        for before, now_ in zip(running, after, strict=True):
            assert (now_["status"], now_["progress"]["recordsRead"]) == ("SUCCEEDED", RECORDS)
            assert now_["queuedAt"] == before[1]["queuedAt"]
        assert sum(each["attempt"] > 1 for each in after) >= 1
        for each in slow:
            each.close()
    with open_database(deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]) as database:
        count = select(func.sum(tables.syncs.c.lost_workers))
        assert database.call(lambda connection: connection.execute(count).scalar_one()) == 0


class Slow(PacedService):
    """Each page of the merchants whose names begin with `slow` takes `seconds`."""

    seconds = SLOW

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """A page, in time."""
        if scope["type"] == "http" and scope["path"].startswith("/slow"):
            await asyncio.sleep(self.seconds)
            # Its collections are as many as its products. What a collection does not have is left out.
            scope = {**scope, "path": scope["path"].replace("/collections", "/products")}
        await super().__call__(scope, receive, send)


def look(client: httpx2.Client, sync: dict[str, Any]) -> dict[str, Any]:
    """Return the sync's current state."""
    found: dict[str, Any] = client.get(f"{API}/syncs/{sync['id']}").json()["data"]
    return found


def test_a_sync_that_takes_too_long_ends_in_the_middle_of_a_page(deployment: Deployment) -> None:
    """A service that answers slowly does not hold its slot for longer."""
    deployment.environment |= {"PRODUCT_GATEWAY_MAX_SYNC_SECONDS": "2", "PRODUCT_GATEWAY_PAGE_SIZE": "20"}
    deployment.environment["PRODUCT_GATEWAY_MAX_PAGE_SIZE"] = "20"
    service = PacedService()
    with serve(service) as address, deployment.serving("--with-worker") as url:
        gateway = Gateway(deployment, url)
        gateway.add("shop", f"{address}/shop")
        service.allow("shop", 1)
        with gateway.of("shop") as shop:
            after = ended(shop, shop.put(f"{API}/sync/PRODUCT").json()["data"], SOON)
            assert (after["status"], after["failure"]["code"]) == ("FAILED", "SYNC_TOO_LONG")
            assert "2 s after it began" in after["failure"]["detail"]
            assert after["progress"]["recordsRead"] == 20
            service.allow("shop")


def test_what_a_sync_may_take_counts_from_its_first_start(database: Database) -> None:
    """Including its turns and its time in the queue, so that a merchant knows the latest end."""
    sync = database.call(enqueue, "shop", PRODUCT)
    first = claim(database)
    assert first.seconds_since_start < 60
    database.call(claims.release, first)
    long_ago = update(tables.syncs).where(tables.syncs.c.id == sync.id).values(started_at=now(literal(-3600)))
    database.call(lambda connection: connection.execute(long_ago))
    assert claim(database).seconds_since_start > 3000
