"""`make bench` names missing tools before it installs or measures anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


def check(folder: Path, *sections: str, **tools: str) -> subprocess.CompletedProcess[str]:
    """Run the check on a machine that has these tools and no others; each prints what it is given."""
    folder.mkdir(exist_ok=True)
    for name, prints in tools.items():
        (folder / name).write_text(f"#!/bin/sh\necho {prints}\n")
        (folder / name).chmod(0o755)
    command = [sys.executable, str(TOP / "bench" / "tools.py"), *sections]
    environment = {**os.environ, "PATH": str(folder)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_every_missing_tool_is_named_with_its_remedy(tmp_path: Path) -> None:
    """All of them at once."""
    done = check(tmp_path, "all")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 4
    for word in ("wrk is missing", "apt-get install wrk", "apt-get install util-linux", "Node 20", "npm is missing"):
        assert word in done.stderr


@pytest.mark.parametrize(
    ("sections", "needs_wrk"),
    [(["all"], True), ([], True), (["requests"], True), (["process"], True), (["pull"], False)],
)
def test_only_the_sections_with_http_load_need_wrk(tmp_path: Path, sections: list[str], needs_wrk: bool) -> None:
    """The pull is measured without it."""
    done = check(tmp_path, *sections, node="v20.0.0", npm="10", taskset="2")
    assert (done.returncode, "wrk" in done.stderr) == ((1, True) if needs_wrk else (0, False))
    done = check(tmp_path, *sections, node="v20.0.0", npm="10", taskset="2", wrk="4")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("version", ["v18.20.0", "nonsense", ""])
def test_an_old_node_counts_as_missing(tmp_path: Path, version: str) -> None:
    """It would fail later."""
    done = check(tmp_path, "pull", node=version, npm="10", taskset="2")
    assert done.returncode == 1
    assert "Node 20 or newer is missing" in done.stderr


def test_make_bench_checks_before_it_installs(tmp_path: Path) -> None:
    """Nothing is installed before."""
    done = subprocess.run(
        ["make", "-n", "bench", "SECTIONS=requests process"],
        cwd=TOP,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "bench/tools.py requests process" in done.stdout.splitlines()[0]
