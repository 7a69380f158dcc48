"""The recipes for testing a client with the sandbox: each runs as it is, where its language is on this machine."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from house import ENDS_WITHIN, within

TOP = Path(__file__).parents[1]
RECIPES = TOP / "docs" / "recipes"
GUIDE = (TOP / "docs" / "sandbox.md").read_text()
WORKFLOW = yaml.safe_load((RECIPES / "github-actions.yaml").read_text())
LONGEST = 300  # seconds: Go compiles, and all run at the same time
COMMANDS = {
    "Python": "pytest test_client.py",
    "JavaScript": "node --test",
    "Java": "java SandboxTest.java",
    "Go": "go test sandbox_test.go",
    "Shell": "sh sandbox.sh",
}
PASSED = {"JavaScript": "# pass 3", "Java": "3 passed", "Go": "ok", "Shell": "3 passed"}
HERE = {
    label: shutil.which(command.split()[0]) is not None
    for label, command in COMMANDS.items()
    if label != "Python"  # which tests/test_wheel.py runs, in a project of its own
}
HERE["Shell"] = HERE["Shell"] and shutil.which("curl") is not None


@dataclass
class Cook:
    """A recipe that is running, in a folder of its own."""

    process: "subprocess.Popen[bytes]"
    folder: Path


@pytest.fixture(scope="module")
def cooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Cook]]:
    """All recipes that can run here, at once: most of the time they wait."""
    cooks = {}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for label in [label for label, is_here in HERE.items() if is_here]:
        folder = tmp_path_factory.mktemp(label.lower()) / "recipes"
        shutil.copytree(RECIPES, folder)
        (folder / "temporary").mkdir()
        environment = {**os.environ, "PATH": path, "TMPDIR": str(folder / "temporary"), "GOFLAGS": "-vet=off"}
        with (folder / "said").open("w") as said:
            process = subprocess.Popen(COMMANDS[label].split(), cwd=folder, env=environment, stdout=said, stderr=said)
        cooks[label] = Cook(process, folder)
    yield cooks
    for each in cooks.values():
        each.process.kill()
        each.process.wait()


@pytest.mark.parametrize("label", HERE)
def test_a_recipe_runs_as_it_is(cooks: dict[str, Cook], label: str) -> None:
    """202, 429 with Retry-After, the wait, 200, a 503 on demand and a sync that fails: without a mock."""
    if not HERE[label]:
        pytest.skip(f"{COMMANDS[label].split()[0]} is not on this machine: the recipe for {label} is not run")
    cook = cooks[label]
    status = cook.process.wait(LONGEST)
    said = (cook.folder / "said").read_text()
    assert status == 0, said
    assert PASSED[label] in said
    temporary = cook.folder / "temporary"
    within(ENDS_WITHIN, lambda: not list(temporary.glob("product-gateway-sandbox-*")))


def test_the_guide_and_the_workflow_have_the_commands_that_are_run_here() -> None:
    """What stands in the documents is what was tried."""
    steps = [step.get("run", "") for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    for label, command in COMMANDS.items():
        assert f"`{command}`" in GUIDE, label
        assert any(command in step.splitlines() for step in steps), label
    named = set(re.findall(r"\]\(recipes/([^)]+)\)", GUIDE))
    assert named == {path.name for path in RECIPES.iterdir() if path.is_file()}
