"""The operations port: metrics and health of each process on a separate port, even without a database."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import make_url, text

from product_gateway import settings
from product_gateway.api.error_responses import describe_error
from product_gateway.errors import SettingsError
from product_gateway.openapi import documents
from product_gateway.openapi.binding import bind
from product_gateway.services import sockets
from product_gateway.telemetry.version import version
from tests.support import databases, sample_api
from tests.support.deployment import ENDS_WITHIN, Deployment, within
from tests.support.metrics_scrape import Scrape

SCRAPE_TIMEOUT = 10.0  # seconds after which Prometheus, as it comes, gives a scrape up
IN_USE = "Choose another with --operations-port or PRODUCT_GATEWAY_OPERATIONS_PORT"


@pytest.fixture
def postgresql_deployment(postgresql_server: str, postgresql_template: str, tmp_path: Path) -> Deployment:
    """Processes over a database that can be taken away."""
    return Deployment(tmp_path, databases.copy_of(postgresql_server, postgresql_template))


def url_of(deployment: Deployment) -> str:
    """The database of a deployment."""
    return deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]


@contextmanager
def stopped(url: str) -> Iterator[None]:
    """Refuse connections to the database meanwhile, and end its open connections."""
    name, others = make_url(url).database, make_url(url).set(database="postgres").render_as_string(hide_password=False)
    databases.run(others, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    databases.run(others, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    try:
        yield
    finally:
        databases.run(others, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@contextmanager
def hung(url: str) -> Iterator[None]:
    """The database takes questions about syncs meanwhile, and does not answer."""
    with databases.engine_of(url) as engine, engine.begin() as connection:
        connection.execute(text("LOCK TABLE syncs IN ACCESS EXCLUSIVE MODE"))
        yield


def test_health_and_metrics_are_beside_a_worker_too(sqlite_deployment: Deployment) -> None:
    """An orchestrator has nowhere else to ask."""
    with sqlite_deployment.process("worker") as worker:
        url = worker.operations_url()
        for path in ("/health/live", "/health/ready"):
            answer = httpx2.get(url + path)
            assert (answer.status_code, answer.json()) == (
                200,
                {"data": {"status": "ok", "version": version()}, "meta": {}},
            )
        assert Scrape(url).total("database_up") == 1
        assert httpx2.get(f"{url}/product-gateway/v1/products").status_code == 404


def test_the_gateways_own_port_has_no_metrics(sqlite_deployment: Deployment) -> None:
    """Metrics are internal and must not be public."""
    with sqlite_deployment.process("serve", "--port", "0") as gateway:
        answer = httpx2.get(f"{gateway.url()}/metrics")
        assert answer.status_code == 404
        assert answer.json()["error"][0]["status"] == "404"
        assert "product_gateway" not in answer.text


def test_a_sample_service_has_no_operations_port(sqlite_deployment: Deployment) -> None:
    """It is for rehearsals."""
    with sqlite_deployment.process("sample-service", "--port", "0") as service:
        assert httpx2.get(f"{service.url()}/metrics", headers={"Authorization": "Bearer any"}).status_code == 404
        assert "Metrics" not in service.log.read_text()


@pytest.mark.parametrize("command", ["serve --port 0", "worker", "demo --port 0 --sample-port 0"])
def test_a_port_that_is_taken_is_said_with_the_setting_that_names_it(
    sqlite_deployment: Deployment, command: str
) -> None:
    """Two workers on one machine need a port each, so the error must name the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sqlite_deployment.environment |= {"PRODUCT_GATEWAY_OPERATIONS_PORT": str(port)}
        done = sqlite_deployment.run(*command.split(), check=False)
    assert done.returncode == 1
    assert f"Port {port} of 127.0.0.1 is in use." in done.stderr
    assert IN_USE in done.stderr
    assert "listens on" not in done.stderr
    assert "Traceback" not in done.stderr


def test_where_no_port_is_set_the_gateway_and_the_worker_have_different_ones() -> None:
    """One of each on a machine just works, and a port that is set is the port."""
    assert (sockets.OPERATIONS_PORT_OF_GATEWAY, sockets.OPERATIONS_PORT_OF_WORKER) == (8090, 8091)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with sockets.bind_operations(settings.load(), port) as listening:
        assert listening.getsockname() == ("127.0.0.1", port)
    with sockets.bind_operations(settings.load(operations_port=0), port) as listening:
        assert listening.getsockname()[1] not in (0, port)


def test_a_stop_takes_the_operations_port_along(sqlite_deployment: Deployment) -> None:
    """A keep-alive connection, such as that of Prometheus, does not delay the stop."""
    for command in ("serve --port 0 --with-worker", "worker"):
        with sqlite_deployment.process(*command.split()) as process, httpx2.Client() as prometheus:
            url = process.operations_url()
            assert prometheus.get(f"{url}/metrics").status_code == 200
            process.send(signal.SIGTERM)
            started = time.monotonic()
            assert process.wait() == 0, process.log.read_text()
            assert time.monotonic() - started < ENDS_WITHIN
            with pytest.raises(httpx2.TransportError):
                prometheus.get(f"{url}/metrics")
            assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize("away", [stopped, hung])
@pytest.mark.parametrize("command", ["serve --port 0", "worker"])
def test_a_database_that_is_away_costs_a_scrape_nothing_but_what_only_it_knows(
    postgresql_deployment: Deployment, away: Callable[[str], AbstractContextManager[None]], command: str
) -> None:
    """When the database is away, the metrics are what everybody looks at."""
    with postgresql_deployment.process(*command.split()) as process:
        url = process.operations_url()
        assert Scrape(url).total("database_up") == 1
        with away(url_of(postgresql_deployment)):
            # The first of them asked the database; the others may get its cached result.
            scrapes = [within(30, lambda: _without_database(url)), *(Scrape(url) for _ in range(3))]
            assert scrapes[0].seconds < SCRAPE_TIMEOUT
            for each in scrapes:
                assert each.total("database_up") == 0
                assert each.total("claims_total") is not None
                for unknown in ("syncs_active", "queue_depth", "queue_oldest_seconds"):
                    assert each.total(unknown) is None, f"{unknown} is as it was some time ago"
            assert httpx2.get(f"{url}/health/live").status_code == 200
        within(30, lambda: Scrape(url).total("database_up") == 1)
        assert Scrape(url).total("queue_depth") == 0


def _without_database(url: str) -> Scrape | None:
    scrape = Scrape(url)
    return None if scrape.total("database_up") else scrape


def test_readiness_follows_the_database_and_liveness_does_not(postgresql_deployment: Deployment) -> None:
    """Restarting a worker does not bring its database back."""
    with postgresql_deployment.process("worker") as worker:
        url = worker.operations_url()
        assert httpx2.get(f"{url}/health/ready").status_code == 200
        with stopped(url_of(postgresql_deployment)):
            within(30, lambda: httpx2.get(f"{url}/health/ready", timeout=30).status_code == 503)
            answer = httpx2.get(f"{url}/health/ready", timeout=30)
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["error"][0]["status"] == "503"
            assert httpx2.get(f"{url}/health/live").status_code == 200
        within(30, lambda: httpx2.get(f"{url}/health/ready", timeout=30).status_code == 200)


def test_many_scrapes_ask_the_database_once(postgresql_deployment: Deployment) -> None:
    """Five monitors that look every second must not be felt by anybody."""
    url = url_of(postgresql_deployment)
    name, others = make_url(url).database, make_url(url).set(database="postgres").render_as_string(hide_password=False)
    commits = text(f"SELECT xact_commit FROM pg_stat_database WHERE datname = '{name}'")
    with databases.engine_of(others) as engine, postgresql_deployment.process("serve", "--port", "0") as gateway:

        def asked() -> int:
            with engine.connect() as connection:
                return int(connection.execute(commits).scalar_one())

        seen = gateway.operations_url()
        Scrape(seen)
        time.sleep(1.5)  # the server writes its statistics down once a second
        before = asked()
        for _ in range(100):
            Scrape(seen)
        time.sleep(1.5)
        assert asked() - before < 50, "each scrape asks the database"  # the gateway itself asks a few times a second


def test_operations_that_need_a_token_are_not_served_without_authentication() -> None:
    """A forgotten argument must not open what the spec closes."""
    with pytest.raises(SettingsError, match="Pass authenticate"):
        bind(sample_api.document(), sample_api.Handlers(), describe_error=describe_error)


def test_the_operations_spec_asks_for_no_token_and_answers_errors_as_the_gateway_does() -> None:
    """A probe has no token; and one form of error is enough."""
    operations, gateway = documents.load(documents.OPERATIONS), documents.load(documents.GATEWAY)
    assert operations["security"] == []
    for kind, name in (("schemas", "ErrorResponse"), ("schemas", "HealthResponse"), ("headers", "RequestId")):
        assert operations["components"][kind][name] == gateway["components"][kind][name]
    for path in ("/health/live", "/health/ready"):
        there = set(gateway["paths"][path]["get"]["responses"])
        assert set(operations["paths"][path]["get"]["responses"]) == {*there, "403"}, (
            "a foreign Host is refused here alone"
        )
