"""Scores the generated clients: runs the tour of each against each mutation of `sandbox --tolerance`.

docs/clients.md has the scores. `make clients CLIENTS=all` fails if they differ; with RECORD=1 it writes them. To record
them, each mutation has a sandbox of its own. Otherwise a sandbox has several mutations, to save time.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from product_gateway.sandbox.mutation import Kind, Mutation
from product_gateway.sandbox.mutations import MUTATIONS
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
GROUPS = 15  # of three or four mutations, none of which hides another
RECORDS = bool(os.environ.get("RECORD"))
SANDBOXES_PER_CORE = 4  # tours wait more than they compute

Group = Sequence[Mutation]
Results = dict[str, Report]
"""The reports of a group of mutations, by client."""


def mutations() -> list[Mutation]:
    """Return the mutations of responses. The tours have no webhook."""
    return [each for each in MUTATIONS.values() if each.kind is not Kind.MESSAGE]


def groups() -> list[Group]:
    """Return the mutations one by one to record the scores, and otherwise in GROUPS groups.

    Mutations of the same value or header are neighbours in the table, so they are in different groups.
    """
    everything = mutations()
    return [everything[start::GROUPS] for start in range(GROUPS)] if not RECORDS else [[each] for each in everything]


def scores(clients: Sequence[Client]) -> Results:
    """Return the report of each client, by name, with the mutations in the order of the table."""
    with ThreadPoolExecutor(SANDBOXES_PER_CORE * (os.cpu_count() or 1)) as pool:
        results = list(pool.map(lambda group: _results(group, clients), groups()))
    return {client.name: _merged([each[client.name] for each in results]) for client in clients}


def _merged(parts: Sequence[Report]) -> Report:
    """Return one report, with the mutations in the order of the table."""
    names = list(MUTATIONS)
    return Report(
        *(
            sorted((name for part in parts for name in getattr(part, word)), key=names.index)
            for word in ("survived", "broken", "not_met")
        )
    )


def _results(group: Group, clients: Sequence[Client]) -> Results:
    """Run all tours, one after another, on one sandbox. Repeat a broken one for each mutation of the group alone."""
    tolerance, results = Tolerance([]), Results()
    with sandbox(Options(sync_seconds=SYNC_SECONDS, tolerance=tolerance)) as environment:
        prepare(environment)
        tolerance.mutations = tuple(group)
        constant = constants(environment)
        for client in clients:
            report = results[client.name] = Report()
            for _ in range(ATTEMPTS):
                fault = _fault(client, environment, tolerance, constant)
                if fault is None:
                    break
            if fault is None or len(group) == 1:
                for mutation in group:
                    report.add(mutation.name, fault=fault, met=tolerance.changed[mutation.name] > 0)
            if fault is not None:
                print(f"{client.name} is broken by {', '.join(each.name for each in group)}:\n{fault[-3000:]}")
    if len(group) > 1:
        for client in clients:
            if results[client.name] == Report():
                results[client.name] = _merged([_results([each], [client])[client.name] for each in group])
    return results


def _fault(client: Client, environment: Environment, tolerance: Tolerance, constant: Environment) -> str | None:
    """Run a tour once. Return what is wrong with it, or None. Afterwards `tolerance.changed` is that of the tour."""
    tolerance.changed.clear()
    try:
        said, fault = run_tour(client, environment, LONGEST_TOUR), ""
    except subprocess.CalledProcessError as error:
        said, fault = "", f"{error.stdout[-1000:]}{error.stderr[-2000:]}"
    except subprocess.TimeoutExpired:
        said, fault = "", f"It had not ended after {LONGEST_TOUR} s."
    changed = tolerance.changed.copy()
    fault = fault or verify(said, environment, constant)[1]
    tolerance.changed = changed
    return fault or None


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
