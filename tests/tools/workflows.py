"""`make workflows`: run openapi/workflows.arazzo.yaml against a sandbox, and show that it finds planted faults.

Redocly's `respect` sends the requests and checks the responses. Its npm package is locked in openapi/lint. First all
workflows run against the sandbox. Then one workflow runs for each fault, against a proxy that changes responses of the
sandbox. Every check must hold in the first run, and at least one must fail for each fault.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.support.deployment import API
from tests.support.faulty_gateway import Exchange, FaultyGateway
from tests.support.serving import serve

TOP = Path(__file__).parents[2]
WORKFLOWS = TOP / "openapi" / "workflows.arazzo.yaml"
LINT = TOP / "openapi" / "lint"
FEWEST_WORKFLOWS, FEWEST_CHECKS, LONGEST = 6, 60, 60  # the longest run of all workflows, in seconds
SANDBOX = ("sandbox", "--until-eof", "--sync-seconds", "0.3", "--slow-seconds", "5")
PUT = f"{API}/sync/PRODUCT"
MERCHANTS = ("byop", "otherByop")


@dataclass(frozen=True)
class Fault:
    """A fault of a server, and the workflow that finds it."""

    name: str
    workflow: str
    plant: Callable[[Exchange], None]


def _without(header: str, *, status: int) -> Callable[[Exchange], None]:
    def plant(exchange: Exchange) -> None:
        if exchange.status == status:
            exchange.headers.pop(header, None)

    return plant


def _other_id_in_location(exchange: Exchange) -> None:
    if "location" in exchange.headers:
        exchange.headers["location"] = f"{API}/syncs/{uuid.UUID(int=7)}"


def _200_for_202(exchange: Exchange) -> None:
    if exchange.status == 202:
        exchange.status = 200


def _active_after_cancel(exchange: Exchange) -> None:
    if exchange.method == "DELETE" and exchange.status == 202:
        exchange.body["data"]["status"] = "IN_PROGRESS"


def _cursor_of_last_page(exchange: Exchange) -> None:
    if exchange.path == f"{API}/products":
        exchange.body["meta"].setdefault("nextCursor", "AAAA")


def _new_id_for_known_key(exchange: Exchange) -> None:
    if exchange.method == "PUT" and exchange.status == 202:
        exchange.body["data"]["id"] = str(uuid.uuid4())


def _200_for_304(exchange: Exchange) -> None:
    if exchange.status == 304:
        exchange.status = 200


def _no_failure(exchange: Exchange) -> None:
    if "/syncs/" in exchange.path and "data" in exchange.body and isinstance(exchange.body["data"], dict):
        exchange.body["data"]["failure"] = None


def _no_deletions(exchange: Exchange) -> None:
    if "/changes/" in exchange.path:
        exchange.body["data"] = [each for each in exchange.body["data"] if each["change"] != "DELETED"]


def _no_more(exchange: Exchange) -> None:
    if "/changes/" in exchange.path:
        exchange.body["meta"]["hasMore"] = False


def _published_at_once(exchange: Exchange) -> None:
    if exchange.path == PUT and exchange.method == "GET":
        exchange.body["meta"]["generation"] += 1


def _status_as_number(exchange: Exchange) -> None:
    for each in (exchange.body or {}).get("error", []):
        each["status"] = int(each["status"])


FAULTS = (
    Fault("429 without Link", "waitForActiveSync", _without("link", status=429)),
    Fault("429 without Retry-After", "waitForActiveSync", _without("retry-after", status=429)),
    Fault("another id in Location", "quickStart", _other_id_in_location),
    Fault("200 instead of 202", "quickStart", _200_for_202),
    Fault("202 without Retry-After", "quickStart", _without("retry-after", status=202)),
    Fault("a cancelled sync is IN_PROGRESS", "cancelSync", _active_after_cancel),
    Fault("nextCursor on the last page", "readAllProducts", _cursor_of_last_page),
    Fault("200 instead of 304", "readAllProducts", _200_for_304),
    Fault("a new sync for a known Idempotency-Key", "retrySafely", _new_id_for_known_key),
    Fault("a FAILED sync without failure", "failedSync", _no_failure),
    Fault("no DELETED in the feed of changes", "replicate", _no_deletions),
    Fault("hasMore is always false", "replicate", _no_more),
    Fault("a staged result is published", "reviewResult", _published_at_once),
    Fault("401 without WWW-Authenticate", "refusals", _without("www-authenticate", status=401)),
    Fault("a number as status of an error", "refusals", _status_as_number),
)


@dataclass(frozen=True)
class Result:
    """What `respect` found: the names of the workflows, all checks, and the failed ones as text."""

    workflows: list[str]
    checks: int
    failed: list[str]
    output: str


def respect(url: str, inputs: dict[str, str], *options: str) -> Result:
    """Run the workflows against a gateway."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.json"
        command = [
            str(LINT / "node_modules" / ".bin" / "redocly"),
            *("respect", str(WORKFLOWS), "--server", f"gateway={url}"),
            *("--input", json.dumps(inputs), "--json-output", str(log), *options),
        ]
        environment = {**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=5 * LONGEST, check=False
        )
        if not log.exists():
            sys.exit(f"respect did not run the workflows:\n{done.stdout}{done.stderr}")
        (found,) = json.loads(log.read_text())["files"].values()
    checks = list(_checks(found["executedWorkflows"]))
    failed = [text for text, passed in checks if not passed]
    if (done.returncode != 0) != bool(failed):
        sys.exit(f"respect exited with {done.returncode}, but {len(failed)} checks failed:\n{done.stdout}{done.stderr}")
    names = [each["workflowId"] for each in found["executedWorkflows"]]
    return Result(names, len(checks), failed, done.stdout + done.stderr)


def _checks(workflows: list[dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Yield each check and whether it passed. Of a step that was retried, the last attempt counts."""
    for workflow in workflows:
        for step in {each["stepId"]: each for each in workflow["executedSteps"]}.values():
            for check in step["checks"]:
                where = f"{workflow['workflowId']}.{step['stepId']}: {check['name']}"
                yield " ".join([where, check.get("condition", "")]).rstrip(), check["passed"]


@contextlib.contextmanager
def sandbox() -> Iterator[dict[str, Any]]:
    """Start a sandbox; yield the line that it prints."""
    command = [sys.executable, "-m", "product_gateway", *SANDBOX]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(30)


def inputs(tokens: dict[str, str], merchant: str) -> dict[str, str]:
    """Return the inputs of all workflows, with a new idempotency key."""
    return {
        "token": tokens[merchant],
        "readOnlyToken": tokens["readOnly"],
        "expiredToken": tokens["expired"],
        "otherPlatformToken": tokens["notByop"],
        "idempotencyKey": str(uuid.uuid4()),
    }


def run_all(made: dict[str, Any]) -> bool:
    """Run all workflows against the sandbox; return whether they are enough, quick enough and hold."""
    since = time.monotonic()
    result = respect(made["baseUrl"], inputs(made["tokens"], MERCHANTS[0]))
    seconds = time.monotonic() - since
    print(f"{len(result.workflows)} workflows, {result.checks} checks, {len(result.failed)} failed; {seconds:.0f} s")
    enough = len(result.workflows) >= FEWEST_WORKFLOWS and result.checks >= FEWEST_CHECKS
    if result.failed:
        print(result.output, file=sys.stderr)
    if not enough or seconds > LONGEST:
        print(f"Expected: {FEWEST_WORKFLOWS} workflows and {FEWEST_CHECKS} checks in {LONGEST} s", file=sys.stderr)
    return enough and seconds <= LONGEST and not result.failed


def find(fault: Fault, merchant: str, made: dict[str, Any]) -> bool:
    """Run the workflow of a fault against a proxy with this fault; return whether it was found."""
    headers = {"Authorization": f"Bearer {made['tokens'][merchant]}"}
    httpx2.delete(made["baseUrl"] + PUT, headers=headers)  # the workflow before may have left a sync active
    faulty = FaultyGateway(made["baseUrl"], fault.plant)
    with serve(faulty) as url:
        result = respect(url, inputs(made["tokens"], merchant), "--workflow", fault.workflow)
    first = result.failed[0] if result.failed else "no check failed"
    verdict = (
        "NOT PLANTED, no response was changed:" if not faulty.changed else "found by" if result.failed else "NOT FOUND:"
    )
    print(f"{fault.name}: {verdict} {first}", flush=True)
    return bool(result.failed and faulty.changed)


def find_all(faults: tuple[Fault, ...], merchant: str, made: dict[str, Any]) -> list[bool]:
    """Return for each fault whether it was found, one after another."""
    return [find(each, merchant, made) for each in faults]


def main() -> None:
    """Exit with 1 if a check failed, or a fault was not found."""
    with sandbox() as made:
        held = run_all(made)
        with ThreadPoolExecutor(len(MERCHANTS)) as pool:  # each merchant has syncs of its own
            shares = [
                pool.submit(find_all, FAULTS[n :: len(MERCHANTS)], MERCHANTS[n], made) for n in range(len(MERCHANTS))
            ]
            found = [each for share in shares for each in share.result()]
    print(f"{sum(found)} of {len(found)} planted faults were found")
    sys.exit(0 if held and all(found) else 1)


if __name__ == "__main__":
    main()
