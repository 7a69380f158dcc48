"""Each way in which a database can refuse a command ends in a one-line error message."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from tests.support import databases
from tests.support.commands import Terminal, assert_refused
from tests.support.deployment import Deployment
from tests.support.postgresql_cluster import HOST, USER, one_server

COMMANDS = ("migrate", "merchant list", "merchant add x --platform BENTO", "merchant show shop", "prune")
PROCESSES = ("serve --port 0", "worker")
WRITING = ("merchant add x --platform BENTO", "merchant update shop --disable")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Commands without a process of their own."""
    return Terminal(monkeypatch, capsys)


def refused(deployment: Deployment, terminal: Terminal, *words: str, commands: tuple[str, ...] = COMMANDS) -> None:
    """Each of the commands is, in one line."""
    for command in commands:
        done = terminal.run(deployment, command)
        assert_refused(done, "PRODUCT_GATEWAY_DATABASE_URL", *words)
        assert len(done.stderr.splitlines()) == 1, done.stderr


def use(deployment: Deployment, url: str) -> None:
    """Point the deployment at another database."""
    deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"] = url


def changed(url: str, **parts: str) -> str:
    """The URL with other parts."""
    return make_url(url).set(**parts).render_as_string(hide_password=False)  # type: ignore[arg-type]


@pytest.fixture
def postgresql(postgresql_server: str, postgresql_template: str) -> str:
    """A migrated database."""
    return databases.copy_of(postgresql_server, postgresql_template)


@pytest.fixture
def postgresql_deployment(postgresql: str, tmp_path: Path) -> Deployment:
    """The processes that use it."""
    return Deployment(tmp_path, postgresql)


@contextmanager
def role(url: str, *grants: str) -> Iterator[str]:
    """The URL for a role that may do little."""
    name = f"role_{next(databases.numbers)}"
    databases.run(url, f"CREATE ROLE {name} LOGIN")
    for each in grants:
        databases.run(url, each.format(name))
    yield changed(url, username=name)


def test_a_database_that_is_not_there(postgresql_deployment: Deployment, postgresql: str, terminal: Terminal) -> None:
    """Its name may be misspelt."""
    use(postgresql_deployment, changed(postgresql, database="nowhere"))
    refused(postgresql_deployment, terminal, 'database "nowhere" does not exist')
    for each in PROCESSES:
        assert_refused(postgresql_deployment.run(*each.split(), check=False), 'database "nowhere" does not exist')


def test_a_role_that_is_not_there(postgresql_deployment: Deployment, postgresql: str, terminal: Terminal) -> None:
    """The connection URL names a role and a password that the server does not have."""
    use(postgresql_deployment, changed(postgresql, username="absent", password="s3cret-of-absent"))
    refused(postgresql_deployment, terminal, 'role "absent" does not exist')


def test_a_wrong_password(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """The server says which role it is of."""
    with one_server() as server:
        with psycopg.connect(host=HOST, port=server.port, user=USER, dbname="postgres") as connection:
            connection.execute("CREATE ROLE careful LOGIN PASSWORD 'right'")
        rules = server.data / "pg_hba.conf"
        rules.write_text("host all careful all scram-sha-256\n" + rules.read_text())
        server.run("pg_ctl", "reload", "-D", str(server.data))
        use(sqlite_deployment, f"postgresql://careful:wr0ng-one@{HOST}:{server.port}/postgres")
        refused(sqlite_deployment, terminal, 'password authentication failed for user "careful"')


def test_no_rights(postgresql_deployment: Deployment, postgresql: str, terminal: Terminal) -> None:
    """None to the tables, and none to make some."""
    with role(postgresql) as url:
        use(postgresql_deployment, url)
        refused(postgresql_deployment, terminal, "permission denied", commands=COMMANDS[1:])


def test_rights_to_read_alone(postgresql_deployment: Deployment, postgresql: str, terminal: Terminal) -> None:
    """What reads works; what writes says why not."""
    assert terminal.run(postgresql_deployment, "merchant add shop --platform BENTO").returncode == 0
    with role(postgresql, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}") as url:
        use(postgresql_deployment, url)
        assert terminal.run(postgresql_deployment, "merchant list").returncode == 0
        refused(postgresql_deployment, terminal, "permission denied for table", commands=WRITING)


def test_no_right_to_make_tables(postgresql_server: str, tmp_path: Path, terminal: Terminal) -> None:
    """As roles have none in the schema `public` since PostgreSQL 15."""
    name = f"empty_{next(databases.numbers)}"
    databases.run(postgresql_server, f"CREATE DATABASE {name}")
    deployment = Deployment(tmp_path, changed(postgresql_server, database=name))
    with role(changed(postgresql_server, database=name)) as url:
        use(deployment, url)
        refused(deployment, terminal, "permission denied for schema public", commands=("migrate",))


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE merchants RENAME COLUMN disabled TO off",
        "ALTER TABLE merchants RENAME TO shops",
    ],
)
def test_damaged_tables(damage: str, postgresql_deployment: Deployment, postgresql: str, terminal: Terminal) -> None:
    """An operator changed the tables by hand."""
    databases.run(postgresql, damage)
    refused(postgresql_deployment, terminal, commands=("merchant add x --platform BENTO",))


def test_a_table_of_another_application(postgresql_server: str, tmp_path: Path, terminal: Terminal) -> None:
    """A table of another application has the name of a table of the gateway."""
    name = f"taken_{next(databases.numbers)}"
    databases.run(postgresql_server, f"CREATE DATABASE {name}")
    url = changed(postgresql_server, database=name)
    databases.run(url, "CREATE TABLE syncs (id int)")
    deployment = Deployment(tmp_path, url)
    refused(deployment, terminal, "already exists", commands=("migrate",))
    refused_words = terminal.run(deployment, "merchant list")
    assert_refused(refused_words, "Run: product-gateway migrate")


def test_a_server_that_only_reads(postgresql_deployment: Deployment, postgresql: str, terminal: Terminal) -> None:
    """As a standby does."""
    name = make_url(postgresql).database
    assert terminal.run(postgresql_deployment, "merchant add shop --platform BENTO").returncode == 0
    databases.run(postgresql, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    refused(postgresql_deployment, terminal, "read-only transaction", commands=WRITING)


def test_no_more_connections(postgresql_deployment: Deployment, postgresql: str, terminal: Terminal) -> None:
    """The database or the server has a limit."""
    name = make_url(postgresql).database
    databases.run(postgresql, f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')
    with role(postgresql.replace(f"/{name}", "/postgres")) as url:
        use(postgresql_deployment, changed(url, database=str(name)))
        refused(postgresql_deployment, terminal, "too many connections")


def test_an_older_server(
    postgresql_deployment: Deployment, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, postgresql: str
) -> None:
    """It lacks something that our statements need."""
    monkeypatch.setattr("product_gateway.db.engines.postgresql.OLDEST", 990000)
    refused(postgresql_deployment, terminal, "The server is PostgreSQL ", "version 99 or newer is needed")


def no_database(path: Path) -> None:
    """Something else."""
    path.write_bytes(b"This is no database.\n" * 500)


def a_folder(path: Path) -> None:
    """In its place."""
    path.unlink()
    path.mkdir()


def cut_short(path: Path) -> None:
    """A part of it is missing."""
    path.write_bytes(path.read_bytes()[:5000])


def without_table(path: Path) -> None:
    """Rename a table, so that the gateway does not find it."""
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE merchants RENAME TO shops")
    connection.close()


def without_column(path: Path) -> None:
    """Rename a column, so that the gateway does not find it."""
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE merchants RENAME COLUMN disabled TO off")
    connection.close()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (no_database, "file is not a database"),
        (a_folder, "unable to open database file"),
        (cut_short, ""),
        (without_table, "no such table: merchants"),
        (without_column, "disabled"),
    ],
)
def test_a_file_that_cannot_be_used(
    damage: Callable[[Path], None], words: str, sqlite_deployment: Deployment, terminal: Terminal
) -> None:
    """A command names the problem for each kind of damaged or missing SQLite file."""
    damage(Path(str(make_url(sqlite_deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]).database)))
    refused(sqlite_deployment, terminal, words, commands=("merchant list", "merchant add x --platform BENTO"))
    if damage in (no_database, a_folder):
        refused(sqlite_deployment, terminal, words)
        for each in PROCESSES:
            assert_refused(sqlite_deployment.run(*each.split(), check=False), words)


def test_a_file_that_another_process_has_locked(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """A command waits for a while, and then says so."""
    path = str(make_url(sqlite_deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]).database)
    holder = sqlite3.connect(path, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        refused(sqlite_deployment, terminal, "database is locked", commands=("merchant add x --platform BENTO",))
    finally:
        holder.close()


@pytest.mark.parametrize("path", ["gateway.db/in-a-file.db", "/proc/gateway.db", "/dev/full/gateway.db"])
def test_a_place_where_no_file_can_be(path: str, sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """The folder cannot be made, or nothing can be written there."""
    place = path if path.startswith("/") else f"{sqlite_deployment.folder}/{path}"
    use(sqlite_deployment, f"sqlite:///{place}")
    for command in COMMANDS:
        assert_refused(terminal.run(sqlite_deployment, command), path.rpartition("/")[0])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_only_be_read(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """By its permissions."""
    path = Path(str(make_url(sqlite_deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]).database))
    path.chmod(0o444)
    refused(sqlite_deployment, terminal, "readonly database", commands=("merchant add x --platform BENTO",))
