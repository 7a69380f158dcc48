"""Run commands inside the test process, which is faster than starting a process for each."""

import io
import subprocess
import sys

import pytest

from product_gateway.cli.main import main
from tests.support.deployment import Deployment

Done = subprocess.CompletedProcess[str]


class Terminal:
    """Runs short commands in the folder and the environment of a deployment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, deployment: Deployment, command: str, answer: str = "") -> Done:
        """Run the command to its end, with `answer` as typed input. Spaces separate its words."""
        with self._monkeypatch.context() as here:
            for name, value in deployment.environment.items():
                here.setenv(name, value)
            here.chdir(deployment.folder)
            here.setattr(sys, "stdin", io.StringIO(answer))
            here.setattr(sys, "argv", ["product-gateway", *command.split()])
            self._capsys.readouterr()
            with pytest.raises(SystemExit) as end:
                main()
        said = self._capsys.readouterr()
        return subprocess.CompletedProcess(command, int(end.value.code or 0), said.out, said.err)


def assert_refused(done: Done, *words: str) -> None:
    """Assert exit status 1 and these words on standard error."""
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, f"{done.args} says: {done.stderr}"
