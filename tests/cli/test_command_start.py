"""The command line: what stops a start, in plain words, and how that which runs for long comes to its end."""

import functools
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import make_url

from tests.support import databases
from tests.support.commands import Terminal, assert_refused
from tests.support.deployment import ENDS_WITHIN, STARTS_WITHIN, Deployment, Process, within
from tests.support.markdown import TOP

PASSWORD = "hunter2"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """For commands that need no process of their own."""
    return Terminal(monkeypatch, capsys)


@contextmanager
def empty_postgresql(server: str, name: str) -> Iterator[str]:
    """The URL of a new database without tables."""
    databases.run(server, f"CREATE DATABASE {name}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    databases.run(server, f"DROP DATABASE {name} WITH (FORCE)")


def test_migrate_makes_the_tables_and_may_be_run_again(
    tmp_path: Path, postgresql_server: str, terminal: Terminal
) -> None:
    """On both databases; a deployment runs it each time."""
    with empty_postgresql(postgresql_server, "for_migrate") as postgresql:
        for url in (f"sqlite:///{tmp_path / 'new' / 'gateway.db'}", postgresql):
            deployment = Deployment(tmp_path, url)
            first, again = terminal.run(deployment, "migrate"), terminal.run(deployment, "migrate")
            assert first.stdout == again.stdout
            assert first.stdout.startswith("The database is at revision ")
            assert terminal.run(deployment, "merchant list").returncode == 0


def test_a_postgresql_without_the_tables_is_not_touched_and_sqlite_is_migrated_unasked(
    tmp_path: Path, postgresql_server: str, terminal: Terminal
) -> None:
    """The operator of a PostgreSQL server decides when to migrate. A local SQLite file is migrated at start."""
    with empty_postgresql(postgresql_server, "unmigrated_by_command") as postgresql:
        deployment = Deployment(tmp_path, postgresql)
        served = deployment.run("serve", "--port", "0", check=False, anew=True)
        for done in (served, terminal.run(deployment, "merchant list")):
            assert_refused(done, "The database's tables are not up to date. Run: product-gateway migrate")
    (tmp_path / "new.db").touch()
    assert terminal.run(Deployment(tmp_path, f"sqlite:///{tmp_path / 'new.db'}"), "merchant list").returncode == 0


def test_a_database_that_cannot_be_used_is_named_with_the_reason_and_without_its_password(
    tmp_path: Path, terminal: Terminal
) -> None:
    """The operator sees at once which setting it is, and what the database says."""
    (tmp_path / "text").write_text("no database " * 100)
    (tmp_path / "folder").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    away = f"postgresql://gateway:{PASSWORD}@127.0.0.1:{port}/catalog"
    refusals = {
        "mysql://host/name": ["starts with mysql://", "SQLite", "PostgreSQL"],
        "garbage": ["is not a valid URL of a database", "Examples: sqlite:///var/gateway.db"],
        f"postgresql://u:{PASSWORD}@host:port/name": ["is not a valid URL of a database"],
        "sqlite://": ["must name a file: sqlite:///var/gateway.db"],
        f"sqlite:///{tmp_path / 'text' / 'gateway.db'}": ["text/gateway.db", "its file is not there"],
        f"sqlite:///{tmp_path / 'nothing.db'}": ["nothing.db", "`serve`, `migrate` and `merchant add` make one"],
        f"sqlite:///{tmp_path / 'folder'}": ["folder", "unable to open database file"],
        f"sqlite:///{tmp_path / 'text'}": ["text", "file is not a database"],
        away: [f"@127.0.0.1:{port}/catalog", "PRODUCT_GATEWAY_DATABASE_URL", "Connection refused"],
    }
    for url, words in refusals.items():
        done = terminal.run(Deployment(tmp_path, url), "merchant list")
        assert_refused(done, *words)
        assert PASSWORD not in done.stderr
    made = terminal.run(Deployment(tmp_path, f"sqlite:///{tmp_path / 'text' / 'gateway.db'}"), "migrate")
    assert_refused(made, "text, cannot be made: ")
    assert not (tmp_path / "nothing.db").exists()
    deployment = Deployment(tmp_path, away)
    for done in (deployment.run("worker", check=False, anew=True), terminal.run(deployment, "migrate")):
        assert_refused(done, *refusals[away])
        assert PASSWORD not in done.stderr


def test_a_setting_that_does_not_exist_is_pointed_out_but_does_no_harm(
    sqlite_deployment: Deployment, terminal: Terminal
) -> None:
    """Most often a slip of the pen: without a word, the default would be in force."""
    sqlite_deployment.environment |= {"PRODUCT_GATEWAY_PAGESIZE": "5", "PRODUCT_GATEWAY_X": ""}
    done = terminal.run(sqlite_deployment, "merchant list")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[:2] == [
        "There is no setting PRODUCT_GATEWAY_PAGESIZE; it has no effect.",
        "There is no setting PRODUCT_GATEWAY_X; it has no effect.",
    ]


def test_settings_that_cannot_be_are_named_all_at_once(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """Each by its variable; nothing starts half right."""
    wrong = {
        "PAGE_SIZE": "many",
        "LEASE_SECONDS": "0",
        "LOG_LEVEL": "chatty",
        "JWKS_URL": "id.example/keys",
        "SECRET_KEY_FILE": "/no/such/file",
        "ALLOW_PRIVATE_ADDRESSES": "perhaps",
    }
    sqlite_deployment.environment |= {f"PRODUCT_GATEWAY_{name}": value for name, value in wrong.items()}
    for command in ("merchant list", "serve --port 0", "worker", "migrate", "token shop"):
        done = terminal.run(sqlite_deployment, command)
        assert_refused(done)
        named = {line.partition(":")[0].removeprefix("PRODUCT_GATEWAY_") for line in done.stderr.splitlines()}
        assert named == set(wrong)
        assert "there is no file /no/such/file" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PAGE_SIZE", "many", "'many' is not a whole number"),
        ("PAGE_SIZE", "0", "'0' should be greater than or equal to 1"),
        ("LEASE_SECONDS", "1m", "'1m' is not a number"),
        ("DOCS", "perhaps", "'perhaps' is not true or false"),
        ("LOG_FORMAT", "xml", "'xml' should be 'text' or 'json'"),
        ("JWKS_URL", "id.example/keys", "this is not the address of a key set: https://, a host and a path"),
        ("JWKS_URL", f"https://user:{PASSWORD}@id.example/keys", "this is not the address of a key set"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_value_and_what_to_write(
    name: str, value: str, said: str, sqlite_deployment: Deployment, terminal: Terminal
) -> None:
    """Not in the words of a parser or with a pattern. A URL may hold a password, and is not shown."""
    sqlite_deployment.environment[f"PRODUCT_GATEWAY_{name}"] = value
    done = terminal.run(sqlite_deployment, "merchant list")
    assert_refused(done, f"PRODUCT_GATEWAY_{name}: {said}")
    assert PASSWORD not in done.stderr


def test_a_port_that_is_taken_or_a_host_that_is_not_ours_is_said_in_plain_words(
    sqlite_deployment: Deployment, terminal: Terminal
) -> None:
    """The commonest of all failures to start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ends = [terminal.run(sqlite_deployment, f"{each} {port}") for each in ("serve --port", "demo --port")]
        ends.append(sqlite_deployment.run("sample-service", "--port", str(port), check=False, anew=True))
        for done in ends:
            assert_refused(
                done,
                f"Port {port} of 127.0.0.1 is in use. Choose another with --port, or stop the program that listens",
            )
        sample = sqlite_deployment.run("demo", "--port", "0", "--sample-port", str(port), check=False)
        assert_refused(sample, f"Port {port} of 127.0.0.1 is in use. Choose another with --sample-port")
        operations = sqlite_deployment.run("serve", "--port", "0", "--operations-port", str(port), check=False)
        assert_refused(operations, "Choose another with --operations-port or PRODUCT_GATEWAY_OPERATIONS_PORT")
    for host in ("192.0.2.1", "no-such-host.invalid"):
        refused = terminal.run(sqlite_deployment, f"serve --host {host}")
        assert_refused(refused, f"Cannot listen on port 8080 of {host}: ")


def is_ready(process: Process) -> bool:
    """Whether it does its work, as it says or as a request finds out."""
    said = process.log.read_text()
    assert process.status() is None, said
    if "waiting for syncs" in said:
        return True
    address = re.search(r"http://[0-9.:]+", said)
    try:
        return address is not None and httpx2.get(f"{address[0]}/products").status_code < 500
    except httpx2.TransportError:
        return False


RUNS = [
    ("serve --port 0 --with-worker", signal.SIGTERM),
    ("worker", signal.SIGINT),
    ("sample-service --port 0", signal.SIGTERM),
    ("demo --port 0 --sample-port 0", signal.SIGINT),
]


def test_what_runs_for_long_ends_in_good_order_when_it_is_told_to(sqlite_deployment: Deployment) -> None:
    """Exit status 0 and no traceback, for a supervisor's TERM and for Ctrl-C alike."""
    with ExitStack() as stack:
        running = [stack.enter_context(sqlite_deployment.process(*command.split(), anew=True)) for command, _ in RUNS]
        for process, (_, number) in zip(running, RUNS, strict=True):
            within(STARTS_WITHIN, functools.partial(is_ready, process))
            process.send(number)
        for process, (command, number) in zip(running, RUNS, strict=True):
            assert process.wait() == 0, f"{command}, {number.name}: {process.log.read_text()}"
            assert "Traceback" not in process.log.read_text()


def test_two_servers_run_on_one_machine(sqlite_deployment: Deployment) -> None:
    """The default operations port of one does not stop the other, which takes a free port and says so."""
    del sqlite_deployment.environment["PRODUCT_GATEWAY_OPERATIONS_PORT"]
    with ExitStack() as stack:
        running = [stack.enter_context(sqlite_deployment.process("serve", "--port", "0")) for _ in range(2)]
        for each in running:
            assert httpx2.get(f"{each.url()}/health/ready").status_code == 200
        logs = "".join(each.log.read_text() for each in running)
        assert len({each.operations_url() for each in running}) == 2
    said = r"Port 8090 of 127\.0\.0\.1 is in use: metrics, health and the monitor are on port \d+\. Choose"
    assert re.search(said, logs)


def test_a_server_listens_when_it_says_so(sqlite_deployment: Deployment) -> None:
    """A script that waits for the line may send its first request at once."""
    with sqlite_deployment.process("serve", "--port", "0") as process:
        assert httpx2.get(f"{process.url()}/health/live", timeout=30).status_code == 200
        said = process.log.read_text()
        assert said.index("Metrics and health are at") < said.index("listens on")


def test_a_second_ctrl_c_ends_the_process_at_once_and_quietly(sqlite_deployment: Deployment) -> None:
    """While the first one still waits for a request."""
    with sqlite_deployment.process("sample-service", "--port", "0", "--delay", "60", anew=True) as process:
        address = httpx2.URL(process.url())
        with socket.create_connection((address.host, address.port or 0)) as waiting:
            waiting.sendall(b"GET /products HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n")
            within(STARTS_WITHIN, lambda: httpx2.get(f"{process.url()}/nothing").status_code)
            process.send(signal.SIGINT)
            within(ENDS_WITHIN, functools.partial(_refuses, address.host, address.port or 0))
            process.send(signal.SIGINT)
            assert process.wait() == 130
        assert "Traceback" not in process.log.read_text()


def _refuses(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port)).close()
    except OSError:
        return True
    return False


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not on this machine")
def test_make_run_passes_ports_on() -> None:
    """Each is an option of `demo`."""
    ports = ["PORT=1234", "OPERATIONS_PORT=1235", "SAMPLE_PORT=1236"]
    for given, wanted in ((ports, "demo --port 1234 --operations-port 1235 --sample-port 1236"), ([], "demo\n")):
        done = subprocess.run(["make", "--dry-run", "run", *given], cwd=TOP, capture_output=True, text=True, check=True)
        assert f"product-gateway {wanted}" in done.stdout
