"""Run wrk, the load generator, on its own core, and parse its results."""

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 32
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
# With a single core everybody shares it.
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[1 % len(CORES)]


def on_core(core: int, *command: str) -> list[str]:
    """Return the command, pinned to that core."""
    return ["taskset", "-c", str(core), *command]


@dataclass(frozen=True)
class Load:
    """The results of one run."""

    rate: float  # answers a second
    p99: float  # seconds
    answers: int
    errors: int  # answers of 400 and more


def press(url: str, requests: Path, seconds: int) -> Load:
    """Send the requests of the file (see `written`) repeatedly on 32 connections, for whole seconds."""
    script = Path(__file__).with_name("press.lua")
    command = [
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds}s",
        "--latency",
        "--timeout",
        "8s",
        "-s",
        str(script),
        url,
    ]
    done = subprocess.run(
        on_core(LOAD_CORE, *command, str(requests)),
        text=True, capture_output=True, timeout=seconds + 60,
    )  # fmt: skip
    said = done.stdout
    if done.returncode != 0 or "Requests/sec" not in said:
        raise RuntimeError(f"wrk: {said}{done.stderr}")
    if wrong := re.search(r"Socket errors: .*", said):
        raise RuntimeError(f"wrk against {url}: {wrong[0]}")
    tail = re.search(r"99%\s+([0-9.]+)(\w+)", said)
    answers = re.search(r"([0-9]+) requests in", said)
    errors = re.search(r"Non-2xx or 3xx responses: ([0-9]+)", said)
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", said)
    if not (tail and answers and rate):
        raise RuntimeError(f"wrk says something else than it did: {said}")
    return Load(float(rate[1]), float(tail[1]) * UNITS[tail[2]], int(answers[1]), int(errors[1]) if errors else 0)


def written(folder: Path, name: str, requests: Sequence[tuple[str, str, str]]) -> Path:
    """Write requests as press.lua reads them: method, path and token of each."""
    file = folder / f"{name}.txt"
    file.write_text("".join(f"{method} {path} {token}\n" for method, path, token in requests))
    return file
