"""PostgreSQL outages at the level of the database layer: calls raise Unavailable, and later succeed."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, make_url, text

from product_gateway.db import merchants, migrate, syncs
from product_gateway.db.database import Database, connect, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import SettingsError, Unavailable
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType, SyncStatus
from tests.support import databases
from tests.support.deployment import Deployment, within
from tests.support.merchants import open_shops

DEAD = "127.0.0.1:1"


@pytest.fixture
def url(postgresql_server: str, postgresql_template: str) -> str:
    """A PostgreSQL database with the merchant `shop`."""
    url = databases.copy_of(postgresql_server, postgresql_template)
    with open_database(url) as database:
        database.call(merchants.add, "shop", Platform.BYOP, "https://shop.example", None, None)
    return url


def enqueue_product(database: Database) -> None:
    """Any write."""
    database.call(enqueue, "shop", EntityType.PRODUCT)


def test_the_pool_leaves_a_read_only_server(url: str) -> None:
    """A demoted primary accepts connections; a pool that keeps them never finds the new primary."""
    name = make_url(url).database
    databases.run(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with open_database(url) as database:
        with pytest.raises(Unavailable, match=r"cannot be used at the moment\.$") as away:
            enqueue_product(database)
        assert "read-only" in away.value.with_cause
        reset = f"ALTER DATABASE {name} RESET default_transaction_read_only"
        databases.run(make_url(url).set(database="postgres").render_as_string(hide_password=False), reset)
        enqueue_product(database)  # in a new session: the old one would still be read-only


async def test_sessions_ended_by_the_server_while_idle_cost_no_call(url: str) -> None:
    """The pool replaces them before they are used."""
    with open_database(url) as database:

        def hold(connection: Connection) -> None:
            connection.execute(text("SELECT pg_sleep(0.2)"))

        await asyncio.gather(*[database.read(hold) for _ in range(4)])
        databases.cut_off(url)
        for _ in range(5):
            await database.read(migrate.current)


async def test_a_session_that_ends_in_a_transaction_is_unavailable(url: str) -> None:
    """The result of the write is unknown, so it is reported and not retried."""
    with open_database(url) as database:
        written = threading.Event()
        cut = threading.Event()

        def write(connection: Connection) -> None:
            enqueue(connection, "shop", EntityType.PRODUCT)
            written.set()
            assert cut.wait(10)

        writing = asyncio.create_task(database.write(write))
        await asyncio.to_thread(written.wait, 10)
        databases.cut_off(url)
        cut.set()
        with pytest.raises(Unavailable):
            await writing
        assert database.call(syncs.latest, "shop", EntityType.PRODUCT) is None


async def test_a_write_is_never_retried_automatically(url: str) -> None:
    """A write with an unknown outcome may have succeeded: only the caller may retry it."""
    with open_database(url) as database:
        calls = []

        def count(connection: Connection) -> None:
            calls.append(connection)
            enqueue(connection, "shop", EntityType.PRODUCT)
            databases.cut_off(url)

        with pytest.raises(Unavailable):
            await database.write(count)
        assert len(calls) == 1


@contextmanager
def silent_host() -> Iterator[str]:
    """A host that accepts connections and does not answer."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


async def test_a_silent_host_times_out(url: str) -> None:
    """Within seconds, so that the next host is tried."""
    with silent_host() as silent, open_database(f"postgresql://absent@{silent},{DEAD}/none") as database:
        async with asyncio.timeout(8):
            with pytest.raises(Unavailable) as away:
                await database.read(migrate.current)
    assert "timeout" in away.value.with_cause
    assert "refused" in away.value.with_cause


@pytest.mark.parametrize(
    "form",
    [
        lambda folder, port, name: f"postgresql://postgres@/{name}?host=/nowhere,{folder}&port=1,{port}",
        lambda folder, port, name: f"postgresql://postgres@/{name}?host=127.0.0.1:1&host={folder}:{port}",
    ],
)
def test_the_responding_host_is_used(url: str, form: Callable[[str, int, str], str]) -> None:
    """With SQLAlchemy's URL forms; the failover test uses libpq's."""
    parsed = make_url(url)
    with open_database(form(str(parsed.query["host"]), parsed.port or 5432, str(parsed.database))) as database:
        enqueue_product(database)


@pytest.mark.parametrize(
    ("url", "hosts", "ports", "attributes"),
    [
        ("postgresql://u@a:1,b:2/n?target_session_attrs=any", "a,b", "1,2", "any"),
        ("postgresql://u:p,w@a,b:2/n", "a,b", ",2", "read-write"),
        ("postgresql+psycopg://a,b", "a,b", ",", "read-write"),
        ("postgresql://u@[::1]:1,b/n", "::1,b", "1,", "read-write"),
        ("postgresql://u@/n?host=a:1&host=b:2", "a,b", "1,2", "read-write"),
        ("postgresql://u:p,w%2Fx@a:1/n", "a", 1, None),
    ],
)
def test_several_hosts_in_a_url_are_understood(url: str, hosts: str, ports: str | int, attributes: str | None) -> None:
    """In libpq's and SQLAlchemy's forms; by default the primary is used."""
    with open_database(url) as database:
        engine = database.engine
        arguments = engine.dialect.create_connect_args(engine.url)[1]
    found = (arguments["host"], arguments["port"], arguments.get("target_session_attrs"))
    assert found == (hosts, ports, attributes)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@a:x,b/n",
        "postgresql://u:p,w/x@a:1/n",
        "postgresql://u@a,,b/n",
        "postgresql://u@/n?host=a:x&host=b:2",
        "postgresql://u@a/n?nonsense=1",
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    """At the start, not at the first request."""
    with pytest.raises(SettingsError, match="PRODUCT_GATEWAY_DATABASE_URL"):
        connect(url)


def test_messages_name_the_hosts_and_no_password() -> None:
    """Messages are logged; a password may also be in the parameters."""
    url = f"postgresql://u:hidden@{DEAD},{DEAD}/n?sslpassword=hidden"
    with pytest.raises(SettingsError) as refused, open_database(url) as database:
        database.call(migrate.current)
    assert "host=127.0.0.1,127.0.0.1&port=1,1" in refused.value.detail
    assert "hidden" not in refused.value.detail
    assert "\n" not in refused.value.detail


def test_a_worker_survives_a_database_restart(url: str, tmp_path: Path) -> None:
    """It continues the sync long before the lease expires, without a takeover or a restart."""
    deployment = Deployment(tmp_path, url, lease_seconds="60", page_size="10", max_page_size="10")
    name, others = make_url(url).database, make_url(url).set(database="postgres").render_as_string(hide_password=False)
    with (
        deployment.sample_service("--records", "100", "--delay", "0.1") as service,
        deployment.process("worker") as worker,
    ):
        open_shops(deployment, service, ["m"])
        with open_database(url) as database:
            sync = database.call(enqueue, "m", EntityType.PRODUCT)
            within(20, lambda: database.call(syncs.get, "m", sync.id).records_read)
            databases.run(others, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            databases.cut_off(url)
            time.sleep(1)
            databases.run(others, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            within(20, lambda: database.call(syncs.get, "m", sync.id).status is SyncStatus.SUCCEEDED)
            ended = database.call(syncs.get, "m", sync.id)
            assert (ended.records_read, ended.counts.created, ended.attempt) == (100, 100, 2)
            lost = text("SELECT lost_workers FROM syncs WHERE merchant = 'm'")
            assert database.call(lambda connection: connection.execute(lost).scalar_one()) == 0
        assert worker.status() is None
        said = worker.log.read_text()
    assert said.count("Syncs are not looked for until the database is back") == 1
    assert said.count("The loop claims works again") == 1
    assert "is handed back" in said
    assert "Traceback" not in said
