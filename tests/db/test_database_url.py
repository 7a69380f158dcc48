"""URLs of the database: what is accepted, and that no part of a password is ever printed."""

import re
from urllib.parse import quote

import pytest
from sqlalchemy import make_url, text

from product_gateway.db import migrate
from product_gateway.db.database import open_database
from product_gateway.errors import SettingsError
from tests.support import databases
from tests.support.commands import Terminal, assert_refused
from tests.support.deployment import Deployment, free_port
from tests.support.postgresql_cluster import USER

FIRST, SECOND, THIRD = "Xa7Qw2", "Yb8Re3", "Zc9Tu4"
RESERVED = "@/#?:% []&=+,;\\'\"!$*<>^`{|}~"
PASSWORDS = [
    *(f"{FIRST}{each}{SECOND}" for each in RESERVED),
    *(f"{each}{FIRST}" for each in "@/#?:%"),
    *(f"{FIRST}{each}" for each in "@/#?:%"),
    *(f"{FIRST}{a}{SECOND}{b}{THIRD}" for a in "@/#?:%" for b in "@/#?:%"),
    f"{FIRST}@{SECOND}:5432/{THIRD}",
    f"5432/{FIRST}?host={SECOND}",
    f"5432?password={FIRST}&host={SECOND}",
    f"5432#{FIRST}",
    f"[::1]:5432/{FIRST}",
    f"{FIRST}%41{SECOND}",
    f"{FIRST}\t{SECOND}",
    f"{FIRST}é{SECOND}",
]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Commands without a process of their own."""
    return Terminal(monkeypatch, capsys)


def parts(password: str) -> set[str]:
    """What must not be printed: the password, and all that an unfortunate parser may take out of it."""
    words = re.findall(f"{FIRST}|{SECOND}|{THIRD}", password)
    return {password, quote(password, safe=""), *words}


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("form", ["plain", "percent-encoded"])
def test_no_part_of_a_password_is_printed(
    password: str, form: str, sqlite_deployment: Deployment, terminal: Terminal
) -> None:
    """Where the URL is in doubt, nothing of it is; otherwise the rest helps the operator."""
    written = password if form == "plain" else quote(password, safe="")
    for command in ("migrate", "merchant list"):
        sqlite_deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"] = f"postgresql://user:{written}@127.0.0.1:1/name"
        done = terminal.run(sqlite_deployment, command)
        assert_refused(done, "PRODUCT_GATEWAY_DATABASE_URL")
        for part in parts(password):
            assert part not in done.stderr
        if form != "plain":
            assert "user:***@127.0.0.1:1/name" in done.stderr


@pytest.mark.parametrize("command", ["serve --port 0", "serve --with-worker --port 0", "worker", "demo", "prune"])
@pytest.mark.parametrize("password", [f"{FIRST}@{SECOND}", f"{FIRST}/{SECOND}", f"{FIRST}%40{SECOND}"])
def test_no_process_prints_a_part_of_a_password(password: str, command: str, sqlite_deployment: Deployment) -> None:
    """The same for what runs for long, with its logs."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"] = f"postgresql://user:{password}@127.0.0.1:1/name"
    if command == "demo":
        command = f"demo --port {free_port()} --sample-port {free_port()}"
    done = sqlite_deployment.run(*command.split(), check=False)
    assert_refused(done, "PRODUCT_GATEWAY_DATABASE_URL")
    for part in parts(password):
        assert part not in done.stderr + done.stdout


@pytest.mark.parametrize(
    "url",
    [
        "user:{}@host/name",
        "mysql://user:{}@host/name",
        "sqlite://user:{}@host/name",
        "postgresql:/user:{}@host/name",
        "postgresql//user:{}@host/name",
        "postgresql://user:{}@",
        "postgresql://user:{}@host:port/name",
        "postgresql://user:{}@host:70000/name",
        "postgresql://user:{}@host/name?nonsense=1",
        "postgresql://user@host/name?password={}&nonsense=1",
        "postgresql://user@127.0.0.1:1/name?sslpassword={}",
        "postgresql://user:{}@127.0.0.1:1,127.0.0.1:1/name",
        "postgres://user:{}@%2Fnowhere/name",
        " postgresql://user:{}@host/name",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    """Also if the URL has other faults."""
    for password in (FIRST, f"{FIRST}@{SECOND}", f"{FIRST}:{SECOND}"):
        with pytest.raises(SettingsError) as refused, open_database(url.format(password)) as database:
            database.call(migrate.current)
        assert "PRODUCT_GATEWAY_DATABASE_URL" in refused.value.detail
        for part in parts(password):
            assert part not in refused.value.detail


def test_the_message_says_what_to_write(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """For each character that makes the URL doubtful."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"] = "postgresql://user:p@ss@host/name"
    done = terminal.run(sqlite_deployment, "migrate")
    assert_refused(done, *(f"{each} as %{ord(each):02X}" for each in "@/:#?%"))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_socket_folder_may_be_written_in_each_way_of_libpq(scheme: str, postgresql_server: str) -> None:
    """As a percent-encoded host, and as a parameter."""
    folder = str(make_url(postgresql_server).query["host"])
    encoded = quote(folder, safe="")
    for url in (
        f"{scheme}://{USER}@{encoded}/postgres",
        f"{scheme}://{USER}:@{encoded}/postgres",
        f"{scheme}://{USER}@/postgres?host={folder}",
        f"{scheme}:///postgres?host={encoded}&user={USER}",
    ):
        with open_database(url) as database:
            assert database.call(lambda c: c.execute(text("SELECT current_database()")).scalar_one()) == "postgres"
            assert database.engine.url.drivername == "postgresql+psycopg"


def test_names_and_passwords_are_decoded(postgresql_server: str) -> None:
    """Also the name of the database, as libpq decodes it."""
    password, name = "p@ss/w:o#r?d%", f"a b/{next(databases.numbers)}"
    databases.run(postgresql_server, f'CREATE DATABASE "{name}"')
    folder = quote(str(make_url(postgresql_server).query["host"]), safe="")
    url = f"postgres://{USER}:{quote(password, safe='')}@{folder}/{quote(name, safe='')}"
    with open_database(url) as database:
        assert database.engine.url.password == password
        assert database.call(lambda c: c.execute(text("SELECT current_database()")).scalar_one()) == name
