"""Long polls: a waiting client gets a response when its sync ends, and costs little until then."""

import asyncio
import json
import shutil
import signal
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import event
from uuid_utils.compat import uuid7

from product_gateway.api.long_poll import SyncWaiters
from product_gateway.api.syncs import SyncHandlers
from product_gateway.db import syncs
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import SyncNotFound
from product_gateway.http import responses
from product_gateway.http.prefer import wait_seconds
from product_gateway.model.syncs import EntityType, Sync, SyncStatus
from product_gateway.telemetry.metrics import Metrics
from tests.support.contract import Gateway, error, gateway
from tests.support.deployment import API, Deployment, within
from tests.support.raw_http import Wire

PRODUCT, COLLECTION = EntityType
AT_ONCE = 3
SOON = 10  # seconds, on a busy machine; each wait that must end sooner is longer than that
LONG = 40
MANY = 300

READ = {
    "wait=20": 20,
    "WAIT = 5 ; x=y, foo": 5,
    'respond-async, wait="7"': 7,
    'wait="\\1\\2"': 12,
    'foo="a, wait=3", wait=4': 4,
    "wait=3, wait=4": 3,
    ", ,wait=9,": 9,
    "foo bar, wait=5": 5,
    "wait=50": 50,
    "wait=51": 50,
    "wait=" + "9" * 900: 50,
    'foo="a, wait=3': 0,
    "wait=abc, wait=4": 0,
    "wait": 0,
    "wait=": 0,
    'wait=""': 0,
    "wait=0": 0,
    "wait=-1": 0,
    "wait=1.5": 0,
    "wait=5 6": 0,
    "wait=5=6": 0,
    "foo;wait=5": 0,
    "wait5": 0,
    "wait=\u0661": 0,
    "": 0,
}


@pytest.mark.parametrize(("prefer", "seconds"), READ.items(), ids=lambda value: str(value)[:30])
def test_prefer_is_parsed_as_in_rfc_7240(prefer: str, seconds: int) -> None:
    """An invalid preference is ignored, and the first of a name counts."""
    assert wait_seconds(prefer) == seconds


def test_parsing_takes_linear_time() -> None:
    """Clients could send input that makes a regular expression backtrack."""
    began = time.process_time()
    for text in ("a" + " ; " * 300 + "!@", '"' * 1000, 'a="\\' * 250, "a= " * 330, 'a="' + "\\" * 990, "a," * 500):
        assert wait_seconds(text) == 0
    assert time.process_time() - began < 0.5


def test_a_poll_finds_ended_syncs_and_timed_out_ones(database: Database) -> None:
    """By merchant and id, and with more keys than one statement takes."""
    one, two = (database.call(enqueue, "shop", each) for each in EntityType)
    other = database.call(enqueue, "other", PRODUCT)
    nobodys = [("shop", uuid7()) for _ in range(2 * syncs.KEYS_AT_ONCE)]
    keys = [("shop", one.id), *nobodys, ("shop", two.id), ("other", other.id), ("other", one.id)]
    missing = {*nobodys, ("other", one.id)}
    found, gone = database.call(syncs.ended_among, keys, [])
    assert (found, set(gone)) == ([], missing)
    cancelled = database.call(syncs.cancel, "shop", COLLECTION)
    (ended, *more), gone = database.call(syncs.ended_among, keys, [])
    assert (more, set(gone)) == ([], missing)
    assert (ended.id, ended.merchant, ended.status) == (two.id, "shop", "CANCELLED")
    assert ended.finished_at == cancelled.finished_at
    unknown = ("shop", uuid7())
    found_anyway, gone = database.call(syncs.ended_among, keys[-1:], [keys[0], unknown])
    assert set(gone) == {keys[-1], unknown}
    assert [(each.id, each.status) for each in found_anyway] == [(one.id, "QUEUED")]


def test_a_poll_uses_the_index(sqlite_template: Path, tmp_path: Path) -> None:
    """For any length of the history. tests/db/test_plans.py has the same for PostgreSQL."""
    shutil.copy(sqlite_template, tmp_path / "gateway.db")
    with open_database(f"sqlite:///{tmp_path / 'gateway.db'}") as database:
        plan: list[str] = []

        def explain(_: Any, cursor: Any, statement: str, values: Any, *__: Any) -> None:
            if statement.startswith("SELECT"):
                cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)
                plan.extend(row[3] for row in cursor.fetchall())

        event.listen(database.engine, "before_cursor_execute", explain)
        database.call(syncs.ended_among, [("shop", uuid7())], [("shop", uuid7())])
    assert len([each for each in plan if "syncs" in each]) == 2, plan
    assert all("SEARCH" in each and "merchant=? AND id=?" in each for each in plan if "syncs" in each), plan


def test_the_number_of_queries_does_not_grow_with_the_waiting_clients(database: Database) -> None:
    """One query every half second for all of them, and one more for a client whose time is up."""
    waited_for = [database.call(enqueue, "shop", each) for each in EntityType]
    asked: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))

    async def wait(clients: int) -> tuple[int, list[Sync]]:
        waiting, never = SyncWaiters(database, clients), asyncio.get_running_loop().create_future()
        asked.clear()
        responses = [asyncio.create_task(waiting.wait_until_ended(waited_for[n % 2], 2, never)) for n in range(clients)]
        await asyncio.sleep(0)
        assert waiting.is_full
        found = await asyncio.gather(*responses)
        assert waiting.count == 0
        await waiting.aclose()
        return len([each for each in asked if "SELECT" in each]), found

    alone, _ = asyncio.run(wait(1))
    in_a_crowd, found = asyncio.run(wait(MANY))
    assert {each.id for each in found} == {each.id for each in waited_for}
    assert 2 <= alone <= 8
    assert in_a_crowd <= alone + 6, f"one client: {alone} statements, {MANY}: {in_a_crowd}"


async def test_a_half_closed_client_gets_the_current_state(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process may have ended the sync during the wait."""
    sync = database.call(enqueue, "shop", PRODUCT)
    waiting = SyncWaiters(database)
    disconnected: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    answer = asyncio.create_task(waiting.wait_until_ended(sync, LONG, disconnected))
    await asyncio.sleep(0)
    database.call(syncs.cancel, "shop", PRODUCT)
    disconnected.set_result(False)
    assert (await asyncio.wait_for(answer, SOON)).status is SyncStatus.CANCELLED
    gone: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    answer = asyncio.create_task(waiting.wait_until_ended(sync, LONG, gone))
    await asyncio.sleep(0)
    waiting.ended(sync)
    gone.set_result(True)  # the result is already set and does not change
    assert await asyncio.wait_for(answer, SOON) is sync
    await waiting.aclose()
    assert caplog.text == ""


async def test_only_a_client_with_an_active_sync_and_a_preference_waits(database: Database) -> None:
    """Others get a response at once, also when no more clients may wait."""
    handlers = SyncHandlers(database, Metrics(), SyncWaiters(database, most=0))
    active = database.call(enqueue, "shop", PRODUCT)
    database.call(enqueue, "other", PRODUCT)
    ended = database.call(syncs.cancel, "other", PRODUCT)
    database.start_deadline()
    for roomy in (handlers, SyncHandlers(database, Metrics(), SyncWaiters(database, most=1))):
        at_once = await roomy.get_sync("shop", active.id, None)
        assert isinstance(at_once, responses.Response)
        assert "Preference-Applied" not in at_once.headers
        done = await roomy.get_sync("other", ended.id, "wait=7")
        assert isinstance(done, responses.Response)
        assert done.headers["Preference-Applied"] == "wait=7"
    full = await handlers.get_sync("shop", active.id, "wait=7")
    assert isinstance(full, responses.Response)
    assert "Preference-Applied" not in full.headers
    assert isinstance(await roomy.get_sync("shop", active.id, "wait=7"), responses.DeferredResponse)


def test_a_sync_that_is_removed_during_the_wait_is_404(database: Database) -> None:
    """For example with its merchant."""
    nobodys = database.call(enqueue, "shop", PRODUCT)._replace(id=uuid7())

    async def wait() -> None:
        with pytest.raises(SyncNotFound):
            await SyncWaiters(database).wait_until_ended(nobodys, 0.3, asyncio.get_running_loop().create_future())

    asyncio.run(wait())


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Start a gateway with few slots and without a worker: a sync ends when a test cancels it."""
    folder = tmp_path_factory.mktemp("waiting")
    shutil.copy(sqlite_template, folder / "gateway.db")
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}", requests_at_once=str(AT_ONCE)) as served:
        yield served


class Shop:
    """A merchant with a queued sync, and its waiting clients."""

    def __init__(self, served: Gateway, name: str) -> None:
        served.add(name)
        self.name = name
        self.served = served
        self.client = served.of(name)
        self.sync: str = self.client.put(f"{API}/sync/PRODUCT").json()["data"]["id"]
        self._threads = ThreadPoolExecutor(20)

    def ask(self, *prefer: str) -> httpx2.Response:
        """Send one request with these lines of Prefer."""
        with self.served.of(self.name) as client:
            return client.get(f"{API}/syncs/{self.sync}", headers=[("Prefer", each) for each in prefer])

    def wait(self, *prefer: str) -> "Future[httpx2.Response]":
        """The same in a thread."""
        return self._threads.submit(self.ask, *prefer)

    def wait_when_there_is_room(self, *prefer: str) -> "Future[httpx2.Response]":
        """Send the request in a thread and repeat it while the gateway answers 503."""

        def admitted() -> httpx2.Response | None:
            answer = self.ask(*prefer)
            return None if answer.status_code == 503 else answer

        return self._threads.submit(within, SOON, admitted)

    def request(self, seconds: int) -> bytes:
        authorization = f"Authorization: Bearer {self.served.token(self.name)}"
        head = f"GET {API}/syncs/{self.sync} HTTP/1.1\r\nHost: x\r\n{authorization}\r\nPrefer: wait={seconds}\r\n"
        return f"{head}X-Request-Id: {self.name}\r\n\r\n".encode()

    def cancel(self) -> None:
        assert self.client.delete(f"{API}/sync/PRODUCT").status_code == 202

    def logged(self) -> str | None:
        """Return the access log line of the request that was sent as bytes."""
        log = "".join(path.read_text() for path in self.served.deployment.folder.glob("serve-*.log"))
        lines = [line for line in log.splitlines() if f"request_id={self.name}" in line]
        return lines[0] if lines else None


@pytest.fixture
def shop(served: Gateway, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """Return a new merchant."""
    shop = Shop(served, f"shop{abs(hash(request.node.name)) % 10**12}")
    yield shop
    shop.client.delete(f"{API}/sync/PRODUCT")
    shop.client.close()


def test_a_waiting_client_gets_a_response_when_the_sync_ends(shop: Shop) -> None:
    """With the ended sync and without Retry-After."""
    answer = shop.wait(f"wait={LONG}")
    time.sleep(0.7)
    assert not answer.done()
    shop.cancel()
    found = answer.result(SOON)
    assert found.json()["data"]["status"] == "CANCELLED"
    assert found.headers["Preference-Applied"] == f"wait={LONG}"
    assert "Retry-After" not in found.headers


def test_a_waiting_client_gets_a_response_when_another_process_ends_the_sync(shop: Shop) -> None:
    """Such as a worker on another machine."""
    answer = shop.wait(f"wait={LONG}")
    time.sleep(0.3)
    with open_database(shop.served.deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]) as database:
        database.call(syncs.cancel, shop.name, PRODUCT)
    assert answer.result(SOON).json()["data"]["status"] == "CANCELLED"


def test_a_waiting_client_gets_the_current_state_when_its_time_is_up(shop: Shop) -> None:
    began = time.monotonic()
    found = shop.ask("wait=1")
    assert 0.8 < time.monotonic() - began < 1 + SOON
    assert found.json()["data"]["status"] == "QUEUED"
    assert found.headers["Preference-Applied"] == "wait=1"
    assert "Retry-After" in found.headers


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        (["wait=600"], "wait=50"),
        (["respond-async", "handling=lenient, Wait = 7"], "wait=7"),
        (["x" * 2000, "wait=3"], "wait=3"),
        (["wait=3", "x" * 2000], "wait=3"),
        (["wait=3", "wait=4"], "wait=3"),
    ],
)  # fmt: skip
def test_preference_applied_has_the_seconds_and_an_ended_sync_is_not_waited_for(
    shop: Shop, prefer: list[str], applied: str
) -> None:
    """At most 50 s are applied; several lines are one list."""
    shop.cancel()
    assert shop.ask(*prefer).headers["Preference-Applied"] == applied


def test_an_invalid_preference_is_ignored(shop: Shop) -> None:
    """A client may send preferences that only a newer gateway knows."""
    for prefer in ([], [""], ["wait=soon"], ['"'], ["wait=-1", "wait=1 2"], ["wait=0"], ["x" * 5000 + ",wait=40"]):
        found = shop.ask(*prefer)
        assert found.status_code == 200
        assert "Preference-Applied" not in found.headers
        assert "Retry-After" in found.headers


def test_a_refused_client_does_not_wait(served: Gateway, shop: Shop) -> None:
    """All checks come before the wait: the time reveals nothing."""
    path, prefer = f"{API}/syncs/{shop.sync}", {"Prefer": f"wait={LONG}"}
    began = time.monotonic()
    other = f"{shop.name}-other"
    served.add(other)
    with served.of(other) as stranger:
        error(stranger.get(path, headers=prefer), 404)
    with served.of(shop.name, "sync:write") as writer:
        error(writer.get(path, headers=prefer), 403)
    with served.client(None) as anonymous:
        error(anonymous.get(path, headers=prefer), 401)
    error(shop.client.get(f"{API}/syncs/{uuid7()}", headers=prefer), 404)
    served.change(shop.name, disabled=True)
    error(shop.client.get(path, headers=prefer), 403)
    served.change(shop.name, disabled=False)
    assert time.monotonic() - began < SOON


def test_a_waiting_client_does_not_occupy_a_slot(shop: Shop) -> None:
    """Three requests may run here. More clients wait, and others are served meanwhile."""
    responses = [shop.wait_when_there_is_room(f"wait={LONG}") for _ in range(AT_ONCE * 3)]
    time.sleep(1)
    within(SOON, lambda: all(shop.client.get(f"{API}/syncs").status_code == 200 for _ in range(10)))
    assert not any(each.done() for each in responses)
    shop.cancel()
    assert {each.result(SOON).status_code for each in responses} == {200}
    for _ in range(10):
        assert shop.client.get(f"{API}/syncs").status_code == 200


def test_the_wait_of_a_disconnected_client_ends_at_once(shop: Shop) -> None:
    """The log has no response, and no waiter is left."""
    wire = Wire(shop.served.url)
    wire.send(shop.request(LONG))
    time.sleep(0.5)
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # as if its machine had died
    wire.socket.close()
    assert "status=0" in within(SOON, shop.logged)


def test_a_half_closed_client_gets_a_response_at_once(shop: Shop) -> None:
    """It may have disconnected. If it has not, it gets the current state without Preference-Applied."""
    with Wire(shop.served.url) as wire:
        wire.send(shop.request(LONG))
        time.sleep(0.5)
        wire.half_close()
        (reply,) = wire.until_end().replies
    assert reply.status == 200
    assert json.loads(reply.body)["data"]["status"] == "QUEUED"
    assert reply.all("preference-applied") == []
    assert len(reply.all("retry-after")) == 1
    with Wire(shop.served.url) as wire:  # the same, before the server has begun to wait
        wire.send(shop.request(LONG))
        wire.half_close()
        assert wire.until_end().statuses == [200]


def test_a_shutdown_answers_waiting_clients_with_the_current_state(sqlite_deployment: Deployment) -> None:
    """Without Preference-Applied, so that clients wait for Retry-After before they retry."""
    with sqlite_deployment.process("serve", "--port", "0") as process:
        shop = Shop(Gateway(sqlite_deployment, process.url()), "shop")
        shop.client.close()
        with ExitStack() as stack:
            wires = [stack.enter_context(Wire(process.url())) for _ in range(20)]
            for wire in wires:
                wire.send(shop.request(LONG))
            time.sleep(2)
            for wire in wires:
                wire.listen()
                assert wire.said.replies == []
            process.send(signal.SIGTERM)
            for wire in wires:
                (reply,) = wire.until_end().replies
                assert json.loads(reply.body)["data"]["status"] == "QUEUED"
                assert (reply.all("preference-applied"), len(reply.all("retry-after"))) == ([], 1)
        assert process.wait() == 0
        assert "Traceback" not in process.log.read_text()
