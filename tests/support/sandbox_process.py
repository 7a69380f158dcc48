"""A process of `product-gateway sandbox`, started as a client's tests start it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

from product_gateway.sandbox.pytest_plugin import Sandbox


@contextmanager
def started(folder: Path, *options: str) -> Iterator[tuple["subprocess.Popen[str]", Sandbox]]:
    """Start a sandbox whose temporary folder is in `folder`."""
    command = [sys.executable, "-m", "product_gateway", "sandbox", "--port", "0", *options]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with (
        (folder.parent / "errors.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdin=PIPE, stdout=PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout
            said = process.stdout.readline()
            assert said, f"the sandbox has exited: {Path(log.name).read_text()}"
            yield process, Sandbox(json.loads(said))
        finally:
            process.kill()
