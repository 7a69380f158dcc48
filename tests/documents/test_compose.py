"""deploy/compose.yaml and the Containerfile: valid, and their commands run. No container engine is needed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from sqlalchemy import make_url

from product_gateway.cli.main import app
from product_gateway.settings import PREFIX, Settings
from tests.support import databases
from tests.support.deployment import STARTS_WITHIN, Deployment, free_port, within

TOP = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COMPOSE = TOP / "deploy" / "compose.yaml"
CONTAINERFILE = TOP / "deploy" / "Containerfile"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
OURS = {name: each for name, each in SERVICES.items() if each["image"] == "product-gateway"}
GUIDE = (TOP / "docs" / "deploy.md").read_text()


def checked(program: str, *arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a linter of the development environment."""
    return subprocess.run([BIN / program, *arguments], input=text, capture_output=True, text=True, timeout=60)


def schema_faults(schema: str, path: Path) -> str:
    """Return what check-jsonschema says against the file; empty if it is valid."""
    done = checked("check-jsonschema", "--builtin-schema", f"vendor.{schema}", path)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_compose_file_fits_the_schema_of_compose(tmp_path: Path) -> None:
    """The Compose Specification's own schema; a misspelt key is found."""
    assert schema_faults("compose-spec", COMPOSE) == ""
    (tmp_path / "compose.yaml").write_text(COMPOSE.read_text().replace("healthcheck:", "healthchek:", 1))
    assert "healthchek" in schema_faults("compose-spec", tmp_path / "compose.yaml")


def test_hadolint_has_no_objection_to_the_containerfile() -> None:
    """An image without a tag, which it must find, shows that it reads the file."""
    assert checked("hadolint", CONTAINERFILE).stdout == ""
    untagged = CONTAINERFILE.read_text().replace("python:3.13-slim", "python")
    assert "DL3006" in checked("hadolint", "-", text=untagged).stdout


def test_every_dependency_volume_and_anchor_of_the_compose_file_exists() -> None:
    """Compose refuses a dependency that is not a service, and a condition that the service cannot fulfil."""
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for name, service in SERVICES.items():
        for other, each in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            if each["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for the health of {other}"
        assert {each.partition(":")[0] for each in service.get("volumes", [])} <= set(volumes), name
    assert (COMPOSE.parent / OURS["gateway"]["build"]["context"]).resolve() == TOP
    assert (TOP / OURS["gateway"]["build"]["dockerfile"]) == CONTAINERFILE


@pytest.mark.parametrize("name", OURS)
def test_a_service_has_a_command_and_settings_that_exist(name: str) -> None:
    """A setting that does not exist has no effect and gives no error."""
    words = list(OURS[name]["command"])
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    known = {option for parameter in root.commands[words[0]].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    for setting in OURS[name]["environment"]:
        assert setting == "PGPASSWORD" or setting.removeprefix(PREFIX).lower() in Settings.model_fields


def test_ports_of_health_checks_are_those_of_the_image() -> None:
    """The API's port from the command, and the worker's default operations port."""
    exposed = set(re.findall(r"^EXPOSE (.+)$", CONTAINERFILE.read_text(), re.MULTILINE)[0].split())
    (entry,) = re.findall(r'^ENTRYPOINT \["(.+)"\]$', CONTAINERFILE.read_text(), re.MULTILINE)
    assert entry == "product-gateway"
    for name in ("gateway", "worker"):
        assert set(re.findall(r":(\d+)/", " ".join(OURS[name]["healthcheck"]["test"]))) <= exposed
    assert "--port 8080" in " ".join(OURS["gateway"]["command"])


def image_environment() -> dict[str, str]:
    """Return the settings of the image."""
    return dict(re.findall(rf"({PREFIX}\w+)=(\S+)", CONTAINERFILE.read_text()))


def test_the_services_run_without_containers_as_the_guide_says(
    postgresql_server: str, postgresql_template: str, tmp_path: Path
) -> None:
    """Commands, environment, health checks and the guide's commands, with other host names and ports."""
    url = make_url(databases.copy_of(postgresql_server, postgresql_template)).set(drivername="postgresql")
    ports = {number: str(free_port()) for number in ("8080", "8081", "8090", "8091")}

    def here(text: str) -> str:
        text = text.replace("0.0.0.0", "127.0.0.1").replace("http://sample-service:", "http://127.0.0.1:")
        for number, port in ports.items():
            text = re.sub(rf"\b{number}\b", port, text)
        return text

    deployment = Deployment(tmp_path, "")
    plain = {name: value for name, value in deployment.environment.items() if not name.startswith(PREFIX)}
    given = {**image_environment(), **OURS["gateway"]["environment"]}
    assert make_url(given[f"{PREFIX}DATABASE_URL"]).host == "database"
    given[f"{PREFIX}DATABASE_URL"] = url.render_as_string(hide_password=False)
    given[f"{PREFIX}DATA_DIR"] = str(tmp_path / "data")
    (tmp_path / "data").mkdir(mode=0o700)
    del given["PGPASSWORD"]
    path = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    operations = {"gateway": ports["8090"], "worker": ports["8091"]}

    def command(name: str) -> list[str]:
        deployment.environment = {**plain, **given, **path}
        if name in operations:  # the default port may be in use on this machine
            deployment.environment[f"{PREFIX}OPERATIONS_PORT"] = operations[name]
        return [here(word) for word in OURS[name]["command"]]

    def is_healthy(name: str) -> bool:
        kind, *words = OURS[name]["healthcheck"]["test"]
        assert kind == "CMD"
        done = subprocess.run([here(word) for word in words], env={**plain, **path}, capture_output=True, timeout=30)
        return done.returncode == 0

    assert "revision" in deployment.run(*command("migrate")).stdout
    assert not is_healthy("gateway")
    with deployment.process(*command("gateway")):
        within(STARTS_WITHIN, lambda: is_healthy("gateway"))
        with deployment.process(*command("worker")), deployment.process(*command("sample-service")):
            within(STARTS_WITHIN, lambda: is_healthy("worker"))
            command("migrate")  # the environment of a command in a container
            lines = re.findall(r"^\$ docker compose -f deploy/compose.yaml exec gateway (.+)$", GUIDE, re.MULTILINE)
            assert len(lines) == 3
            said = ""
            for line in lines:
                done = subprocess.run(
                    [here(word) for word in shlex.split(line)],
                    env=deployment.environment,
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    timeout=60,
                )
                assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
                said = done.stdout
            assert "24 of 24 records" in said


def test_the_guide_starts_the_compose_file() -> None:
    """With the variable that the file asks for."""
    assert set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text())) == {"POSTGRES_PASSWORD"}
    assert "export POSTGRES_PASSWORD=" in GUIDE
    assert "$ docker compose -f deploy/compose.yaml up --build --detach" in GUIDE
