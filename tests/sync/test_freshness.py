"""Stale catalogs from the worker that finds them to the receiver of the message, over real HTTP."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks import Webhook

from product_gateway import settings
from product_gateway.auth.encryption import Secrets
from product_gateway.db import claims, freshness, generations, webhooks
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.operations.app import MetricsHandlers
from product_gateway.services import worker
from product_gateway.settings import Settings
from product_gateway.supervisor import Supervisor
from product_gateway.sync.freshness import freshness_loop
from product_gateway.telemetry.metrics import FRESHNESS, Metrics
from product_gateway.webhooks.dispatcher import WebhookDispatcher
from tests.support import webhook_receivers
from tests.support.max_ages import set_back
from tests.support.webhook_receivers import SECRET, Hooks

PRODUCT = EntityType.PRODUCT
PATIENCE = 30
HOUR = 3600


@pytest.fixture
def receiver() -> Iterator[Hooks]:
    """A receiver without messages."""
    with webhook_receivers.receiving() as found:
        yield found


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    """Settings with quick polls."""
    return settings.load(
        data_dir=tmp_path, worker_poll_seconds=0.02, allow_private_addresses=True, webhook_retry_seconds=0.05
    )


@asynccontextmanager
async def checking(made: Settings, database: Database, workers: int = 1) -> AsyncIterator[None]:
    """Check catalogs and send messages as this number of workers does, until the block ends."""
    stop, metrics = asyncio.Event(), Metrics()
    supervisor = Supervisor(metrics)
    async with worker.webhook_client(made) as outbound:
        dispatcher = WebhookDispatcher(made, database, outbound, metrics, supervisor)

        async def check(loop: Any) -> None:
            await freshness_loop(database, loop, seconds=0.02)

        sending = asyncio.create_task(dispatcher.run(stop))
        loops = [asyncio.create_task(supervisor.keep(FRESHNESS, check)) for _ in range(workers)]
        try:
            yield
        finally:
            stop.set()
            for each in loops:
                each.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await asyncio.wait_for(sending, PATIENCE)


def published(database: Database) -> None:
    """Let a sync succeed now."""
    database.call(enqueue, "shop", PRODUCT)
    claim = database.call(claims.claim, "tester", 600.0, 5, 2)
    assert claim is not None
    database.call(generations.succeed, claim)


async def received(receiver: Hooks, number: int) -> list[dict[str, Any]]:
    """Return the bodies of the messages when this number has come, their signatures verified."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if len(receiver.messages) >= number:
                return [Webhook(SECRET).verify(each.body, each.headers) for each in receiver.messages]
            await asyncio.sleep(0.02)


async def test_each_lapse_is_told_once_and_signed(database: Database, made: Settings, receiver: Hooks) -> None:
    """Two workers check at the same time. The message is as the spec has it, also before the first sync."""
    document = documents.load(documents.GATEWAY)
    validator = jsonschema_rs.Draft4Validator(
        documents.json_schema(document, "CatalogStaleEvent"), validate_formats=True
    )
    post = document["x-webhooks"]["catalog.stale"]["post"]
    validator.validate(post["requestBody"]["content"]["application/json"]["example"])
    database.call(webhooks.put, "shop", url=f"{receiver.url}/third", secret=Secrets(made).encrypt(SECRET))
    database.call(freshness.put, "shop", {PRODUCT: HOUR})
    async with checking(made, database, workers=2):
        await asyncio.sleep(0.2)
        assert receiver.messages == []
        set_back(database, HOUR + 60)
        first = (await received(receiver, 3))[0]  # the receiver refuses two of three attempts
        await asyncio.sleep(0.2)
        assert {each.headers["webhook-id"] for each in receiver.messages} == {
            receiver.messages[0].headers["webhook-id"]
        }
        assert len({each.body for each in receiver.messages}) == 1

        published(database)
        await received(receiver, 6)
        set_back(database, HOUR + 60)
        bodies = await received(receiver, 9)
        await asyncio.sleep(0.2)
    assert len(receiver.messages) == 9
    assert [each["type"] for each in bodies[::3]] == ["catalog.stale", "sync.succeeded", "catalog.stale"]
    second = bodies[6]
    for body, updated_at in ((first, None), (second, second["data"]["updatedAt"])):
        validator.validate(body)
        assert JSONFormat().read(None, json.dumps(body)).get_subject() == "sync/PRODUCT"
        assert (body["data"]["merchant"], body["data"]["entityType"]) == ("shop", "PRODUCT")
        assert body["data"]["updatedAt"] == updated_at
    stale_after, updated_at = (datetime.fromisoformat(second["data"][name]) for name in ("staleAfter", "updatedAt"))
    assert stale_after - updated_at == timedelta(hours=1)
    assert abs(time.time() - datetime.fromisoformat(second["timestamp"]).timestamp()) < PATIENCE


async def test_a_scrape_counts_stale_catalogs_also_without_a_worker(database: Database) -> None:
    """The reason may be that no worker runs."""

    async def counted(entity_type: EntityType) -> float:
        async with asyncio.timeout(PATIENCE):
            while True:  # on a busy machine, the database may answer too late for a scrape
                metrics = Metrics()
                await MetricsHandlers(database, metrics).get_metrics()
                label = {"entity_type": str(entity_type)}
                found = metrics.registry.get_sample_value("product_gateway_catalogs_stale", label)
                if found is not None:
                    return found

    database.call(freshness.put, "shop", {PRODUCT: HOUR, EntityType.COLLECTION: 3 * HOUR})
    assert [await counted(each) for each in EntityType] == [0, 0]
    set_back(database, 2 * HOUR)
    assert [await counted(each) for each in EntityType] == [1, 0]
    published(database)
    assert [await counted(each) for each in EntityType] == [0, 0]
