"""`make compatibility`: run old clients against today's server, and today's clients against an old one.

The clients of each version in openapi/released are generated from its spec, and run the tours kept beside it against
today's sandbox. Today's clients run their tours against the same sandbox reduced to the released spec. Then two old
clients judge planted changes of the server: a change is harmless to a client whose tour still succeeds.
docs/stability.md has the results. A run of all clients fails if it has other results; with RECORD=1 it writes them.
CLIENTS names the required clients, or `all`. If it is unset, those run whose tools are installed.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from product_gateway.openapi import documents
from product_gateway.sandbox.runner import Options
from product_gateway.sandbox.tolerance import Tolerance
from product_gateway.sandbox.tolerance_report import Environment, sandbox
from product_gateway.telemetry import logs
from tests.support.planted_changes import BOTH, PLANTED, Planted
from tests.support.released_gateway import Reduction
from tests.tools.api_changes import versions
from tests.tools.client_roster import CLIENTS, MADE_FROM, TOP, TOURS, Client, fingerprint
from tests.tools.client_tours import STEPS, ask, constants, folder_of, prepare, run_tour, shell, verify
from tests.tools.generated_clients import missing

PAGE = TOP / "docs" / "stability.md"
HEAD = "| client | version | old client, today's server | today's client, old server |\n|---|---|---|---|\n"
TABLE = re.compile(re.escape(HEAD) + r"(?:\|.*\n)+")
OLD_STEPS = {"1.0.0": ("202", "429", "ended", "200", "pages", "401", "403")}  # later tours have all steps
NEEDS = {"failed": "listSyncs", "problems": "listSyncProblems", "changes": "listChanges"}
SYNC_SECONDS = 4.0  # that the second PUT meets it even where the machine is busy
LONGEST_TOUR = 120.0  # seconds
ATTEMPTS = 2  # a busy machine can let the second PUT come after the sync's end
WORKERS = 2 * (os.cpu_count() or 1)  # tours wait more than they compute
GOOD = "works"

Change = Planted | Reduction | None


def build(client: Client, spec: Path, tour: Path) -> str:
    """Generate and build a client, unless it was made from the same files. Return what failed, or ""."""
    folder, made_from = folder_of(client), fingerprint(client, spec, tour)
    if (folder / MADE_FROM).is_file() and (folder / MADE_FROM).read_text() == made_from:
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tour, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(spec, folder)
    try:
        for command in filter(None, (client.generate, client.build)):
            shell(command, folder)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        return f"{error}\n{error.output!s}{error.stderr!s}"[-5000:]
    (folder / MADE_FROM).write_text(made_from)
    return ""


def old(client: Client, spec: Path) -> Client:
    """Return the client of a released spec."""
    return replace(client, form=f"-{spec.parent.name}")


def build_old(client: Client, spec: Path) -> str:
    """Generate and build the client of a released spec, with its tour of then. Return what failed, or ""."""
    return build(old(client, spec), spec, spec.parent / "tours" / client.name)


def old_steps(spec: Path) -> Sequence[str]:
    """Return the steps of the tours of a version."""
    return OLD_STEPS.get(spec.parent.name, STEPS)


@dataclass
class Site:
    """A sandbox for tours: `facts` are what they print, `tolerance` changes responses to them."""

    environment: Environment
    tolerance: Tolerance
    facts: Environment

    def verdict(self, client: Client, steps: Sequence[str], change: Change = None) -> str:
        """Run a tour under a change, up to ATTEMPTS times. Return GOOD or the step at which it breaks."""
        for _ in range(ATTEMPTS):
            self._settle()
            step, said = self._first_failure(client, steps, change)
            if not step:
                return GOOD
        if not isinstance(change, Planted):
            print(f"{client.name}{client.form} breaks at {step}:\n{said}", file=sys.stderr, flush=True)
        return f"breaks at `{step}`"

    def _settle(self) -> None:
        """Wait until the newest sync of products has ended: a tour that broke off may have left it active."""
        while ask(self.environment, "/syncs?entityType=PRODUCT")["data"][0]["finishedAt"] is None:
            time.sleep(0.2)

    def _first_failure(self, client: Client, steps: Sequence[str], change: Change) -> tuple[str, str]:
        """Run a tour. Return the first step that failed, or "", and the output.

        The tour may end with an error where the reduced server has no such operation.
        """
        error, ended = "", True
        self.tolerance.mutations = change.mutations if change else ()
        try:
            said = run_tour(client, self.environment, LONGEST_TOUR)
        except subprocess.CalledProcessError as failed:
            said, error, ended = failed.stdout, failed.stderr, False
        except subprocess.TimeoutExpired:
            said, error, ended = "", f"It had not ended after {LONGEST_TOUR} s.", False
        finally:
            self.tolerance.mutations = ()
        passed = verify(said.replace("20 + 4 products", "24 products"), self.environment, self.facts)[0]
        missed = [step for step in steps if step not in passed]
        if not missed and not ended and not (isinstance(change, Reduction) and change.missing):
            missed = ["the end"]
        return next(iter(missed), ""), f"{said[-1000:]}{error[-3000:]}"


@contextmanager
def site() -> Iterator[Site]:
    """Run a sandbox with the syncs that tours read."""
    tolerance = Tolerance([])
    with sandbox(Options(sync_seconds=SYNC_SECONDS, tolerance=tolerance)) as environment:
        prepare(environment)
        yield Site(environment, tolerance, constants(environment))


def compare(client: Client, spec: Path) -> tuple[str, str]:
    """Return the verdicts of a release's client on today's server, and of today's client on the reduced server."""
    failed = build_old(client, spec), build(client, TOP / "openapi" / spec.name, TOURS / client.name)
    reduction = Reduction(yaml.safe_load(spec.read_bytes()))
    with site() as at:
        found = (
            "cannot be built" if failed[0] else at.verdict(old(client, spec), old_steps(spec)),
            "cannot be built" if failed[1] else at.verdict(client, shared_steps(reduction), reduction),
        )
    print(f"{client.name}, {spec.parent.name}: {', '.join(found)}\n{''.join(failed)}", end="", flush=True)
    return found


def shared_steps(reduction: Reduction) -> Sequence[str]:
    """Return the steps of today's tours before the first one whose operation the release lacks."""
    lacking = [STEPS.index(step) for step, operation in NEEDS.items() if not reduction.has(operation)]
    return STEPS[: min(lacking, default=len(STEPS))]


def judge(group: Sequence[Planted], clients: Sequence[Client], spec: Path) -> list[str]:
    """Return the planted changes that break other old clients than expected, or change no response."""
    wrong = []
    with site() as at:
        for planted in group:
            found = {each.name: at.verdict(old(each, spec), old_steps(spec), planted) for each in clients}
            is_right = all((said != GOOD) == (name in planted.breaks) for name, said in found.items())
            told = ", ".join(f"{name} {said}" for name, said in found.items())
            if not is_right or not planted.met:
                wrong.append(planted.name)
                told += ": WRONG" if planted.met else ": NOT MET"
            print(f"{planted.name}: {told}", flush=True)
    return wrong


def main(wanted: str) -> None:
    """Exit with 1 for a requested client that cannot run, other results than recorded, or a wrong verdict."""
    logs.configure("CRITICAL")
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    names = [client.name for client in CLIENTS] if wanted == "all" else wanted.split()
    chosen = [client for client in CLIENTS if not names or client.name in names]
    absent = {client.name: why for client in chosen if (why := missing(client))}
    for name, why in absent.items():
        print(f"{name} was not run: {why}")
    clients = [client for client in chosen if client.name not in absent]
    specs = versions(documents.GATEWAY)
    pairs = [(client, spec) for client in clients for spec in specs]
    began = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(lambda pair: compare(*pair), pairs))
        judges = [client for client in clients if client.name in BOTH]
        groups = [PLANTED[start::WORKERS] for start in range(WORKERS)] if judges else []
        wrong = [name for found in pool.map(lambda group: judge(group, judges, specs[-1]), groups) for name in found]
    rows = [
        f"| `{client.name}` | {spec.parent.name} | {' | '.join(found)} |\n"
        for (client, spec), found in zip(pairs, results, strict=True)
    ]
    made = HEAD + "".join(rows)
    print(f"{made}{len(pairs)} pairs and {len(PLANTED)} planted changes took {time.monotonic() - began:.0f} s")
    as_recorded = record(rows, made, is_complete=len(clients) == len(CLIENTS))
    sys.exit(1 if wrong or not as_recorded or (names and len(clients) < len(names)) else 0)


def record(rows: Sequence[str], made: str, *, is_complete: bool) -> bool:
    """Return whether docs/stability.md has these results. With RECORD=1, write those of all clients first."""
    if is_complete and os.environ.get("RECORD"):
        PAGE.write_text(TABLE.sub(lambda _: made, PAGE.read_text()))
    (recorded,) = TABLE.findall(PAGE.read_text())
    differing = [row for row in rows if row not in recorded.splitlines(keepends=True)]
    if differing or (is_complete and made != recorded):
        print(
            f"docs/stability.md has other results. To write these, run: make compatibility CLIENTS=all RECORD=1\n{made}"
        )
        return False
    return True


if __name__ == "__main__":
    main(os.environ.get("CLIENTS", ""))
