"""Fixtures for all tests."""

import functools
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpcore2
import pytest

from product_gateway.db import merchants
from product_gateway.db.database import Database, open_database
from product_gateway.model.merchants import Platform
from product_gateway.openapi import documents
from product_gateway.services import sockets
from product_gateway.settings import PREFIX
from tests.support import databases
from tests.support.browser import wants_a_browser
from tests.support.deployment import Deployment
from tests.support.issuer import Issuer
from tests.support.pgbouncer import pgbouncer
from tests.support.serving import serve

__all__ = ["pgbouncer"]

DIALECTS = ("sqlite", "postgresql")
SLOWEST = (
    "test_fuzz.py",
    "test_client_command.py",
    "test_client_watch.py",
    "test_replica.py",
    "test_sync_model.py",
)
# Run by `make proofs`, or by their names: they start shells and other tools for minutes. Tests in a browser are, too.
PROOFS = (
    "test_actions.py",
    "test_client_faults.py",
    "test_code_samples.py",
    "test_compose.py",
    "test_console_pages.py",
    "test_mutations.py",
    "test_planted_faults.py",
    "test_recipes.py",
    "test_wheel.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the project's options."""
    parser.addoption("--screenshots", action="store_true", help="test_pages_browser.py renews docs/images/*.png")
    meaning = f"run the tests with, without or only with {', '.join(PROOFS)} and all tests in a browser"
    parser.addoption("--proofs", choices=("with", "without", "only"), default="with", help=meaning)
    parser.addoption("--without-slowest", action="store_true", help=f"leave out {', '.join(SLOWEST)}")


def pytest_configure() -> None:
    """Restore SIGINT: background jobs of a shell ignore it, and so would their children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start the slowest files first, so that they do not run alone at the end. The rest keeps its random order."""
    items.sort(key=lambda item: item.path.name not in SLOWEST)
    wanted = {"with": (True, False), "without": (False,), "only": (True,)}[config.getoption("--proofs")]
    left_out = SLOWEST if config.getoption("--without-slowest") else ()
    chosen: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        name = item.path.name
        is_proof = name in PROOFS or wants_a_browser.mark in item.iter_markers()
        (chosen if is_proof in wanted and name not in left_out else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = chosen


@pytest.fixture(autouse=True)
def _no_settings_of_the_developers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith((PREFIX, "OTEL_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _umask_is_restored() -> Iterator[None]:
    """Commands that run in the test process set the umask of the process."""
    before = os.umask(0)
    os.umask(before)
    yield
    os.umask(before)


@pytest.fixture(autouse=True, scope="session")
def _documents_are_unchanged() -> Iterator[None]:
    """The specs are cached: a change by one test would reach all others."""
    yield
    for name in (documents.GATEWAY, documents.OPERATIONS, documents.PRODUCT_SERVICE):
        assert documents.load(name) == documents.load.__wrapped__(name), f"a test has changed the cached {name}"


@pytest.fixture(autouse=True, scope="session")
def _certificate_authorities_are_read_once() -> Iterator[None]:
    """Reading them for each httpx2 client takes as long as fifty requests."""
    with pytest.MonkeyPatch.context() as here:
        here.setattr(httpcore2, "default_ssl_context", functools.cache(httpcore2.default_ssl_context))
        yield


@pytest.fixture(autouse=True, scope="session")
def _default_ports_are_taken_where_ci_runs() -> Iterator[None]:
    """Tests must pass beside `make run`. On a developer's machine, leave the ports for `make run`."""
    with ExitStack() as taken:
        for port in (8080, 8081, sockets.OPERATIONS_PORT_OF_GATEWAY, sockets.OPERATIONS_PORT_OF_WORKER):
            if os.environ.get("CI"):
                with suppress(OSError):  # another process of the tests has taken it
                    taken.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A migrated SQLite file to copy. A test that opens the file itself would change what other tests start with."""
    path = databases.migrated_file(tmp_path_factory.mktemp("sqlite"))
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before, "a test has opened the template; it should open a copy"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server. Its autovacuum would visit hundreds of databases again and again."""
    with databases.postgresql("autovacuum = off") as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: str) -> str:
    """The name of a migrated database."""
    return databases.template(postgresql_server)


@pytest.fixture(params=DIALECTS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Create a migrated database. Tests with this fixture run on SQLite and on PostgreSQL."""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        return databases.copy_of(server, request.getfixturevalue("postgresql_template"))
    path = tmp_path / "gateway.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    return f"sqlite:///{path}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The database, with the merchants `shop` and `other` on BYOP."""
    with open_database(database_url) as database:
        for name in ("shop", "other"):
            database.call(merchants.add, name, Platform.BYOP, "https://shop.example", None, None)
        yield database


@pytest.fixture
def deployment(database_url: str, tmp_path: Path) -> Deployment:
    """Processes over a new database."""
    return Deployment(tmp_path, database_url)


@pytest.fixture
def sqlite_deployment(sqlite_template: Path, tmp_path: Path) -> Deployment:
    """Processes over a new SQLite database, for tests that do not depend on the database."""
    shutil.copy(sqlite_template, tmp_path / "gateway.db")
    return Deployment(tmp_path, f"sqlite:///{tmp_path / 'gateway.db'}")


@pytest.fixture(scope="module")
def published() -> Iterator[tuple[Issuer, str]]:
    """An issuer, and the address of its keys."""
    issuer = Issuer()
    with serve(issuer) as base:
        yield issuer, f"{base}/.well-known/jwks.json"


@pytest.fixture
def issuer(published: tuple[Issuer, str]) -> Issuer:
    """A working issuer."""
    published[0].reset()
    return published[0]


@pytest.fixture(scope="session")
def product_gateway_sandbox_options() -> list[str]:
    """Options that make the plugin's sandbox faster."""
    return ["--sync-seconds", "0.2", "--slow-seconds", "2"]
