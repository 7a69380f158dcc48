""".github/actions: valid, and their shell steps run as written. Only the installation is not run here."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.support.contract import SERVICE_TOKEN
from tests.support.deployment import Deployment

TOP = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ACTIONS = {path.parent.name: path for path in sorted((TOP / ".github" / "actions").glob("*/action.yaml"))}
WORKFLOW = TOP / "docs" / "recipes" / "github-actions.yaml"
LONGEST = 120  # seconds


def load(name: str) -> dict[str, Any]:
    """Return the action."""
    found: dict[str, Any] = yaml.safe_load(ACTIONS[name].read_text())
    return found


def faults(schema: str, path: Path) -> str:
    """Return what check-jsonschema says against the file; empty if it is valid."""
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", f"vendor.{schema}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_fits_the_schema_of_actions(name: str, tmp_path: Path) -> None:
    """A misspelt key is found."""
    assert faults("github-actions", ACTIONS[name]) == ""
    (tmp_path / "action.yaml").write_text(ACTIONS[name].read_text().replace("shell:", "shel:", 1))
    assert "shel" in faults("github-actions", tmp_path / "action.yaml")


def test_the_workflow_of_the_recipes_fits_the_schema_of_workflows() -> None:
    """The same for docs/recipes."""
    assert faults("github-workflows", WORKFLOW) == ""


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_uses_each_input_once_and_no_other(name: str) -> None:
    """GitHub replaces an unknown input with nothing. Inputs reach the shell as variables, never as its text."""
    text = ACTIONS[name].read_text()
    assert sorted(re.findall(r"\$\{\{ inputs\.([\w-]+) \}\}", text)) == sorted(load(name)["inputs"])
    for step in load(name)["runs"]["steps"]:
        assert "${{" not in step["run"]
        subprocess.run(["bash", "-n", "-c", step["run"]], check=True, timeout=30)


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_installs_the_source_that_it_is_a_part_of(name: str) -> None:
    """From the folder of pyproject.toml, with an extra that exists."""
    (target, extra), *more = re.findall(r'"\$GITHUB_ACTION_PATH/([./]+?)(?:\[(\w+)\])?"', ACTIONS[name].read_text())
    assert not more
    project = tomllib.loads((ACTIONS[name].parent / target / "pyproject.toml").read_text())["project"]
    assert project["name"] == "product-gateway"
    assert not extra or extra in project["optional-dependencies"]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield the variables of a runner on which the package is installed; end what a step has started."""
    (tmp_path / "product-gateway").mkdir()
    (tmp_path / "product-gateway" / "bin").symlink_to(BIN)
    yield {**os.environ, "RUNNER_TEMP": str(tmp_path), "GITHUB_OUTPUT": str(tmp_path / "output")}
    line = tmp_path / "sandbox.json"
    if line.exists() and line.read_text():
        os.kill(json.loads(line.read_text())["pid"], signal.SIGTERM)


def run_last_step(name: str, runner: dict[str, str], **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the action's last step as the runner does, with defaults for other inputs."""
    action = load(name)
    given = {key: str(each.get("default", "")) for key, each in action["inputs"].items()}
    given |= {key.replace("_", "-"): value for key, value in inputs.items()}
    step = action["runs"]["steps"][-1]
    variables = {
        key: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: given[found[1]], value)
        for key, value in step["env"].items()
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(
        command, env=runner | variables, cwd=runner["RUNNER_TEMP"], capture_output=True, text=True, timeout=LONGEST
    )


def test_check_service_writes_a_report_and_fails_for_a_service_with_an_error(
    runner: dict[str, str], tmp_path: Path
) -> None:
    """A service that checks the token passes; with another token the check finds an error."""
    (tmp_path / "token").write_text(SERVICE_TOKEN)
    with Deployment(tmp_path, "").sample_service("--token-file", str(tmp_path / "token")) as url:
        more = {"url": url, "allow_private_addresses": "true", "examples": "0"}
        passed = run_last_step("check-service", runner, token=SERVICE_TOKEN, **more)
        assert passed.returncode == 0, passed.stdout + passed.stderr
        assert "<testsuite" in (tmp_path / "check-service.xml").read_text()
        refused = run_last_step("check-service", runner, token="another", report="other.xml", **more)
        assert refused.returncode == 1
        assert "<failure" in (tmp_path / "other.xml").read_text()
        private = run_last_step("check-service", runner, token=SERVICE_TOKEN, url=url, examples="0")
        assert private.returncode == 1
    assert not (tmp_path / "service.token").exists()


def test_sandbox_gives_its_address_and_tokens_to_later_steps(runner: dict[str, str], tmp_path: Path) -> None:
    """It still runs when the step has ended."""
    done = run_last_step("sandbox", runner, options="--sync-seconds 0")
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = dict(line.partition("=")[::2] for line in (tmp_path / "output").read_text().splitlines())
    assert outputs.keys() == load("sandbox")["outputs"].keys()
    for key, each in load("sandbox")["outputs"].items():
        assert each["value"] == f"${{{{ steps.start.outputs.{key} }}}}"
    said = json.loads(outputs["json"])
    answer = httpx2.put(
        f"{outputs['base-url']}{said['apiPrefix']}/sync/PRODUCT",
        headers={"Authorization": f"Bearer {outputs['token']}"},
    )
    assert answer.status_code == 202


def test_sandbox_fails_with_its_log_if_it_does_not_start(runner: dict[str, str]) -> None:
    """A wrong option is shown in the job's log."""
    done = run_last_step("sandbox", runner, options="--no-such-option")
    assert done.returncode == 1
    assert "--no-such-option" in done.stdout
