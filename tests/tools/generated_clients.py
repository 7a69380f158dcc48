"""`make clients`: generate clients from the spec, build them, and run their tours against a real gateway.

Each tour (tests/clients) requests a sync, gets a 429 for the second request, waits for the end, and reads the status, a
failure, rejected records, all products and the feed of changes. It is refused with an expired token and for another
platform. The tour's output is compared with the responses to a plain HTTP client. Then each tour runs against each
mutation of the sandbox, for the scores in docs/clients.md; RECORD=1 writes them. Two clients are also generated from
the OpenAPI 3.1 form of the spec, and run the same tours.
CLIENTS names the required clients, or `all`. If it is unset, those run whose tools are installed.
"""

import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from product_gateway.sandbox.runner import Options
from product_gateway.sandbox.tolerance_report import sandbox
from product_gateway.telemetry import logs
from tests.tools import client_tolerance
from tests.tools.client_roster import CLIENTS, MADE_FROM, SPEC, TOOLS, TOP, TOURS, Client, fingerprint
from tests.tools.client_tours import LONGEST, STEPS, clean_copy, constants, prepare, run_tour, shell, verify

COLUMNS = ("client", "generator", "generate", "build", *STEPS)
WITH_3_1 = ("python-httpx", "typescript-openapi-fetch")
SYNC_SECONDS = 6.0  # that the second PUT meets it even where the machine is busy


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
        head = f"{self.client.name} {self.client.form}".rstrip(), self.client.generator
        if self.missing:
            return (*head, f"not run: {self.missing}")
        seconds = (f"{each:.1f} s" if each else "" for each in (self.generate, self.build))
        return (*head, *seconds, *("ok" if step in self.passed else "FAILED" for step in STEPS))


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
    folder = clean_copy(client, SPEC)
    try:
        outcome.generate, _ = shell(client.generate, folder)
        if client.build:
            outcome.build, _ = shell(client.build, folder)
        (folder / MADE_FROM).write_text(fingerprint(client, TOP / "openapi" / SPEC, TOURS / client.name))
        with sandbox(Options(sync_seconds=SYNC_SECONDS)) as environment:
            prepare(environment)
            said = run_tour(client, environment)
            outcome.passed, outcome.failed = verify(said, environment, constants(environment))
    except subprocess.CalledProcessError as error:
        outcome.failed += f"{error.cmd[-1]}\n{error.stdout[-5000:]}{error.stderr[-5000:]}"
    except subprocess.TimeoutExpired as error:
        outcome.failed += f"{error.cmd[-1]}\nhas not come to its end within {LONGEST} s"
    return outcome


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
    logs.configure("CRITICAL")
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # Java offers HTTP/2 with every request, which it warns of
    chosen = [client for client in CLIENTS if not names or client.name in names]
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        forms = [replace(client, form="3.1") for client in chosen if client.name in WITH_3_1]
        outcomes = list(pool.map(tour, [*chosen, *forms]))
    for outcome in outcomes:
        if outcome.failed:
            print(f"{outcome.client.name} {outcome.client.form} failed:\n{outcome.failed}\n", file=sys.stderr)
    print(matrix(outcomes))
    ran = [outcome for outcome in outcomes if not outcome.missing]
    good = [outcome for outcome in ran if not outcome.failed]
    clients = [outcome.client for outcome in good if not outcome.client.form]
    print(f"{len(clients)} clients in {len({each.language for each in clients})} languages")
    as_recorded = score(clients, is_complete=len(clients) == len(CLIENTS))
    sys.exit(1 if len(good) < len(ran) or (names and len(clients) < len(names)) or not as_recorded else 0)


def score(clients: list[Client], *, is_complete: bool) -> bool:
    """Print how many mutations each client survives. Return whether a complete table is that of docs/clients.md."""
    began = time.monotonic()
    reports = client_tolerance.scores(clients)
    for name, report in reports.items():
        print(f"{name} {report}")
    print(f"The tours ran against {len(client_tolerance.mutations())} mutations in {time.monotonic() - began:.0f} s.")
    made = client_tolerance.table(reports)
    if is_complete and client_tolerance.RECORDS:
        client_tolerance.record(made)
    if not is_complete or made == client_tolerance.recorded():
        return True
    print(f"docs/clients.md has other scores. To write these, run: make clients CLIENTS=all RECORD=1\n{made}")
    return False


if __name__ == "__main__":
    main(os.environ.get("CLIENTS", ""))
