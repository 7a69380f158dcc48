"""The throughput of two and four processes of `serve --processes` compared with one, and their memory."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from request_path import CHOSEN, OURS, SCENARIOS, World, checked, furnished, pressed, requests_of
from rounds import ROUNDS, SECONDS, Chart, Row, Section, Values, interleaved, row
from servers import Server, free_port, gateway, serving
from stores import store
from wrk import CONNECTIONS, CORES, press

PROCESSES = [1, 2, 4]
SECONDS_TO_WARM = 2


def run() -> Section:
    """Measure each number of processes with every scenario, in turn, on both databases."""
    rows: list[Row] = []
    rates: dict[str, Values] = {}
    memory: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for dialect in CHOSEN:
            with gateways(dialect, Path(name) / dialect) as (world, servers):
                for server in servers.values():
                    for scenario in SCENARIOS:
                        press(server.url, requests_of(world, OURS, scenario), SECONDS_TO_WARM)
                for scenario in SCENARIOS:
                    what = f"{scenario}, {'SQLite' if dialect == 'sqlite' else 'PostgreSQL'}"
                    measured = interleaved({f"{n}": partial(rate, servers[n], world, scenario) for n in PROCESSES})
                    rates[what] = {f"--processes {n}": measured[f"{n}"] for n in PROCESSES}
                    more = PROCESSES[1:]
                    rows += [row(f"{what}: {n} processes against one", measured[f"{n}"], measured["1"]) for n in more]
                    print(f"  {what}: " + ", ".join(f"{n} {max(measured[f'{n}']):.0f}" for n in PROCESSES), flush=True)
                for n, server in servers.items():
                    memory.setdefault(n, []).append(shared_megabytes(server.pid))
    for n, found in memory.items():
        rows.append(Row(f"`serve --processes {n}` after requests, all its processes", found, unit="MB"))
    return Section(
        "processes",
        "Several processes of one gateway",
        rows,
        [Chart("Answers a second", "answers/s", rates)],
        [
            f"{ROUNDS} rounds of {SECONDS} s for each line, {CONNECTIONS} connections. Unlike in the other sections, "
            f"the server may use all {len(CORES)} cores. The load generator and PostgreSQL use the same cores, so that "
            "more processes than free cores gain nothing here.",
            "Memory counts a page that processes share once (PSS): the parent, the processes of the API, and the one "
            "for the operations port.",
        ],
    )


def rate(server: Server, world: World, scenario: str) -> float:
    """Return the responses a second."""
    return pressed(OURS, server, world, scenario, SECONDS).rate


@contextmanager
def gateways(dialect: str, folder: Path) -> Iterator[tuple[World, dict[int, Server]]]:
    """Start a gateway for each number of processes, on the same database."""
    folder.mkdir()
    with ExitStack() as stack:
        url = stack.enter_context(store(dialect))
        world = furnished(url, folder)
        servers: dict[int, Server] = {}
        for number in PROCESSES:
            command, environment = gateway(url, folder, port=(port := free_port()))
            command = [*command, "--processes", str(number)]
            log = folder / f"{number}.log"
            servers[number] = stack.enter_context(serving(command, environment, log, port, core=None))
            checked(OURS, servers[number].url, world)
        yield world, servers


def shared_megabytes(pid: int) -> float:
    """Return the proportional memory (PSS) of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    kilobytes = 0
    for each in (str(pid), *children):
        [line] = [one for one in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines() if one.startswith("Pss:")]
        kilobytes += int(line.split()[1])
    return kilobytes / 1024
