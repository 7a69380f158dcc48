"""Runs the tours of generated clients against a sandbox, and compares their output with plain HTTP responses."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from product_gateway.openapi import documents, openapi_3_1
from tests.support.deployment import API
from tests.tools.client_roster import ANNOTATIONS, TOP, TOURS, Client

WORK = TOURS / ".build"
BIN = TOP / ".venv" / "clients" / "bin"
STEPS = ("202", "429", "ended", "200", "failed", "problems", "pages", "changes", "401", "403")
LONGEST = 600  # seconds
RETRIES = 5
PRODUCTS = 24  # more than a page of 20


def environment() -> dict[str, str]:
    """With the generators on the path, and for Java what the generated pom.xml would fetch."""
    names = "TOKEN", "GATEWAY", "CLIENTS", "MAKEFLAGS", "MAKELEVEL"
    jars = [*BIN.parent.glob("lib/python*/site-packages/openapi_generator_cli/openapi-generator.jar"), ANNOTATIONS]
    return {
        **{name: value for name, value in os.environ.items() if name not in names},
        "PATH": os.pathsep.join([str(BIN), str(TOURS / "node_modules" / ".bin"), os.environ["PATH"]]),
        "CLASSPATH": os.pathsep.join(map(str, jars)),
        "JAVA_TOOL_OPTIONS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
        "GOPROXY": "off",
        "GOFLAGS": "-mod=mod",
    }


def shell(
    command: str, folder: Path, more: Mapping[str, str] | None = None, timeout: float = LONGEST
) -> tuple[float, str]:
    """Run a command; return its seconds and standard output. Raises CalledProcessError, TimeoutExpired."""
    since = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**environment(), **(more or {})},
        text=True,
        capture_output=True,
        timeout=timeout,
        check=True,
    )
    return time.monotonic() - since, done.stdout


def folder_of(client: Client) -> Path:
    """Return the folder where the client is generated and built."""
    return WORK / f"{client.name}{client.form}"


def run_tour(client: Client, sandbox: Mapping[str, str], timeout: float = LONGEST) -> str:
    """Run a built client's tour and return its output. Raises CalledProcessError, TimeoutExpired."""
    return shell(client.run, folder_of(client), sandbox, timeout)[1]


def verify(said: str, sandbox: Mapping[str, str], constant: Mapping[str, str]) -> tuple[list[str], str]:
    """Return the steps of a tour's output that are right, and a description of what is wrong, or ""."""
    expected = truth(sandbox, constant)
    lines = {step: re.findall(rf"^{step}: (.*)$", said, re.MULTILINE)[:1] for step in STEPS}  # of several errors, one
    passed = [step for step in STEPS if lines[step] and re.fullmatch(expected[step], lines[step][0])]
    if passed == list(STEPS):
        return passed, ""
    patterns = "\n".join(": ".join(each) for each in expected.items())
    return passed, f"It said\n{said}where this was expected:\n{patterns}\n"


def prepare(sandbox: Mapping[str, str]) -> None:
    """Run a sync of products, a failing one of collections, and one that rejects records, for the tours to read."""
    for entity_type, scenario in (("PRODUCT", "ordinary"), ("COLLECTION", "failing"), ("COLLECTION", "rejecting")):
        headers = {"Prefer": f"sync={scenario}", "Idempotency-Key": scenario}
        sync = ask(sandbox, f"/sync/{entity_type}", "PUT", **headers)["data"]
        while (sync := ask(sandbox, f"/syncs/{sync['id']}")["data"])["finishedAt"] is None:
            time.sleep(0.2)
        assert sync["status"] == ("FAILED" if scenario == "failing" else "SUCCEEDED")


def truth(sandbox: Mapping[str, str], constant: Mapping[str, str]) -> dict[str, str]:
    """Return a pattern for each line of a tour, from the responses to a plain HTTP client."""
    sync = ask(sandbox, "/syncs?entityType=PRODUCT")["data"][0]
    generation = ask(sandbox, "/changes/PRODUCT?page_size=1")["meta"]["generation"]
    return {
        **constant,
        "429": rf"Too Many Requests, retry after [1-9]\d* s: Sync {sync['id']} of PRODUCT is \w+\. Only one .*",
        "ended": sync["status"],
        "changes": constant["changes"].replace("GENERATION", str(generation)),
    }


def constants(sandbox: Mapping[str, str]) -> dict[str, str]:
    """Return the patterns that are the same for all tours on a sandbox. GENERATION stands for a number."""
    (failed, *_), (partial, *_) = (
        ask(sandbox, f"/syncs?entityType=COLLECTION&status={status}")["data"] for status in ("FAILED", "SUCCEEDED")
    )
    group = ask(sandbox, f"/syncs/{partial['id']}/problems")["data"][0]
    products, changes = read_all(sandbox, "/products"), read_all(sandbox, "/changes/PRODUCT")
    assert len(products) == len(changes) == PRODUCTS
    last = f"{changes[-1]['change']} {changes[-1]['product']['title']}"
    records = int(ask(sandbox, "/sync/PRODUCT")["data"]["numRecords"])
    return {
        "202": "QUEUED",
        "200": rf"{records}(\.0+)? records",
        "failed": re.escape(f"{failed['failure']['code']}: {failed['failure']['detail']}"),
        "problems": re.escape(f"{group['count']} {group['code']}: {group['samples'][0]['message']}"),
        "pages": re.escape(f"{len(products)} products, the last is {products[-1]['id']}"),
        "changes": re.escape(f"{len(changes)} up to generation GENERATION, the last is {last}"),
        "401": _refusal(sandbox, sandbox["EXPIRED_TOKEN"]),
        "403": _refusal(sandbox, sandbox["OTHER_PLATFORM_TOKEN"]),
    }


def read_all(sandbox: Mapping[str, str], path: str) -> list[dict[str, Any]]:
    """Return the items of all pages of a list, or of the feed up to its end."""
    page = ask(sandbox, path)
    items: list[dict[str, Any]] = page["data"]
    while page["meta"].get("hasMore", "nextCursor" in page["meta"]):
        page = ask(sandbox, f"{path}?cursor={page['meta']['nextCursor']}")
        items += page["data"]
    return items


def _refusal(sandbox: Mapping[str, str], token: str) -> str:
    error = ask(sandbox, "/sync/PRODUCT", "PUT", Authorization=f"Bearer {token}")["error"][0]
    return re.escape(f"{error['title']}: {error['detail']}")


def ask(sandbox: Mapping[str, str], path: str, method: str = "GET", **headers: str) -> dict[str, Any]:
    """Send a request to the API with a plain HTTP client, and return the body. Retry a 503."""
    headers = {"Authorization": f"Bearer {sandbox['TOKEN']}", **headers}
    for _ in range(RETRIES):
        answer = httpx2.request(method, sandbox["GATEWAY"] + API + path, headers=headers, timeout=60)
        if answer.status_code != 503:
            break
        time.sleep(1)
    found: dict[str, Any] = answer.json()
    return found


def clean_copy(client: Client, spec: str) -> Path:
    """Return the client's folder with its tour and the spec, without what was generated before."""
    folder = folder_of(client)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TOURS / client.name, folder)
    shutil.copy(TOP / "openapi" / spec, folder)
    if client.form:
        (folder / spec).write_bytes(openapi_3_1.as_yaml(documents.load(spec)))
    return folder
