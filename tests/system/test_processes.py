"""`--processes N`: one port, one operations port, and processes that may die."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from product_gateway.db import syncs
from product_gateway.model.syncs import EntityType
from tests.support.contract import Gateway
from tests.support.deployment import API, Deployment, Process, ended, is_ready, within
from tests.support.load import Connection, written
from tests.support.metrics_scrape import Scrape
from tests.support.paced_service import PacedService
from tests.support.process_groups import API as APIS
from tests.support.process_groups import is_alive, members, only, replaced
from tests.support.serving import serve

SOON = 20  # seconds, on a busy machine
REQUESTS = 120


@contextmanager
def serving(deployment: Deployment, processes: int, *more: str) -> Iterator[tuple[Process, Gateway]]:
    """Run a gateway of several processes."""
    with deployment.process("serve", "--port", "0", "--processes", str(processes), *more) as parent:
        yield parent, Gateway(deployment, parent.url())


@contextmanager
def connected_to(parent: Process, gateway: Gateway, name: str, merchant: str = "shop") -> Iterator[httpx2.Client]:
    """Yield a client of the merchant whose only connection is to the process with this name."""
    headers, one = {"Authorization": f"Bearer {gateway.token(merchant)}"}, httpx2.Limits(max_connections=1)
    with httpx2.Client(base_url=gateway.url, headers=headers, timeout=30, limits=one) as client:
        with only(parent, name):
            assert client.get("/health/live").status_code == 200
        yield client


def test_metrics_are_summed_up_and_a_killed_process_is_replaced(sqlite_deployment: Deployment) -> None:
    """No client is refused for longer than a moment, and no counter falls."""
    with serving(sqlite_deployment, 2) as (parent, gateway), ExitStack() as stack:
        operations = parent.operations_url()
        gateway.add("shop")
        before = members(parent)
        assert list(before) == ["pg-api-1", "pg-api-2", "pg-operations-1"]
        for name in members(parent, APIS):
            client = stack.enter_context(connected_to(parent, gateway, name))
            for _ in range(3):
                assert client.get(f"{API}/syncs").status_code == 200
        first = Scrape(operations)
        assert first.of("requests_total")["listSyncs 200"] == 6
        assert first.of("request_duration_seconds_count")["listSyncs"] == 6
        assert first.total("database_up") == 1
        assert first.of("process_restarts_total") == {}
        os.kill(before["pg-api-1"], signal.SIGKILL)
        replaced(parent, "pg-api-1", before["pg-api-1"])
        within(SOON, lambda: httpx2.get(f"{operations}/health/ready").status_code == 200)
        with connected_to(parent, gateway, "pg-api-1") as client:
            assert client.get(f"{API}/syncs").status_code == 200
        again = Scrape(operations)
        assert again.of("requests_total")["listSyncs 200"] == 7
        assert again.of("process_restarts_total") == {"api": 1}
        said = parent.log.read_text()
        assert said.count("was ended by SIGKILL") == 1
        assert f"The process api 1 ({before['pg-api-1']}) was ended by SIGKILL. Another one starts in 0.2 s." in said
        # The process with the operations port is replaced, too, and the counters are not its own.
        os.kill(before["pg-operations-1"], signal.SIGKILL)
        replaced(parent, "pg-operations-1", before["pg-operations-1"])
        last = Scrape(operations)
        assert last.of("requests_total")["listSyncs 200"] == 7
        assert last.of("process_restarts_total") == {"api": 1, "operations": 1}


async def test_connections_are_shared_evenly(sqlite_deployment: Deployment) -> None:
    """Otherwise the process that wakes up first gets most of them, and keeps them."""
    with serving(sqlite_deployment, 3) as (parent, gateway):
        pids = members(parent, APIS).values()
        before = [open_sockets(each) for each in pids]
        clients = await asyncio.gather(*(Connection.to(gateway.url) for _ in range(90)))  # a burst
        for each in clients:
            assert (await each.ask(written("/health/live"))).status == 200
        found = [open_sockets(pid) - had for pid, had in zip(pids, before, strict=True)]
        assert sum(found) >= 90
        assert min(found) >= 20, found
        # A process that does not respond is left out, and the others accept what is its share.
        with only(parent, "pg-api-1"):
            more = [await Connection.to(gateway.url) for _ in range(30)]
            for each in more:
                assert (await each.ask(written("/health/live"))).status == 200
        for each in (*clients, *more):
            each.close()


def open_sockets(pid: int) -> int:
    """Return the number of sockets that a process has open."""
    return sum(str(each.readlink()).startswith("socket:") for each in Path(f"/proc/{pid}/fd").iterdir())


def test_readiness_names_a_process_that_does_not_respond(sqlite_deployment: Deployment) -> None:
    """One that is suspended, or that has ended and is not replaced yet. The scrape has its last figures."""
    with serving(sqlite_deployment, 2) as (parent, gateway):
        ready = f"{parent.operations_url()}/health/ready"
        assert httpx2.get(ready).status_code == 200
        with only(parent, "pg-api-1"):
            answer = httpx2.get(ready)
            assert answer.status_code == 503
            assert answer.json()["error"][0]["detail"] == "The process api 2 does not respond."
            assert Scrape(parent.operations_url()).seconds < 2
            assert httpx2.get(f"{gateway.url}/health/ready").status_code == 200, "the other process is well"
        within(SOON, lambda: httpx2.get(ready).status_code == 200)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_drains_all_processes(sqlite_deployment: Deployment, number: signal.Signals) -> None:
    """Clients that wait get their answer, the port is closed at once, and no process stays."""
    with serving(sqlite_deployment, 2, "--with-worker") as (parent, gateway):
        gateway.add("shop", "http://127.0.0.1:9")
        assert len(members(parent)) == 4

        async def wait_and_stop() -> list[int]:
            request = written(f"{API}/sync/COLLECTION", gateway.token("shop"), "PUT")
            request = request.replace(b"\r\n\r\n", b"\r\nPrefer: wait=30\r\n\r\n")
            clients = [await Connection.to(gateway.url) for _ in range(8)]
            waiting = [asyncio.create_task(client.ask(request)) for client in clients]
            await asyncio.sleep(0.5)
            pids = list(members(parent).values())
            parent.send(number)
            statuses = {(await each).status for each in waiting}
            assert statuses <= {202, 429, 503}, statuses
            for each in clients:
                each.close()
            return pids

        began = time.monotonic()
        pids = asyncio.run(wait_and_stop())
        assert parent.wait() == 0
        assert time.monotonic() - began < 10
        assert not [each for each in pids if is_alive(each)]
        assert "Traceback" not in parent.log.read_text()
        with pytest.raises(httpx2.TransportError):
            httpx2.get(gateway.url)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_processes_end_when_their_parent_is_killed(sqlite_deployment: Deployment, number: signal.Signals) -> None:
    """Otherwise they would hold the port, and a restarted gateway could not start."""
    with serving(sqlite_deployment, 2, "--with-worker") as (parent, gateway):
        pids = list(members(parent).values())
        assert len(pids) == 4
        parent.send(number)
        assert parent.wait() == -number
        within(SOON, lambda: not any(is_alive(each) for each in pids))
        port = str(urlsplit(gateway.url).port)
        with sqlite_deployment.process("serve", "--port", port, "--processes", "2") as again:
            assert is_ready(again.url())


async def test_of_many_puts_at_several_processes_one_is_accepted(deployment: Deployment) -> None:
    """The database decides. A sync that was accepted is there after its process was killed."""
    with serving(deployment, 3) as (parent, gateway):
        for merchant in ("shop", "other"):
            gateway.add(merchant)
        async with asyncio.timeout(60):
            connections: list[Connection] = []
            for name in members(parent, APIS):
                connections += await accepted_by(parent, gateway, name, REQUESTS // 3)
            put = written(f"{API}/sync/PRODUCT", gateway.token("shop"), "PUT")
            answers = await asyncio.gather(*(each.ask(put) for each in connections))
            statuses = Counter(each.status for each in answers)
            assert statuses[202] == 1, statuses
            assert statuses.keys() <= {202, 429, 503}, statuses  # 503: for whom a busy machine has no time
            assert statuses[429] >= 10, statuses
            [kept] = [json.loads(each.body)["data"]["id"] for each in answers if each.status == 202]
            # Kill a process that has just accepted a sync, and the others with it.
            put = written(f"{API}/sync/COLLECTION", gateway.token("other"), "PUT")
            accepted = json.loads((await connections[0].ask(put)).body)["data"]["id"]
            before = members(parent, APIS)
            for each in before.values():
                os.kill(each, signal.SIGKILL)
            for name, pid in before.items():
                replaced(parent, name, pid)
            for connection in connections:
                connection.close()
        with gateway.database() as database:
            found = [
                database.call(syncs.latest, *key)
                for key in (("shop", EntityType.PRODUCT), ("other", EntityType.COLLECTION))
            ]
        assert [str(each.id) for each in found if each] == [kept, accepted]
        with gateway.of("shop") as shop:
            assert shop.put(f"{API}/sync/PRODUCT").status_code == 429


async def accepted_by(parent: Process, gateway: Gateway, name: str, count: int) -> list[Connection]:
    """Return connections to the process with this name."""
    with only(parent, name):
        found = [await Connection.to(gateway.url) for _ in range(count)]
        for each in found:
            assert (await each.ask(written("/health/live"))).status == 200
    return found


def test_a_long_poll_ends_when_another_process_cancels_the_sync(sqlite_deployment: Deployment) -> None:
    """Processes share only the database. A client that waits for a generation is the same."""
    with serving(sqlite_deployment, 2) as (parent, gateway), ExitStack() as stack:
        gateway.add("shop")
        waiting, acting = (stack.enter_context(connected_to(parent, gateway, name)) for name in members(parent, APIS))
        sync = acting.put(f"{API}/sync/PRODUCT").json()["data"]
        answers: list[httpx2.Response] = []

        async def wait() -> None:
            answers.append(
                await asyncio.to_thread(waiting.get, f"{API}/syncs/{sync['id']}", headers={"Prefer": "wait=25"})
            )

        async def both() -> float:
            task = asyncio.create_task(wait())
            await asyncio.sleep(0.5)
            assert acting.delete(f"{API}/sync/PRODUCT").status_code == 202
            cancelled = time.monotonic()
            await task
            return time.monotonic() - cancelled

        assert asyncio.run(both()) < 5
        assert answers[0].json()["data"]["status"] == "CANCELLED"


def test_the_worker_beside_several_processes_is_woken_by_each(deployment: Deployment) -> None:
    """Also on SQLite, which has no notifications: it would look for syncs after 50 seconds only."""
    deployment.environment["PRODUCT_GATEWAY_WORKER_POLL_SECONDS"] = "50"
    service = PacedService()
    with (
        serve(service) as address,
        serving(deployment, 2, "--with-worker") as (parent, gateway),
        ExitStack() as stack,
    ):
        gateway.add("shop", f"{address}/shop")
        service.allow("shop")
        assert len(members(parent, "pg-worker")) == 1
        for name in members(parent, APIS):
            client = stack.enter_context(connected_to(parent, gateway, name))
            assert ended(client, client.put(f"{API}/sync/PRODUCT").json()["data"], SOON)["status"] == "SUCCEEDED"
        counted = Scrape(parent.operations_url())
        assert counted.total("claims_total") == 2
        assert counted.of("syncs_ended_total")["PRODUCT  SUCCEEDED"] == 2


def test_several_worker_processes_have_one_operations_port(sqlite_deployment: Deployment) -> None:
    """A killed one is replaced, and another continues its sync."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_LEASE_SECONDS"] = "1"
    sqlite_deployment.environment["PRODUCT_GATEWAY_WORKER_CONCURRENCY"] = "1"
    service, shops = PacedService(), ("one", "two")
    with (
        serve(service) as address,
        sqlite_deployment.serving() as url,
        sqlite_deployment.process("worker", "--processes", "2") as parent,
        ExitStack() as stack,
    ):
        operations, gateway = parent.operations_url(), Gateway(sqlite_deployment, url)
        clients = []
        for shop in shops:
            gateway.add(shop, f"{address}/{shop}")
            clients.append(stack.enter_context(gateway.of(shop)))
        asked = [client.put(f"{API}/sync/PRODUCT").json()["data"] for client in clients]
        within(SOON, lambda: Scrape(operations).total("syncs_running") == 2)
        before = members(parent)
        assert list(before) == ["pg-operations-1", "pg-worker-1", "pg-worker-2"]
        os.kill(before["pg-worker-2"], signal.SIGKILL)
        replaced(parent, "pg-worker-2", before["pg-worker-2"])
        for shop in shops:
            service.allow(shop)
        assert [ended(*each, SOON)["status"] for each in zip(clients, asked, strict=True)] == ["SUCCEEDED"] * 2
        counted = Scrape(operations)
        assert counted.of("process_restarts_total") == {"worker": 1}
        assert counted.total("claims_total") == 3
        assert counted.total("lease_takeovers_total") == 1
        parent.send(signal.SIGTERM)
        assert parent.wait() == 0
        begun = [line for line in parent.log.read_text().splitlines() if "The sync begins" in line]
        assert {line.rpartition(" process=")[2] for line in begun} == {"pg-worker-1", "pg-worker-2"}


def test_a_rate_limit_holds_over_all_processes(sqlite_deployment: Deployment) -> None:
    """Of merchants and of addresses. A process that is killed does not reset it."""
    sqlite_deployment.environment |= {
        "PRODUCT_GATEWAY_RATE_LIMIT_PER_MERCHANT": "6/day",
        "PRODUCT_GATEWAY_RATE_LIMIT_PER_ADDRESS": "20/day",
    }
    with serving(sqlite_deployment, 2) as (parent, gateway), ExitStack() as stack:
        gateway.add("shop")
        names = members(parent, APIS)
        one, two = (stack.enter_context(connected_to(parent, gateway, name)) for name in names)
        assert [client.get(f"{API}/syncs").status_code for client in (one, two) * 4] == [200] * 6 + [429] * 2
        Scrape(parent.operations_url())  # else, what the process has counted in the last seconds is lost with it
        os.kill(names["pg-api-1"], signal.SIGKILL)
        replaced(parent, "pg-api-1", names["pg-api-1"])
        with connected_to(parent, gateway, "pg-api-1") as anew:
            assert anew.get(f"{API}/syncs").status_code == 429
            # 9 were counted for the address; the probes are not.
            pages = [client.get("/openapi.yaml").status_code for client in (anew, two) * 6]
            assert pages == [200] * 11 + [429]
        refused = Scrape(parent.operations_url()).of("requests_refused_total")
        assert refused == {"merchant": 3, "address": 1}


@pytest.mark.parametrize("command", ["serve --port 0", "worker"])
def test_what_prevents_the_start_is_said_once(tmp_path: Path, command: str) -> None:
    """In the same words and with the same exit status as with one process."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    away = Deployment(tmp_path, f"postgresql://gateway@127.0.0.1:{port}/catalog")
    no_key = Deployment(tmp_path, f"sqlite:///{tmp_path / 'gateway.db'}")
    (tmp_path / "no.key").write_text("no key")
    no_key.run("migrate")
    no_key.environment["PRODUCT_GATEWAY_SECRET_KEY_FILE"] = str(tmp_path / "no.key")
    no_key.environment["PRODUCT_GATEWAY_JWT_PUBLIC_KEY_FILE"] = str(tmp_path / "no.key")
    no_setting = Deployment(tmp_path, f"sqlite:///{tmp_path / 'gateway.db'}", page_size="many")
    for deployment in (away, no_key, no_setting):
        one = deployment.run(*command.split(), check=False)
        several = deployment.run(*command.split(), "--processes", "3", check=False)
        assert one.returncode == several.returncode == 1
        assert as_logged(several.stderr) == as_logged(one.stderr)
        assert "PRODUCT_GATEWAY_" in several.stderr


def as_logged(said: str) -> list[str]:
    """Return the lines without the operations port, which is open for a moment where it is there first."""
    return [line for line in said.splitlines() if "Metrics and health are at" not in line]


@pytest.mark.parametrize("wrong", ["0", "65", "-1", "many", "1.5", ""])
def test_a_wrong_number_of_processes_is_refused(sqlite_deployment: Deployment, wrong: str) -> None:
    """With the numbers that are allowed."""
    done = sqlite_deployment.run("worker", f"--processes={wrong}", check=False)
    assert done.returncode == 2
    assert f"{wrong!r} is neither a number from 1 to 64 nor auto." in re.sub(r"\s+", " ", done.stderr)


def test_a_signal_to_all_processes_stops_them_as_one_to_the_parent_does(sqlite_deployment: Deployment) -> None:
    """systemd does that, unless its unit says KillMode=mixed. No process is replaced meanwhile."""
    with serving(sqlite_deployment, 2, "--with-worker") as (parent, _):
        assert {os.getpgid(each) for each in members(parent).values()} == {parent.pid}
        os.killpg(parent.pid, signal.SIGTERM)
        assert parent.wait() == 0
        assert "Another one starts" not in parent.log.read_text()


def test_auto_is_the_number_of_cores_that_the_process_may_use() -> None:
    """A container or `taskset` may allow fewer cores than the machine has."""
    code = (
        "import os, sys; from product_gateway.services.multiprocess import available_cores as cores; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(cores()); "
        "print(sorted({'sqlalchemy', 'connexion', 'prometheus_client', 'uvicorn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["1", "[]"], "and the parent of the processes stays small"
