"""The monitor's stream: one look at the database for all who watch, and none when they have gone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, event

from product_gateway import settings
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.syncs import EntityType
from product_gateway.operations.app import create_operations_app
from product_gateway.operations.monitor import broadcast
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry.metrics import Metrics
from tests.support.databases import url_of
from tests.support.serving import serve


@pytest.fixture
async def watched(database: Database) -> AsyncIterator[tuple[str, list[str]]]:
    """A server, and the statements that it asks its database."""
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    app, end_streams = create_operations_app(settings.load(database_url=url_of(database)), Metrics())
    with serve(app) as base:
        yield base, asked
        end_streams()
    event.remove(Engine, "before_cursor_execute", note)


async def test_many_viewers_cost_the_database_as_much_as_one(
    watched: tuple[str, list[str]], database: Database
) -> None:
    """Thirty open pages see a sync start. After they close, the database is no longer polled."""
    base, asked = watched
    viewers = 30
    heard = [asyncio.Event() for _ in range(viewers)]
    began = asyncio.Event()

    async def view(client: httpx2.AsyncClient, number: int) -> None:
        async with client.stream("GET", f"{base}/monitor/api/stream") as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            async for line in answer.aiter_lines():
                if line.startswith("data: ") and "queue" in line:
                    began.set()
                    if "shop" in line:
                        heard[number].set()

    limits = httpx2.Limits(max_connections=viewers + 5)
    async with httpx2.AsyncClient(timeout=60, limits=limits) as client:
        watching = [asyncio.create_task(view(client, number)) for number in range(viewers)]
        await asyncio.wait_for(began.wait(), 30)
        before, started = len(asked), asyncio.get_running_loop().time()
        await database.write(enqueue, "shop", EntityType.PRODUCT)
        await asyncio.wait_for(asyncio.gather(*(each.wait() for each in heard)), 30)
        await asyncio.sleep(4)
        seconds = asyncio.get_running_loop().time() - started
        looks = seconds / 2 + 2
        assert len(asked) - before <= looks * 20, "each viewer asks the database"
        for each in watching:
            each.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    await asyncio.sleep(3)
    quiet = len(asked)
    await asyncio.sleep(3)
    assert len(asked) == quiet, "the database is polled without a viewer"


async def test_a_viewer_who_goes_as_news_come_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.12, `asyncio.wait_for` forgets that it was cancelled when what it waits for is there as well."""
    monkeypatch.setattr(broadcast, "SECONDS_BETWEEN_LOOKS", 0.01)
    looks = 0

    async def look() -> broadcast.Parts:
        nonlocal looks
        looks += 1
        if looks == 5:
            asyncio.get_running_loop().call_soon(viewing.cancel)
        return {"queue": str(looks)}

    async def view() -> None:
        async for _ in stream:
            pass

    stream = broadcast.Broadcaster(look, Supervisor(Metrics())).stream()
    viewing = asyncio.create_task(view())
    ended, _ = await asyncio.wait([viewing], timeout=5)
    viewing.cancel()
    assert ended, "the stream continues without a viewer"
    assert viewing.cancelled()
