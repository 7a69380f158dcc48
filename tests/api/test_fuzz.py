"""Schemathesis against the running server: it answers every request as openapi/product-gateway.yaml says.

And so does its operations port, of which openapi/operations.yaml speaks.

FUZZ_EXAMPLES is how many cases each operation gets (`make fuzz`: 1000), FUZZ_SEED which ones.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from tests.support.deployment import API, Deployment, ended, is_ready, within

TOP = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")
OPERATIONS_CONFIG = Path(__file__).with_name("schemathesis-operations.toml")
OPERATOR_TOKEN = "an-operators-token-of-some-length"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "20"))
SEED = os.environ.get("FUZZ_SEED", "1")
LONGEST = 120 + EXAMPLES * 3  # seconds
MERCHANTS = ("shop", "other")

ENDS_OF_A_SYNC = ("revertSync", "publishSync", "discardSync")
# "everything" takes few of the many sequences. Schemathesis starts sequences at lists where there are any. Without them
# it starts where clients do, at a PUT, and then has to be told to go on: a PUT is not always answered in the same way.
RUNS: dict[str, tuple[str, ...]] = {
    # A revert of the first sync would empty the catalog, and no list would have a next page.
    "everything": ("--exclude-operation-id", "revertSync"),
    "lists": (
        *("--phases", "stateful"),
        *chain.from_iterable(("--include-operation-id", each) for each in ("listProducts", "getProduct")),
    ),
    "syncs": (
        *("--phases", "stateful", "--include-tag", "Sync"),
        *chain.from_iterable(("--exclude-operation-id", each) for each in ("listSyncs", *ENDS_OF_A_SYNC)),
        *("--max-time", str(max(5, EXAMPLES // 10))),
    ),
    "operations": (),
}
SPECS = {"operations": documents.OPERATIONS}  # of the others it is the gateway's
# A stream does not end, files' names have to be looked up, what is cancelled must be active, and what is published must
# be staged: see test_monitor*.py and test_generations.py.
APART = {
    (documents.OPERATIONS, "/monitor/api/stream", "get"),
    (documents.OPERATIONS, "/monitor/assets/{name}", "get"),
    *(
        (documents.OPERATIONS, f"/monitor/api/syncs/{{merchant}}/{{syncId}}/{action}", "post")
        for action in ("cancel", "publish", "discard")
    ),
    *((documents.GATEWAY, f"{API}/syncs/{{syncId}}/{action}", "post") for action in ("publish", "discard", "revert")),
}


@dataclass(frozen=True)
class Run:
    """The results of one run of Schemathesis."""

    name: str
    status: int
    output: str
    events: Path

    def scenarios(self) -> Iterator[dict[str, Any]]:
        """Yield the requests and responses."""
        with self.events.open() as lines:
            for line in lines:
                yield json.loads(line).get("ScenarioFinished", {}).get("recorder", {})


@pytest.fixture(scope="module")
def runs(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, Run]:
    """Return all runs. They take a minute, so one test process makes them for all."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "fuzz"
    folder.mkdir(exist_ok=True)
    made = folder / "runs.json"
    with (folder / "turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not made.exists():
            made.write_text(json.dumps([asdict(each) for each in all_runs(folder, sqlite_template)], default=str))
    found = [
        Run(each["name"], each["status"], each["output"], Path(each["events"])) for each in json.loads(made.read_text())
    ]
    return {each.name: each for each in found}


def all_runs(folder: Path, template: Path) -> list[Run]:
    """Run against a gateway whose merchant `shop` has synced and whose merchant `other` has nothing."""
    shutil.copy(template, folder / "gateway.db")
    (folder / "service.token").write_text("the-merchants-token")
    (folder / "operator.token").write_text(OPERATOR_TOKEN)
    write_catalog(folder / "catalog.json")
    more = {"worker_poll_seconds": "0.01", "operator_token_file": str(folder / "operator.token")}
    deployment = Deployment(folder, f"sqlite:///{folder / 'gateway.db'}", validate_responses="true", **more)
    # A delay, so that a sync is active for long enough to be met and cancelled on a busy machine.
    sample = ("--catalog", str(folder / "catalog.json"), "--delay", "1")
    with (
        deployment.sample_service(*sample) as service,
        deployment.process("serve", "--port", "0", "--with-worker") as gateway,
    ):
        url = within(60, lambda: gateway.url() if is_ready(gateway.operations_url()) else None)
        for merchant in MERCHANTS:
            deployment.run(
                *("merchant", "add", merchant, "--platform", "BYOP", "--currency", "GBP"),
                *("--product-service-url", service, "--product-service-token-file", str(folder / "service.token")),
            )
        with deployment.client(url, "shop") as client:
            for entity_type in EntityType:
                sync = client.put(f"{API}/sync/{entity_type}").json()["data"]
                assert ended(client, sync)["status"] == "SUCCEEDED"
        write_identities(folder / "identities.json", deployment)
        for config in (CONFIG, OPERATIONS_CONFIG):
            write_config(config, folder / config.name, sync["id"])
        urls = {name: gateway.operations_url() if name in SPECS else url for name in RUNS}
        return [run(folder, name, urls[name], *arguments) for name, arguments in RUNS.items()]


def write_catalog(path: Path) -> None:
    """Write enough products for several pages, with the ids in schemathesis.toml."""
    known = tomllib.loads(CONFIG.read_text())["dictionaries"]
    ids = [*known["products"]["values"], *(f"product-{n}" for n in range(20))]
    products = [{"id": each, "title": f"Product {each}", "listPrice": 100} for each in ids]
    collections = [{"id": each, "title": each, "products": products} for each in known["collections"]["values"]]
    path.write_text(json.dumps({"products": products, "collections": collections}))


def write_identities(path: Path, deployment: Deployment) -> None:
    """Write the merchants' tokens in the form of Web Fuzzing Commons."""
    tokens = {merchant: deployment.token(merchant, "--expires", "7d") for merchant in MERCHANTS}
    header = {name: [{"name": "Authorization", "value": f"Bearer {token}"}] for name, token in tokens.items()}
    path.write_text(json.dumps({"auth": [{"name": name, "fixedHeaders": header[name]} for name in MERCHANTS]}))


def write_config(template: Path, path: Path, sync_id: str) -> None:
    """Write a configuration that knows a sync."""
    text = template.read_text().replace('"SYNC"', f'"{sync_id}"')
    path.write_text(text.replace("tests/support/fuzz_checks.py", str(TOP / "tests" / "support" / "fuzz_checks.py")))


def run(folder: Path, name: str, url: str, *arguments: str) -> Run:
    """Run `schemathesis run`."""
    events = folder / f"{name}.ndjson"
    config = folder / (OPERATIONS_CONFIG if name in SPECS else CONFIG).name
    secrets = {"FUZZ_IDENTITIES": str(folder / "identities.json"), "FUZZ_OPERATOR_TOKEN": OPERATOR_TOKEN}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
            *("run", str(documents.path(SPECS.get(name, documents.GATEWAY))), "--url", url, *arguments),
            *("--max-examples", str(EXAMPLES), "--seed", SEED),
            *("--report", "ndjson", "--report-ndjson-path", str(events)),
        ],
        cwd=TOP,
        env={**os.environ, **secrets},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST,
    )
    return Run(name, done.returncode, done.stdout, events)


@pytest.mark.parametrize("name", RUNS)
def test_schemathesis_finds_nothing(runs: dict[str, Run], name: str) -> None:
    """Fix each finding in the server or the spec; exceptions are in fuzz_checks."""
    found = runs[name]
    print(found.output)  # a run that found nothing shows its summary with pytest -rP
    assert found.status == 0, f"Schemathesis found something; it says how to see it again:\n{found.output[-8000:]}"


def test_every_operation_was_served_at_least_once(runs: dict[str, Run]) -> None:
    """Otherwise only refusals would be tested."""
    served = set()
    for name, each in ((name, scenario) for name, run in runs.items() for scenario in run.scenarios()):
        for case_id, case in each.get("cases", {}).items():
            response = each["interactions"].get(case_id, {}).get("response") or {}
            if 200 <= response.get("status_code", 0) < 300:
                served.add((SPECS.get(name, documents.GATEWAY), case["value"]["path"], case["value"]["method"].lower()))
    specs = (documents.GATEWAY, documents.OPERATIONS)
    never = (
        {(name, *each[:2]) for name in specs for each in documents.operations(documents.load(name))} - served - APART
    )
    assert not never, f"never answered with 2xx: {never}. Give schemathesis.toml what they need."


def test_sequences_led_from_one_operation_to_another(runs: dict[str, Run]) -> None:
    """Clients use sequences: enqueue, read, cancel, next page."""
    followed = {
        case["transition"]["id"]
        for run in runs.values()
        for scenario in run.scenarios()
        for case in scenario.get("cases", {}).values()
        if case.get("transition") and case["is_transition_applied"]
    }
    starts = {each.partition(" -> ")[0] for each in followed}
    assert {f"PUT {API}/sync/{{entityType}}", f"GET {API}/products"} <= starts, followed
