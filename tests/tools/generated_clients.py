"""`make clients`: generate clients from the spec, build them, and run their tours against a real gateway.

Each tour (tests/clients) requests a sync, gets a 429 for the second request, waits for the end, and reads the status,
two pages of products and the feed of changes. It is refused with an expired token and for another platform. The tour's
output is compared with the responses to a plain HTTP client. Then the tour runs against a gateway that adds unknown
members, as a later version may.
CLIENTS names the required clients, or `all`. If it is unset, those run whose tools are installed.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.support.deployment import API
from tests.support.newer_gateway import LaterGateway
from tests.support.serving import serve
from tests.tools.client_roster import ANNOTATIONS, CLIENTS, SPEC, TOOLS, TOP, TOURS, Client

WORK = TOURS / ".build"
BIN = TOP / ".venv" / "clients" / "bin"
STEPS = ("202", "429", "ended", "200", "pages", "changes", "401", "403")
LATER = "additions"
COLUMNS = ("client", "generator", "generate", "build", *STEPS, LATER)
LONGEST, STOPS_WITHIN = 600, 30  # seconds
SYNC_SECONDS = "6"  # that the second PUT meets it even where the machine is busy


@dataclass
class Outcome:
    """The result of one client: `missing` tools, or what `failed`."""

    client: Client
    missing: str = ""
    failed: str = ""
    generate: float = 0
    build: float = 0
    passed: list[str] = field(default_factory=list)

    def row(self) -> tuple[str, ...]:
        """Return the row of one client."""
        head = f"{self.client.name}", self.client.generator
        if self.missing:
            return (*head, f"not run: {self.missing}")
        seconds = (f"{each:.1f} s" if each else "" for each in (self.generate, self.build))
        return (*head, *seconds, *("ok" if step in self.passed else "FAILED" for step in (*STEPS, LATER)))


@dataclass(frozen=True)
class Gateway:
    """A gateway without any sync, and its tokens."""

    url: str
    token: str
    expired_token: str
    other_platform_token: str

    def environment(self) -> dict[str, str]:
        """What a tour is told."""
        return {
            "GATEWAY": self.url,
            "TOKEN": self.token,
            "EXPIRED_TOKEN": self.expired_token,
            "OTHER_PLATFORM_TOKEN": self.other_platform_token,
        }

    def truth(self) -> dict[str, str]:
        """Return a pattern for each line of a tour, from the responses to a plain HTTP client."""
        sync = self._ask("GET", f"{API}/syncs", self.token)["data"][0]
        products = self._ask("GET", f"{API}/products", self.token)["data"]
        feed = self._ask("GET", f"{API}/changes/PRODUCT", self.token)
        assert 20 < len(products) < 40, "the tours expect two pages of at most 20 products"
        return {
            "202": "QUEUED",
            "429": rf"Too Many Requests, retry after [1-9]\d* s: Sync {sync['id']} of PRODUCT is \w+\. Only one .*",
            "ended": sync["status"],
            "200": f"{len(products)} records",
            "pages": re.escape(f"20 + {len(products) - 20} products, the last is {products[-1]['id']}"),
            "changes": re.escape(
                f"20 + {len(products) - 20} up to generation {feed['meta']['generation']}, the last is "
                f"{feed['data'][-1]['change']} {feed['data'][-1]['product']['title']}"
            ),
            "401": self._refusal(self.expired_token),
            "403": self._refusal(self.other_platform_token),
        }

    def _refusal(self, token: str) -> str:
        (error,) = self._ask("PUT", f"{API}/sync/PRODUCT", token)["error"]
        return re.escape(f"{error['title']}: {error['detail']}")

    def _ask(self, method: str, path: str, token: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        found: dict[str, Any] = httpx2.request(method, self.url + path, headers=headers, timeout=30).json()
        return found


@contextlib.contextmanager
def gateway() -> Iterator[Gateway]:
    """Run a sandbox for one client, because only one sync of a merchant and type may be active."""
    command = [sys.executable, "-m", "product_gateway", "sandbox", "--until-eof", "--sync-seconds", SYNC_SECONDS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            assert said, "the sandbox has exited; it says why on standard error"
            made = json.loads(said)
            tokens = made["tokens"]
            yield Gateway(made["baseUrl"], tokens["byop"], tokens["expired"], tokens["notByop"])
        finally:
            process.stdin.close()
            process.wait(STOPS_WITHIN)


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


def shell(command: str, folder: Path, more: dict[str, str] | None = None) -> tuple[float, str]:
    """Run a command; return its seconds and standard output. Raises CalledProcessError."""
    since = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**environment(), **(more or {})},
        text=True,
        capture_output=True,
        timeout=LONGEST,
        check=True,
    )
    return time.monotonic() - since, done.stdout


def missing(client: Client) -> str:
    """Return the tools that the client needs and this machine lacks."""
    for tool in client.needs:
        if subprocess.run(["bash", "-c", TOOLS[tool]], capture_output=True, check=False).returncode != 0:
            return f"{tool} is not here"
    return ""


def tour(client: Client) -> Outcome:
    """Generate, build and run the client in its own folder."""
    outcome = Outcome(client, missing=missing(client))
    if outcome.missing:
        return outcome
    folder = WORK / client.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TOURS / client.name, folder)
    shutil.copy(TOP / "openapi" / SPEC, folder)
    try:
        outcome.generate, _ = shell(client.generate, folder)
        if client.build:
            outcome.build, _ = shell(client.build, folder)
        with gateway() as served, serve(LaterGateway(served.url)) as later:
            outcome.passed = walk(outcome, folder, served, served.url)
            if walk(outcome, folder, served, later) == list(STEPS):
                outcome.passed.append(LATER)
    except subprocess.CalledProcessError as error:
        outcome.failed += f"{error.cmd[-1]}\n{error.stdout[-5000:]}{error.stderr[-5000:]}"
    except subprocess.TimeoutExpired as error:
        outcome.failed += f"{error.cmd[-1]}\nhas not come to its end within {LONGEST} s"
    return outcome


def walk(outcome: Outcome, folder: Path, served: Gateway, url: str) -> list[str]:
    """Return the verified steps of a tour at this address. Raises CalledProcessError."""
    _, said = shell(outcome.client.run, folder, {**served.environment(), "GATEWAY": url})
    truth = served.truth()
    lines = {step: "\n".join(re.findall(rf"^{step}: (.*)$", said, re.MULTILINE)) for step in STEPS}
    passed = [step for step in STEPS if re.fullmatch(truth[step], lines[step])]
    if passed != list(STEPS):
        expected = "\n".join(": ".join(each) for each in truth.items())
        outcome.failed += f"It said\n{said}where this was expected:\n{expected}\n"
    return passed


def matrix(outcomes: list[Outcome]) -> str:
    """Return all results as a table."""
    rows = [COLUMNS, *(outcome.row() for outcome in outcomes)]
    widths = [max(len(row[i]) for row in rows if len(row) == len(COLUMNS)) for i in range(len(COLUMNS))]
    widths[:2] = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def main(wanted: str) -> None:
    """Exit with 1 if a client failed, or a requested one could not be run."""
    names = [client.name for client in CLIENTS] if wanted == "all" else wanted.split()
    if unknown := set(names) - {client.name for client in CLIENTS}:
        sys.exit(f"There is no client {', '.join(unknown)}; there are {', '.join(each.name for each in CLIENTS)}")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # Java offers HTTP/2 with every request, which it warns of
    chosen = [client for client in CLIENTS if not names or client.name in names]
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        outcomes = list(pool.map(tour, chosen))
    for outcome in outcomes:
        if outcome.failed:
            print(f"{outcome.client.name} failed:\n{outcome.failed}\n", file=sys.stderr)
    print(matrix(outcomes))
    ran = [outcome for outcome in outcomes if not outcome.missing]
    good = [outcome for outcome in ran if not outcome.failed]
    print(f"{len(good)} clients in {len({outcome.client.language for outcome in good})} languages")
    sys.exit(1 if len(good) < len(ran) or (names and len(ran) < len(names)) else 0)


if __name__ == "__main__":
    main(os.environ.get("CLIENTS", ""))
