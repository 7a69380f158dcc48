"""PostgreSQL outages under a running server: stopped, hung, out of connections, read-only, locked, unreachable."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import httpx2
import psycopg
import pytest
from sqlalchemy import Connection, text

from product_gateway.db import migrate, syncs
from product_gateway.db.database import open_database
from product_gateway.db.errors import NOT_KNOWN
from product_gateway.db.executor import autocommit
from product_gateway.errors import Unavailable
from product_gateway.model.syncs import EntityType
from tests.support import tcp_proxy
from tests.support.contract import Gateway, error
from tests.support.deployment import API, Deployment, Process, within
from tests.support.outages import LONGEST_ANSWER, PUT, idles, in_time, is_quiet, survives
from tests.support.postgresql_cluster import HOST, USER, Server, one_server
from tests.support.tcp_proxy import Wires

MOST_SESSIONS = 80
SECONDS_TO_END = 13.0  # 10, and some more for a busy machine
OURS = "application_name = 'product-gateway'"


class Place:
    """A gateway, PostgreSQL, and the TCP proxies between them."""

    def __init__(self, process: Process, gateway: Gateway, postgresql: Server, between: Wires) -> None:
        self.process = process
        self.gateway = gateway
        self.postgresql = postgresql
        self.between = between

    @property
    def url(self) -> str:
        """The URL of the database without the proxies."""
        return f"postgresql://{USER}@{HOST}:{self.postgresql.port}/postgres"

    def connect(self) -> psycopg.Connection:
        """Open a session beside the gateway, in autocommit mode."""
        return psycopg.connect(host=HOST, port=self.postgresql.port, user=USER, dbname="postgres", autocommit=True)

    @contextmanager
    def setting(self, name: str, value: str) -> Iterator[None]:
        """Change a setting of PostgreSQL for all sessions, including open ones."""
        with self.connect() as session:
            session.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
            session.execute("SELECT pg_reload_conf()")
            time.sleep(0.2)  # the sessions reload their settings asynchronously
            try:
                yield
            finally:
                session.execute(f"ALTER SYSTEM RESET {name}".encode())
                session.execute("SELECT pg_reload_conf()")


@contextmanager
def stopped(place: Place) -> Iterator[None]:
    """Kill the server; committed data stays on disk."""
    place.postgresql.crash()
    try:
        yield
    finally:
        place.postgresql.start(**SETTINGS)


def hung(place: Place) -> AbstractContextManager[None]:
    """The server accepts connections and does not answer."""
    return place.postgresql.standing_still()


def unreachable(place: Place) -> AbstractContextManager[None]:
    """The network drops all packets, and open connections stay dead."""
    return place.between.dead()


@contextmanager
def out_of_connections(place: Place) -> Iterator[None]:
    """Other sessions use all connections."""
    with contextlib.ExitStack() as others:
        first = others.enter_context(place.connect())
        deadline = time.monotonic() + 10
        while True:
            first.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}".encode())
            with contextlib.suppress(psycopg.OperationalError):
                for _ in range(MOST_SESSIONS):
                    others.enter_context(place.connect())
            ours = first.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {OURS}".encode()).fetchone()
            if ours == (0,):
                break
            assert time.monotonic() < deadline, "our server got hold of a connection each time"
        yield


def read_only(place: Place) -> AbstractContextManager[None]:
    """The server is read-only, like a demoted primary."""
    return place.setting("default_transaction_read_only", "on")


def without_standby(place: Place) -> AbstractContextManager[None]:
    """Commits wait for a standby that does not exist."""
    return place.setting("synchronous_standby_names", "absent")


@contextmanager
def locked(place: Place) -> Iterator[None]:
    """Maintenance locks the tables."""
    with place.connect() as session, session.transaction():
        session.execute("LOCK TABLE syncs, readiness IN EXCLUSIVE MODE")
        yield


SETTINGS = {"fsync": "on", "max_connections": str(MOST_SESSIONS), "reserved_connections": "0"}
OUTAGES: dict[Callable[[Place], AbstractContextManager[None]], int] = {
    stopped: 503,
    hung: 503,
    unreachable: 503,
    out_of_connections: 503,
    read_only: 200,
    without_standby: 200,
    locked: 200,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One deployment for all outages: it must recover after each."""
    folder = tmp_path_factory.mktemp("away")
    with one_server(**SETTINGS) as postgresql, tcp_proxy.wires(postgresql.port) as between:
        url = f"postgresql://{USER}@{HOST}:{{}}/postgres"
        with open_database(url.format(postgresql.port)) as database:
            database.call(migrate.upgrade)
        deployment = Deployment(folder, url.format(between.port))
        with deployment.process("serve", "--port", "0") as process:
            gateway = Gateway(deployment, process.url())
            for outage in OUTAGES:
                gateway.add(outage.__name__)
            yield Place(process, gateway, postgresql, between)


@pytest.fixture
def caller(place: Place, request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    """A client of a merchant for this outage, which checks every response against the spec."""
    with place.gateway.of(request.getfixturevalue("outage").__name__) as client:
        yield client


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.__name__)
def test_an_outage_of_postgresql_is_a_503_in_time_and_passes(
    place: Place, caller: httpx2.Client, outage: Callable[[Place], AbstractContextManager[None]]
) -> None:
    """Possible reads are served, no accepted sync is lost, and no restart is needed."""
    detail = {"detail": NOT_KNOWN} if outage is without_standby else {}
    survives(caller, outage(place), reads=OUTAGES[outage], **detail)
    is_quiet(place.process.log.read_text())


def test_a_long_poll_survives_an_outage_and_gets_503_if_the_outage_is_longer(place: Place) -> None:
    """The sync may continue meanwhile, and polling would not help the client."""
    place.gateway.add("patient")
    with place.gateway.of("patient") as caller, ThreadPoolExecutor(2) as threads:
        put = within(20, lambda: (answer := caller.put(f"{API}/sync/PRODUCT")).status_code == 202 and answer)

        def wait(seconds: int) -> tuple[httpx2.Response, float]:
            began = time.monotonic()
            prefer = {"Prefer": f"wait={seconds}"}
            answer = caller.get(f"{API}/syncs/{put.json()['data']['id']}", headers=prefer, timeout=90)
            return answer, time.monotonic() - began

        short, long = threads.submit(wait, 4), threads.submit(wait, 50)
        time.sleep(1)
        with stopped(place):
            answer, seconds = short.result(30)
            assert error(answer, 503)
            assert "Retry-After" in answer.headers
            assert "Preference-Applied" not in answer.headers
            assert 3.5 < seconds < 4 + LONGEST_ANSWER
        with open_database(place.url) as database:
            database.call(syncs.cancel, "patient", EntityType.PRODUCT)
        answer, _ = long.result(30)
        assert answer.json()["data"]["status"] == "CANCELLED"
        assert answer.headers["Preference-Applied"] == "wait=50"


SLOW_COMMIT = """
CREATE TABLE slow (id int);
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(id) FROM slow; RETURN NULL; END';
CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait();
"""


@autocommit
def store(connection: Connection, seconds: int) -> None:
    """Insert a row; the commit takes this long."""
    connection.execute(text(f"INSERT INTO slow VALUES ({seconds})"))


async def test_a_session_that_ends_during_a_commit_costs_one_call(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver cannot leave its pipeline mode then, and reports only that."""
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND {OURS}"
    with open_database(place.url) as database, place.connect() as session:
        session.execute(SLOW_COMMIT)
        storing = asyncio.create_task(database.write(store, 60))
        await asyncio.to_thread(within, 10, lambda: session.execute(end.encode()).rowcount)
        with pytest.raises(Unavailable, match=NOT_KNOWN) as away:
            await storing
        await database.write(store, 0)
    assert "terminating connection due to administrator command" in away.value.with_cause
    assert not caplog.records


def test_processes_stop_cleanly_while_postgresql_hangs(place: Place) -> None:
    """An orchestrator need not kill them. Meanwhile they use almost no CPU."""
    deployment = place.gateway.deployment
    for outage in OUTAGES:  # the syncs that they left would take the workers' slots
        for disabled in (True, False):
            place.gateway.change(outage.__name__, disabled=disabled)
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(deployment.sample_service("--records", "20000", "--delay", "1"))
        place.gateway.add("one", service)
        both = stack.enter_context(deployment.process("serve", "--port", "0", "--with-worker"))
        worker = stack.enter_context(deployment.process("worker"))
        with Gateway(deployment, both.url()).of("one") as caller:
            syncs = [caller.put(f"{API}/sync/{each}").json()["data"]["id"] for each in ("PRODUCT", "COLLECTION")]
            within(20, lambda: all(is_in_progress(caller, each) for each in syncs))
            with hung(place):
                assert in_time(lambda: caller.put(PUT)).status_code == 503
                idles(worker.pid)
                began = time.monotonic()
                for process in (both, worker):
                    process.send(signal.SIGTERM)
                assert [each.wait() for each in (both, worker)] == [0, 0]
                print(f"ended after {time.monotonic() - began:.1f} s")
                assert time.monotonic() - began < SECONDS_TO_END
    for process in (both, worker):
        is_quiet(process.log.read_text())


def is_in_progress(caller: httpx2.Client, sync: str) -> bool:
    """Return whether a worker runs it."""
    return bool(caller.get(f"{API}/syncs/{sync}").json()["data"]["status"] == "IN_PROGRESS")
