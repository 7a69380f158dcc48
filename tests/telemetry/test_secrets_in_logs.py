"""Tokens, keys and passwords, on every way that we could think of into a log, an answer or a sync's failure."""

import base64
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote

import httpx2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import Connection, make_url

from product_gateway.auth import keys
from product_gateway.auth.encryption import Secrets
from product_gateway.db import merchants, webhooks
from product_gateway.db.database import Database, open_database
from product_gateway.model.merchants import Platform
from tests.support import databases, leaks
from tests.support.commands import Terminal, assert_refused
from tests.support.deployment import API, Deployment, ended, within
from tests.support.issuer import PRIVATE, signed
from tests.support.leaks import ENDS, RECORD, Told, new_secret
from tests.support.log_lines import Log, answers, raw, serving

PASSWORD = new_secret("database")
WEBHOOK_KEY = quote(new_secret("webhook"), safe="")
WEBHOOK_SECRET = "whsec_" + base64.b64encode(new_secret("webhook-secret").encode()).decode()
OWN = "what one is told of one's own"


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """A product service that says the token back."""
    with leaks.serve() as url:
        yield url


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """For commands that end."""
    return Terminal(monkeypatch, capsys)


@pytest.fixture
def told() -> Told:
    """Nothing yet."""
    return Told()


@pytest.fixture
def talkative(request: pytest.FixtureRequest, tmp_path: Path) -> Deployment:
    """Processes that log all they have, over a database whose URL has a password where it can have one."""
    dialect, form = request.param
    if dialect == "postgresql":
        server, template = (request.getfixturevalue(f"postgresql_{name}") for name in ("server", "template"))
        url = make_url(databases.copy_of(server, template)).set(password=PASSWORD)
    else:
        url = make_url(f"sqlite:///{databases.migrated_file(tmp_path)}")
    more = {"log_level": "DEBUG", "log_format": form, "request_attempts": "1"}
    return Deployment(tmp_path, url.render_as_string(hide_password=False), **more)


def open_merchants(deployment: Deployment, database: Database, echo: str) -> dict[str, str]:
    """One for each way, with a token of its own; answers them by name."""
    made = deployment.settings()
    ours, others = (Secrets(each) for each in (made, made.model_copy(update={"data_dir": deployment.folder})))
    tokens = {}
    for name in ENDS:
        tokens[name] = new_secret(f"service-{name}")
        stored = (others if name == "unreadable" else ours).encrypt(tokens[name])
        database.call(merchants.add, name, Platform.BYOP, f"{echo}/{name}", stored, max_rejected_percent=100)
    for name in ("accepted", "refused", "unreadable"):
        secret = (others if name == "unreadable" else ours).encrypt(WEBHOOK_SECRET)
        database.call(webhooks.put, name, url=f"{echo}/{WEBHOOK_KEY}?key={WEBHOOK_KEY}", secret=secret)
    return tokens


def bearer(deployment: Deployment, merchant: str, lifetime: timedelta = timedelta(hours=1)) -> str:
    """A token of the merchant."""
    return keys.issue_token(deployment.settings(), merchant, list(keys.SCOPES), lifetime)


def refuse_rows(database: Database, table: str) -> None:
    """From now on the table takes no row, with an error that quotes the whole row where it can."""
    if database.engine.dialect.name == "sqlite":
        statements = [f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END"]
    else:
        body = "BEGIN RAISE EXCEPTION 'no %%', NEW USING ERRCODE = '23514', DETAIL = NEW::text; END"
        statements = [
            f"CREATE FUNCTION no_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$",
            f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION no_{table}()",
        ]
    for each in statements:
        database.call(run_as_it_is, each)


def run_as_it_is(connection: Connection, statement: str) -> None:
    """A statement."""
    connection.exec_driver_sql(statement)


class Visit:
    """Everything that clients do, with what they are told."""

    def __init__(self, base: str, told: Told) -> None:
        self._base = base
        self._told = told

    def call(self, method: str, path: str, authorization: str, key: str | None = None) -> httpx2.Response:
        """One request."""
        more = {} if key is None else {"Idempotency-Key": key}
        answer = httpx2.request(method, self._base + path, headers={"Authorization": authorization, **more}, timeout=30)
        return self._told.answer(answer)

    def sync(self, token: str, key: str | None = None) -> str | None:
        """A whole sync of products, and all that can be read of it; the code of its failure."""
        put = self.call("PUT", f"{API}/sync/PRODUCT", f"Bearer {token}", key)
        assert put.status_code == 202, put.text
        with httpx2.Client(base_url=self._base, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
            run = ended(client, put.json()["data"])
        for path in (f"syncs/{run['id']}", f"syncs/{run['id']}/problems", "syncs", "sync/PRODUCT", "products"):
            self.call("GET", f"{API}/{path}", f"Bearer {token}")
        return (run["failure"] or {}).get("code")

    def with_bad_tokens(self, good: str, garbage: str, login: str, *others: str) -> None:
        """All are refused."""
        basic = base64.b64encode(login.encode()).decode()
        for bad in (garbage, good * 20, signed(PRIVATE, kid=garbage), *others):
            assert self.call("GET", f"{API}/sync/PRODUCT", f"Bearer {bad}").status_code == 401
        for bad in (login, f"Basic {basic}", f"Bearer {good}, Bearer {good}", f"Token {garbage}"):
            assert self.call("GET", f"{API}/sync/PRODUCT", bad).status_code == 401

    def with_misplaced_tokens(self, good: str, garbage: str) -> None:
        """Send tokens where they do not belong. Only the sender is told what is wrong."""
        for path in (
            f"{API}/products?access_token={good}&{quote(garbage)}=1",
            f"{API}/products?page_size={quote(garbage)}",
            f"{API}/products?cursor={good}",
            f"{API}/syncs/{good}",
            f"/{good}?{good}",
        ):
            answer = httpx2.get(f"{self._base}{path}", headers={"Authorization": f"Bearer {good}"})
            assert answer.status_code in (400, 404)
        for broken in (f"GET / HTTP/1.1\r\nAuthorization: {good}\r\n {good}\r\n\r\n", f"{good} {good}\r\n\r\n"):
            raw(self._base, broken.encode())


@pytest.mark.parametrize(
    "talkative", [("sqlite", "text"), ("postgresql", "json")], ids=["sqlite-text", "postgresql-json"], indirect=True
)
def test_no_secret_is_disclosed(talkative: Deployment, echo: str, told: Told) -> None:
    """Logs are kept for long, shipped far and read by many; a sync's failure is read by the merchant's clients."""
    deployment, url = talkative, talkative.environment["PRODUCT_GATEWAY_DATABASE_URL"]
    key, another_key, garbage, login = (new_secret(kind) for kind in ("key", "key", "token", "login"))
    with open_database(url) as database:
        tokens = open_merchants(deployment, database, echo)
        theirs = {name: bearer(deployment, name) for name in ENDS}
        good, expired = theirs["accepted"], bearer(deployment, "accepted", timedelta(seconds=-1))
        forged = f"{good.rpartition('.')[0]}.{theirs['refused'].rpartition('.')[2]}"
        with deployment.process("worker") as worker, deployment.process("serve", "--port", "0") as server:
            base = server.url()
            within(20, lambda: answers(base))
            visit = Visit(base, told)
            for name, code in ENDS.items():
                assert visit.sync(theirs[name], key) == code, name
            visit.with_bad_tokens(good, garbage, login, expired, forged)
            visit.with_misplaced_tokens(good, garbage)
            assert visit.call("PUT", f"{API}/sync/COLLECTION", f"Bearer {good}", key).status_code == 400
            database.call(run_as_it_is, "DELETE FROM catalog_records")
            refuse_rows(database, "catalog_records")
            assert visit.sync(good) == "INTERNAL_ERROR"
            refuse_rows(database, "syncs")
            assert visit.call("PUT", f"{API}/sync/COLLECTION", f"Bearer {good}", another_key).status_code == 500
            if make_url(url).password:
                others = make_url(url).set(database="postgres").render_as_string(hide_password=False)
                databases.run(others, f"ALTER DATABASE {make_url(url).database} ALLOW_CONNECTIONS false")
                databases.cut_off(url)
                assert visit.call("PUT", f"{API}/sync/COLLECTION", f"Bearer {good}", key).status_code == 503
                within(20, lambda: "Syncs are not looked for" in worker.log.read_text())
    logged = worker.log.read_text() + server.log.read_text()
    told.hear("the logs", logged)
    for name, token in tokens.items():
        told.lacks(f"token of the product service {name}", token)
    for token in (*theirs.values(), expired):
        told.lacks("signature of a token", token.rpartition(".")[2])
    told.lacks("key in a webhook's address", unquote(WEBHOOK_KEY))
    told.lacks("secret of a webhook", WEBHOOK_SECRET.removeprefix("whsec_"))
    for met in ("The receiver answered 500.", "--webhook-secret-file FILE"):
        assert met in logged, "messages to webhooks were not tried"
    told.lacks("key of a client", key)
    told.lacks("key that a statement had", another_key)
    told.lacks("password of the database", PASSWORD)
    told.lacks("token that is none", garbage)
    told.lacks("login", login)
    assert RECORD not in logged, "records are the merchant's own business"
    for table in ("catalog_records", "syncs"):
        quoted = re.search(rf"\[SQL: (?s:.){{0,4000}}?INSERT INTO {table}", logged)
        assert quoted, "the errors that quote rows were not met"
    assert told.says("***"), "the ids of records through which a token would leak were not met"


def names_the_issuer(log: Log) -> bool:
    """Whether it has been said that the issuer failed."""
    return any("PRODUCT_GATEWAY_JWKS_URL" in each["event"] for each in log.lines())


def test_an_issuer_that_fails_is_not_quoted(sqlite_deployment: Deployment, echo: str, told: Told) -> None:
    """Some publish their keys at an address with a key in it, or answer with more than they should."""
    secret = new_secret("issuer").replace("?", "").replace("%", "").replace("\\", "").replace('"', "")
    for base in (f"{echo}/keys", "http://127.0.0.1:1/keys"):
        sqlite_deployment.environment["PRODUCT_GATEWAY_JWKS_URL"] = f"{base}?key={quote(secret, safe='')}"
        with serving(sqlite_deployment, "text") as (url, log):
            caller = {"Authorization": f"Bearer {signed(PRIVATE, kid='one')}"}
            assert told.answer(httpx2.get(f"{url}{API}/syncs", headers=caller)).status_code == 503
            within(20, partial(names_the_issuer, log))
            told.hear("the log", str(log.lines()))
    told.lacks("key in the address", secret)


HIDDEN = "h1dden-fr0m-all"


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("migrate", {"DATABASE_URL": f"postgresql://u:{HIDDEN}@127.0.0.1:1/n?sslpassword={HIDDEN}"}),
        ("migrate", {"DATABASE_URL": f"postgresql://u:{HIDDEN}@127.0.0.1:1,127.0.0.1:1/n"}),
        ("migrate", {"DATABASE_URL": f"postgresql://u:{HIDDEN}@127.0.0.1:x/n"}),
        ("migrate", {"DATABASE_URL": f"postgresql://u:{HIDDEN}@127.0.0.1/n?nonsense={HIDDEN}"}),
        ("migrate", {"DATABASE_URL": f"mysql://u:{HIDDEN}@127.0.0.1/n"}),
        ("migrate", {"DATABASE_URL": f"u:{HIDDEN}@127.0.0.1/n"}),
        ("serve --port 0", {"JWKS_URL": f"https://u:{HIDDEN}@id.example/keys"}),
        ("serve --port 0", {"JWT_PUBLIC_KEY_FILE": "private.pem"}),
        ("worker", {"SECRET_KEY_FILE": "no-key"}),
        (
            "merchant add x --platform BYOP --product-service-token-file two-lines --product-service-url https://x.example",
            {},
        ),
        (f"merchant add x --platform BYOP --product-service-url https://u:{HIDDEN}@x.example/a", {}),
        (f"merchant add x --platform BYOP --product-service-url https://x.example/a?key={HIDDEN}", {}),
        (f"merchant add x --platform BYOP --product-service-url https://u:{HIDDEN}/@x.example#{HIDDEN}", {}),
    ],
)
def test_a_command_that_cannot_be_done_quotes_no_secret(
    command: str, settings: dict[str, str], sqlite_deployment: Deployment, terminal: Terminal
) -> None:
    """It says what is wrong, and pipelines keep what it says."""
    pem = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for name, content in {"private.pem": pem, "no-key": HIDDEN, "two-lines": f"{HIDDEN} {HIDDEN}\n{HIDDEN}"}.items():
        (sqlite_deployment.folder / name).write_text(content)
    sqlite_deployment.environment |= {f"PRODUCT_GATEWAY_{name}": value for name, value in settings.items()}
    as_process = command.startswith(("serve", "worker"))
    done = (
        sqlite_deployment.run(*command.split(), check=False) if as_process else terminal.run(sqlite_deployment, command)
    )
    assert_refused(done)
    for secret in (HIDDEN, *pem.splitlines()[1:-1]):
        assert secret not in done.stderr
    assert done.stderr.strip()
