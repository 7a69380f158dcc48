"""The recipes of docs/sandbox.md: each runs unchanged if its language is installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.deployment import ENDS_WITHIN, within

TOP = Path(__file__).parents[2]
RECIPES = TOP / "docs" / "recipes"
GUIDE = (TOP / "docs" / "sandbox.md").read_text()
WORKFLOW = yaml.safe_load((RECIPES / "github-actions.yaml").read_text())
LONGEST = 300  # seconds: Go compiles
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
    if label != "Python"  # tests/system/test_wheel.py runs it
}
HERE["Shell"] = HERE["Shell"] and shutil.which("curl") is not None


@pytest.mark.parametrize("label", HERE)
def test_a_recipe_runs_unchanged(label: str, tmp_path: Path) -> None:
    """It gets 202, 429 with Retry-After, 200, a 503 on demand and a failing sync, without a mock."""
    if not HERE[label]:
        pytest.skip(f"{COMMANDS[label].split()[0]} is not installed")
    folder, temporary = tmp_path / "project", tmp_path / "temporary"
    shutil.copytree(RECIPES, folder)
    temporary.mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TMPDIR": str(temporary), "GOFLAGS": "-vet=off"}
    done = subprocess.run(
        COMMANDS[label].split(), cwd=folder, env=environment, capture_output=True, text=True, timeout=LONGEST
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert PASSED[label] in done.stdout
    within(ENDS_WITHIN, lambda: not list(temporary.glob("product-gateway-sandbox-*")))


def test_the_guide_and_the_workflow_have_the_tested_commands() -> None:
    """The documented commands are those that the tests run."""
    steps = [step.get("run", "") for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    for label, command in COMMANDS.items():
        assert f"`{command}`" in GUIDE, label
        assert any(command in step.splitlines() for step in steps), label
    named = set(re.findall(r"\]\(recipes/([^)]+)\)", GUIDE))
    assert named == {path.name for path in RECIPES.iterdir() if path.is_file()}
