"""The request path: the gateway and its peers under load, with the same requests to the same tables."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx2
from rounds import ROUNDS, SECONDS, Chart, Row, Section, Values, interleaved, row
from servers import HERE, Server, cpu_seconds, free_port, gateway, serving
from sqlalchemy import Connection, text
from stores import DIALECTS, store
from wrk import CONNECTIONS, Load, press, written

from product_gateway import settings
from product_gateway.auth import keys
from product_gateway.db import merchants
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.db.tables import catalog_counts
from product_gateway.db.types import now
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from product_gateway.openapi.types import Sync

API = "/product-gateway/v1"
MERCHANTS = 100  # of each sort: with and without a sync that is active; each has a token
NAMES = {
    "a": "(a) FastAPI, async ORM",
    "b": "(b) FastAPI, our storage",
    "c": "(c) the limit: Starlette, raw driver",
    "d": "(d) Prism",
    "e": "(e) Connexion as it comes",
}
OURS = "gateway"
MODULES = {"a": "fastapi_orm", "b": "fastapi_ours", "c": "limit", "e": "connexion_plain"}
CHOSEN = os.environ.get("BENCH_DATABASES", " ".join(DIALECTS)).split()
SECONDS_TO_WARM = 3  # for each contender and scenario: 12 in all
PRISM = HERE / "node_modules" / ".bin" / "prism"
# What is asked: status that every answer must have.
SCENARIOS = {"PUT 202": 202, "PUT 429": 429, "GET status": 200, "GET syncs/{id}": 200}

# A sync that is accepted ends within its own transaction, so that the next PUT of the merchant is accepted too. What it
# costs is the database's, and the same for everybody.
TRIGGERS = {
    "sqlite": [
        "CREATE TRIGGER ended AFTER INSERT ON syncs BEGIN UPDATE syncs SET status = 'SUCCEEDED', "
        "publication = 'PUBLISHED', finished_at = NEW.queued_at WHERE merchant = NEW.merchant AND id = NEW.id; END"
    ],
    "postgresql": [
        "CREATE FUNCTION end_at_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE syncs SET "
        "status = 'SUCCEEDED', publication = 'PUBLISHED', finished_at = NEW.queued_at "
        "WHERE merchant = NEW.merchant AND id = NEW.id; RETURN NULL; END $$",
        "CREATE TRIGGER ended AFTER INSERT ON syncs FOR EACH ROW EXECUTE FUNCTION end_at_once()",
    ],
}


@dataclass
class World:
    """A database with merchants, and the requests of each scenario as files for wrk."""

    url: str
    requests: dict[str, Path] = field(default_factory=dict)
    one: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # of each scenario: method, path, token


def run() -> Section:
    """Run every contender with every scenario on both databases, in turn."""
    section = Section("requests", "The request path")
    rates: dict[str, Values] = {}
    tails: dict[str, Values] = {}
    costs: dict[str, Values] = {}
    with tempfile.TemporaryDirectory() as name:
        for dialect in CHOSEN:
            with contenders(dialect, Path(name)) as (world, bases):
                for each, base in bases.items():  # connections, caches, Node's compiler
                    for scenario in SCENARIOS:
                        press(base.url, requests_of(world, each, scenario), SECONDS_TO_WARM)
                for scenario in SCENARIOS:
                    what = f"{scenario}, {'SQLite' if dialect == 'sqlite' else 'PostgreSQL'}"
                    rates[what], tails[what], costs[what] = in_turn(world, bases, scenario)
                    print(f"  {what}: " + ", ".join(f"{k} {max(v):.0f}" for k, v in rates[what].items()), flush=True)
                    print("    µs: " + ", ".join(f"{k} {min(v):.0f}" for k, v in costs[what].items()), flush=True)
    section.rows = rows(rates, tails)
    section.charts = [
        Chart("Answers a second, one process on one core", "answers/s", named(rates)),
        Chart("CPU that an answer takes, without PostgreSQL's", "CPU, µs", named(costs)),
        Chart(f"The slowest of a hundred, {CONNECTIONS} connections", "p99, ms", named(tails)),
    ]
    section.said = [
        f"{ROUNDS} rounds of {SECONDS} s for each contender and line, {CONNECTIONS} connections, {MERCHANTS} "
        "merchants whose tokens come again and again."
    ]
    return section


def in_turn(world: World, bases: dict[str, Server], scenario: str) -> tuple[Values, Values, Values]:
    """Return responses a second, the 99th percentile in milliseconds, and the CPU of a response in microseconds."""
    loads: dict[str, list[Load]] = {each: [] for each in bases}
    costs: Values = {each: [] for each in bases}

    def measure(contender: str) -> float:
        before = cpu_seconds(bases[contender].pid)
        load = pressed(contender, bases[contender], world, scenario, SECONDS)
        loads[contender].append(load)
        costs[contender].append((cpu_seconds(bases[contender].pid) - before) / load.answers * 1e6)
        return load.rate

    rates = interleaved({each: partial(measure, each) for each in bases})
    return rates, {each: [load.p99 * 1000 for load in found] for each, found in loads.items()}, costs


def rows(rates: dict[str, Values], tails: dict[str, Values]) -> list[Row]:
    """Return the rows with their targets."""
    found: list[Row] = []
    for what, values in rates.items():
        ours = values[OURS]
        if what.startswith("PUT"):
            for peer, first, then in (
                ("a", 5, 8),
                ("b", 1.2, 1.8),
                ("c", 0.3, 0.7),
                ("d", 1.3, 2.5),
                ("e", None, None),
            ):
                if peer in values:
                    found.append(row(f"{what}, against {NAMES[peer]}", ours, values[peer], first, then))
            tail = tails[what]
            found.append(row(f"{what}, p99 against (a)'s", tail[OURS], tail["a"], 0.25, 0.1, at_most=True))
        else:
            found.append(row(f"{what}, against {NAMES['b']}", ours, values["b"], 1.2, 1.8))
            found += [row(f"{what}, against {NAMES[peer]}", ours, values[peer]) for peer in ("a", "c")]
    return found


def named(values: dict[str, Values]) -> dict[str, Values]:
    """Replace the names of the contenders by their labels."""
    return {what: {NAMES.get(name, name): v for name, v in each.items()} for what, each in values.items()}


def requests_of(world: World, contender: str, scenario: str) -> Path:
    """Return the requests; Prism needs the wanted status in each."""
    return world.requests[f"{scenario} {'d' if contender == 'd' else ''}"]


def pressed(contender: str, base: Server, world: World, scenario: str, seconds: int) -> Load:
    """Apply load, and check that every response has the status of the scenario."""
    load = press(base.url, requests_of(world, contender, scenario), seconds)
    wrong = load.answers - load.errors if SCENARIOS[scenario] >= 400 else load.errors
    if wrong or not load.answers:  # none at all: the machine is much too busy
        raise RuntimeError(f"{contender}, {scenario}: {wrong} of {load.answers} answers are not {SCENARIOS[scenario]}")
    return load


@contextmanager
def contenders(dialect: str, folder: Path) -> Iterator[tuple[World, dict[str, Server]]]:
    """Start and check all contenders, each on its own database; yield their addresses by name."""
    with ExitStack() as stack:
        folder = folder / dialect
        folder.mkdir()
        url = stack.enter_context(store(dialect))
        world = furnished(url, folder)
        bases: dict[str, Server] = {}
        for contender in (OURS, *NAMES):
            if contender == "d" and not PRISM.exists():
                print("Prism is not installed: the lines about it are left out", file=sys.stderr)
                continue
            port = free_port()
            command, environment = started(contender, url, folder, port)
            server = stack.enter_context(serving(command, environment, folder / f"{contender}.log", port))
            bases[contender] = server
            checked(contender, server.url, world)
        yield world, bases


def started(contender: str, url: str, folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """Return command and environment."""
    command, environment = gateway(url, folder, port=port)
    if contender == "d":
        spec = str(HERE.parent / "openapi" / "product-gateway.yaml")
        return [str(PRISM), "mock", "--port", str(port), "--verboseLevel", "error", spec], {}
    if contender != OURS:
        options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        command = [sys.executable, "-m", "uvicorn", f"peers.{MODULES[contender]}:app", "--port", str(port), *options]
        environment["PYTHONPATH"] = str(HERE)
    return command, environment


def furnished(url: str, folder: Path) -> World:
    """Create merchants with syncs in the needed states, and the requests."""
    world = World(url)
    made = settings.load(data_dir=folder)

    def fill(connection: Connection) -> list[tuple[str, str, UUID]]:
        found = []
        for number in range(MERCHANTS):
            for sort in ("busy", "free"):
                merchants.add(connection, f"{sort}-{number}", Platform.BYOP, "https://shop.example")
            sync = enqueue(connection, f"busy-{number}", EntityType.PRODUCT)
            connection.execute(
                catalog_counts.insert().values(
                    merchant=f"busy-{number}",
                    entity_type="PRODUCT",
                    generation=1,
                    num_records=150,
                    working_records=150,
                    updated_at=now(),
                )
            )
            found.append((f"busy-{number}", f"free-{number}", sync.id))
        for statement in TRIGGERS[connection.dialect.name]:
            connection.execute(text(statement))
        return found

    with open_database(url) as database:
        filled = _called(database, fill)
    tokens = {
        name: keys.issue_token(made, name, list(keys.SCOPES), timedelta(hours=4))
        for busy, free, _ in filled
        for name in (busy, free)
    }
    asked = {
        "PUT 202": [
            ("PUT", f"{API}/sync/{kind}", tokens[free]) for kind in ("PRODUCT", "COLLECTION") for _, free, _ in filled
        ],
        "PUT 429": [("PUT", f"{API}/sync/PRODUCT", tokens[busy]) for busy, _, _ in filled],
        "GET status": [("GET", f"{API}/sync/PRODUCT", tokens[busy]) for busy, _, _ in filled],
        "GET syncs/{id}": [("GET", f"{API}/syncs/{sync}", tokens[busy]) for busy, _, sync in filled],
    }
    for number, (scenario, requests) in enumerate(asked.items()):
        world.requests[f"{scenario} "] = written(folder, str(number), requests)
        prefer = f"#code={SCENARIOS[scenario]}"
        world.requests[f"{scenario} d"] = written(folder, f"{number}-d", [(m, p + prefer, t) for m, p, t in requests])
        world.one[scenario] = requests[0]
    return world


def _called(database: Database, fill: object) -> list[tuple[str, str, UUID]]:
    return database.call(fill)  # type: ignore[arg-type, no-any-return]


def checked(contender: str, base: str, world: World) -> None:
    """Raise RuntimeError unless the contender answers all requests correctly."""
    with httpx2.Client(base_url=base, timeout=30) as client:
        deadline = time.monotonic() + 30
        while True:  # it listens before it is ready
            method, path, token = world.one["GET status"]
            if client.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 200:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{contender} does not get ready")
            time.sleep(0.1)
        for scenario, status in SCENARIOS.items():
            method, path, token = world.one[scenario]
            headers = {"Authorization": f"Bearer {token}", "Prefer": f"code={status}"}
            answer = client.request(method, path, headers=headers)
            body = answer.json()
            shape = {"error"} if status >= 400 else {"data", "meta"}
            expect(contender, scenario, answer.status_code == status and set(body) == shape, answer.text)
            if status == 429:
                expect(contender, scenario, body["error"][0]["status"] == "429", answer.text)
            elif "syncs" in scenario or status == 202:
                wanted = {"id", "status"} if contender == "d" else Sync.__annotations__.keys()  # Prism: an example
                expect(contender, scenario, wanted <= set(body["data"]), answer.text)
                expect(contender, scenario, contender == "d" or body["data"]["status"] == "QUEUED", answer.text)
        method, path, token = world.one["PUT 202"]
        none = client.put(path)
        expect(contender, "no token", none.status_code == 401, none.text)
        if contender == "d":
            return  # Prism looks for a token, not at it
        broken = client.put(path, headers={"Authorization": f"Bearer {token[:-6]}AAAAAA"})
        expect(contender, "a broken token", broken.status_code == 401, broken.text)
        wrong = client.put(f"{API}/sync/ORDER", headers={"Authorization": f"Bearer {token}"})
        expect(contender, "an unknown type", wrong.status_code == 400, wrong.text)


def expect(contender: str, what: str, fulfilled: bool, said: str) -> None:
    """Raise RuntimeError if the values differ."""
    if not fulfilled:
        raise RuntimeError(f"{contender} answers {what} wrongly: {said[:500]}")
