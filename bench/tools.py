"""Check the tools that `make bench` needs. It has no dependencies, because it runs before anything is installed."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable

LEAST_NODE = 20
INSTALL = {
    "wrk": "The load generator wrk is missing. On Debian and Ubuntu: apt-get install wrk",
    "taskset": "taskset is missing. On Debian and Ubuntu: apt-get install util-linux",
    "node": f"Node {LEAST_NODE} or newer is missing. https://nodejs.org/en/download says how to install it.",
    "npm": "npm is missing. It comes with Node: https://nodejs.org/en/download",
}
# What every section needs, because `make bench` installs the peers; and what some need besides.
ALWAYS = ("node", "npm", "taskset")
MORE = {"requests": ("wrk",), "process": ("wrk",), "processes": ("wrk",)}


def missing(sections: Iterable[str]) -> list[str]:
    """Return one sentence for each tool that these sections need and the machine does not have."""
    chosen = set(sections) - {"all"} or set(MORE)
    needed = dict.fromkeys([*(tool for each in MORE if each in chosen for tool in MORE[each]), *ALWAYS])
    return [INSTALL[tool] for tool in needed if not _is_there(tool)]


def _is_there(tool: str) -> bool:
    if shutil.which(tool) is None:
        return False
    if tool != "node":
        return True
    said = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, check=False, env=dict(os.environ)
    ).stdout
    found = re.match(r"v([0-9]+)", said)
    return found is not None and int(found[1]) >= LEAST_NODE


if __name__ == "__main__":
    found = missing(sys.argv[1:])
    for each in found:
        print(each, file=sys.stderr)
    sys.exit(1 if found else 0)
