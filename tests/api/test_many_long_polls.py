"""Hundreds of waiting clients cost no threads and no queries."""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from product_gateway import settings
from product_gateway.api.app import create_app
from product_gateway.auth import keys
from product_gateway.db import merchants
from product_gateway.db.database import open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.http.middleware.request_context import RequestContextMiddleware
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from product_gateway.services import http_server, sockets
from tests.support.deployment import API
from tests.support.load import Answer, Connection, Footprint, written

PRODUCT, COLLECTION = EntityType
MANY = 300
FEW = 25
SOON = 10  # seconds, on a busy machine


class Counted:
    """A gateway in this process, with a count of its statements."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.settings = settings.load(data_dir=folder / "var", database_url=database_url, access_log=False)
        self.statements = 0
        with open_database(database_url) as database:
            database.call(merchants.add, "shop", Platform.BYOP, "https://shop.example")
            self.ids = [database.call(enqueue, "shop", each).id for each in EntityType]
        self.token = keys.issue_token(self.settings, "shop", list(keys.SCOPES), timedelta(hours=1))
        self.requests = [
            written(f"{API}/syncs/{each}", self.token)[:-2] + b"Prefer: wait=50\r\n\r\n" for each in self.ids
        ]

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Yield the URL; at the end, check that the server stops in time."""

        def count(*_: Any) -> None:
            self.statements += 1

        event.listen(Engine, "before_cursor_execute", count)
        try:
            listening = sockets.bind("127.0.0.1", 0)
            app = create_app(self.settings)
            assert isinstance(app, RequestContextMiddleware)
            self.edge = app
            with http_server.HTTPServer(app, listening):
                yield sockets.url_of(listening)
        finally:
            event.remove(Engine, "before_cursor_execute", count)


def test_hundreds_of_waiting_clients_cost_no_threads_and_no_queries(database_url: str, tmp_path: Path) -> None:
    """Over real connections. All get a response soon after the sync has ended."""
    assert sockets.max_connections() > 2 * MANY + 200, "this test needs more open files than the machine allows"
    counted = Counted(database_url, tmp_path)
    with counted.serving() as url:
        asyncio.run(hundreds(counted, url))


async def hundreds(counted: Counted, url: str) -> None:
    """Half of them wait for one sync, half for another."""

    async def ask(number: int) -> Answer:
        connection = await Connection.to(url)
        try:
            for _ in range(60):
                answer = await connection.ask(counted.requests[number % 2])
                if answer.status != 503:  # a busy machine may be late for the database's deadline
                    break
                await asyncio.sleep(0.5)
            return answer
        finally:
            connection.close()

    async def wait(numbers: range) -> list[asyncio.Task[Answer]]:
        """A few at a time, until nothing is asked but how the syncs are."""
        responses = []
        async with asyncio.timeout(120):
            for first in range(0, len(numbers), FEW):
                some = numbers[first : first + FEW]
                responses += [asyncio.create_task(ask(n)) for n in some]
                while counted.edge.in_flight <= some[-1]:  # noqa: ASYNC110 - it is another thread that counts
                    await asyncio.sleep(0.01)
            while await statements(1) > 8:
                pass
        return responses

    async def statements(seconds: float) -> int:
        before = counted.statements
        await asyncio.sleep(seconds)
        return counted.statements - before

    responses = await wait(range(1))
    alone, before = await statements(3), Footprint.of(os.getpid())
    responses += await wait(range(1, MANY))
    in_a_crowd, after = await statements(3), Footprint.of(os.getpid())
    assert [each.result() for each in responses if each.done()] == []
    assert after.files >= before.files + 2 * (MANY - 1), "both ends of each connection are here"
    assert after.threads <= before.threads + 8, "the database may have got all of its threads by now, no more"
    assert 3 <= alone <= 20
    assert in_a_crowd <= 2 * alone, f"one client: {alone} statements in 3 s, {MANY}: {in_a_crowd}"
    other = await Connection.to(url)
    taken = [await other.ask(written(f"{API}/syncs", counted.token)) for _ in range(20)]
    assert {each.status for each in taken} == {200}
    assert max(each.seconds for each in taken) < SOON
    assert (await other.ask(written(f"{API}/sync/PRODUCT", counted.token, "DELETE"))).status == 202
    other.close()
    async with asyncio.timeout(SOON):
        ended = await asyncio.gather(*responses[::2])
    assert {json.loads(each.body)["data"]["status"] for each in ended} == {"CANCELLED"}
    assert {each.headers["preference-applied"] for each in ended} == {"wait=50"}
    assert not any(each.done() for each in responses[1::2])
    for each in responses[1::2]:
        each.cancel()
    await asyncio.gather(*responses, return_exceptions=True)
