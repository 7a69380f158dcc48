"""Prints the path of one Python interpreter for each minor version from 3.11 on, except the version of this one.

`make versions` runs the tests on each. Interpreters are looked for on PATH, by `uv python find`, and among the versions
of pyenv.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OLDEST, NEWEST = 11, 16  # 3.x; raise the newest as Python goes on
LONGEST = 60  # seconds
# A pre-release or a free-threaded build has no wheels of most packages, and without ensurepip there is no environment.
TELL = """
import ensurepip, json, platform, sys, sysconfig, venv
usable = sys.version_info.releaselevel == "final" and not sysconfig.get_config_var("Py_GIL_DISABLED")
print(json.dumps([sys.version_info[:3], usable and platform.python_implementation() == "CPython"]))
"""


def candidates() -> Iterator[str]:
    """Yield the commands that may be interpreters, the likeliest first."""
    yield from ("python3", "python")
    minors = range(OLDEST, NEWEST + 1)
    yield from (f"python3.{minor}" for minor in minors)
    root = _said("pyenv", "root")
    if root:
        yield from map(str, sorted(Path(root, "versions").glob("3.*/bin/python")))
    uv = Path(sys.executable).with_name("uv")
    yield from (_said(str(uv), "python", "find", "--no-python-downloads", f"3.{minor}") for minor in minors)


def versions() -> dict[tuple[int, int], str]:
    """Return one interpreter for each minor version: the newest patch, and the first of those found."""
    best: dict[tuple[int, int], tuple[int, str]] = {}
    for command in dict.fromkeys(candidates()):
        told = _said(command, "-c", TELL) if command else ""
        if told:
            (major, minor, patch), usable = json.loads(told)
            version = (major, minor)
            if usable and version >= (3, OLDEST) and patch > best.get(version, (-1, ""))[0]:
                best[version] = (patch, command)
    return {version: command for version, (_, command) in best.items()}


def _said(*command: str) -> str:
    """Return the output of a command; empty if it does not exist or fails, as pyenv's shims do."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LONGEST, env={**os.environ, "PYTHONPATH": ""}
    )
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    for version, command in sorted(versions().items()):
        if version != sys.version_info[:2]:
            print(shutil.which(command))
