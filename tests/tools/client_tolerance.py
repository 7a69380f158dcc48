"""Scores the generated clients: runs the tour of each against each mutation of `sandbox --tolerance`.

docs/clients.md has the scores. `make clients CLIENTS=all` fails if they differ; with RECORD=1 it writes them.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from product_gateway.sandbox.mutations import MUTATIONS, Kind, Mutation
from product_gateway.sandbox.runner import Options
from product_gateway.sandbox.tolerance import Tolerance
from product_gateway.sandbox.tolerance_report import Environment, Report, sandbox
from tests.tools.client_roster import TOP, Client
from tests.tools.client_tours import constants, prepare, run_tour, verify

PAGE = TOP / "docs" / "clients.md"
HEAD = "| client | survives | broken by |\n|---|---|---|\n"
TABLE = re.compile(re.escape(HEAD) + r"(?:\|.*\n)+")
LONGEST_TOUR = 60.0  # seconds; most take three
SYNC_SECONDS = 3.0
ATTEMPTS = 3  # on a busy machine, the second PUT may come after the sync's end
SANDBOXES_PER_CORE = 4  # tours wait more than they compute

Results = dict[str, tuple[str | None, bool]]
"""By client: the fault or None, and whether the mutation has changed a response to its tour."""


def mutations() -> list[Mutation]:
    """Return the mutations of responses. The tours have no webhook."""
    return [each for each in MUTATIONS.values() if each.kind is not Kind.MESSAGE]


def scores(clients: Sequence[Client]) -> dict[str, Report]:
    """Return the report of each client, by name."""
    reports = {client.name: Report() for client in clients}
    with ThreadPoolExecutor(SANDBOXES_PER_CORE * (os.cpu_count() or 1)) as pool:
        for mutation, results in zip(
            mutations(), pool.map(lambda each: _results(each, clients), mutations()), strict=True
        ):
            for name, (fault, met) in results.items():
                reports[name].add(mutation.name, fault=fault, met=met)
                if fault:
                    print(f"{name} is broken by {mutation.name}:\n{fault[-3000:]}")
    return reports


def _results(mutation: Mutation, clients: Sequence[Client]) -> Results:
    """Run all tours, one after another, on one sandbox."""
    tolerance, results = Tolerance([]), Results()
    with sandbox(Options(sync_seconds=SYNC_SECONDS, tolerance=tolerance)) as environment:
        prepare(environment)
        tolerance.mutations = (mutation,)
        constant = constants(environment)
        for client in clients:
            for _ in range(ATTEMPTS):
                results[client.name] = _result(client, environment, tolerance, constant)
                if results[client.name][0] is None:
                    break
    return results


def _result(
    client: Client, environment: Environment, tolerance: Tolerance, constant: Environment
) -> tuple[str | None, bool]:
    tolerance.changed.clear()
    try:
        said, fault = run_tour(client, environment, LONGEST_TOUR), ""
    except subprocess.CalledProcessError as error:
        said, fault = "", f"{error.stdout[-1000:]}{error.stderr[-2000:]}"
    except subprocess.TimeoutExpired:
        said, fault = "", f"It had not ended after {LONGEST_TOUR} s."
    met = tolerance.changed.total() > 0
    return (fault or verify(said, environment, constant)[1] or None), met


def table(reports: dict[str, Report]) -> str:
    """Return the scores as a table in Markdown."""
    rows = (f"| `{name}` | {each.score} | {', '.join(each.broken) or 'none'} |\n" for name, each in reports.items())
    return HEAD + "".join(rows)


def recorded(page: Path = PAGE) -> str:
    """Return the table in docs/clients.md."""
    (found,) = TABLE.findall(page.read_text())
    return str(found)


def record(made: str, page: Path = PAGE) -> None:
    """Write the table into docs/clients.md."""
    page.write_text(TABLE.sub(lambda _: made, page.read_text()))
