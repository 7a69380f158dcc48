"""Architecture, scheduling, upgrading, stability, contributing, changelog: what they name exists, and recipes run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from product_gateway.cli.main import app
from product_gateway.model.syncs import SyncStatus
from product_gateway.openapi import documents
from product_gateway.settings import Settings
from tests.support.deployment import STARTS_WITHIN, Deployment, within
from tests.support.markdown import TOP

DOCS = TOP / "docs"
PACKAGE = TOP / "app" / "product_gateway"
BIN = Path(sys.executable).parent
PAGES = {
    path.name: path.read_text()
    for path in (
        *(DOCS / f"{name}.md" for name in ("architecture", "when-to-use", "scheduling", "upgrade", "stability")),
        TOP / "CONTRIBUTING.md",
        TOP / "CHANGELOG.md",
        TOP / "SECURITY.md",
    )
}
SCHEDULING = PAGES["scheduling.md"]
# Words in capitals that are no settings: failure codes and states.
CODES = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", documents.load(documents.GATEWAY)["info"]["description"]))
each_page = pytest.mark.parametrize("page", PAGES)


@each_page
def test_every_setting_that_a_page_names_exists(page: str) -> None:
    """Pages write them without the prefix."""
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", PAGES[page]))
    assert {name.lower() for name in named - CODES} <= set(Settings.model_fields)


@each_page
def test_every_command_that_a_page_names_exists(page: str) -> None:
    """With its options."""
    text = PAGES[page].replace("\\\n", " ")
    for words in re.findall(r"product-gateway ((?:[a-z][a-z-]*|--?[a-z-]+|[A-Z]{4,}|[\w:/.${}-]+)[^`\n|]*)", text):
        command, rest = typer.main.get_command(app), shlex.split(words.split(" || ")[0], comments=True)
        if rest[0] not in getattr(command, "commands", {}):
            assert not rest[0].startswith("--") or rest[0] in {"--version"}, words
            continue
        while isinstance(command, typer.core.TyperGroup) and rest:
            command = command.commands[rest.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, words


@each_page
def test_every_make_target_and_file_that_a_page_names_exists(page: str) -> None:
    """Files of the project in backticks, and modules of the package."""
    targets = set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)\b", PAGES[page])) <= targets
    for name in re.findall(r"`((?:tests|deploy|docs|openapi|app|\.github)/[\w./-]+)`", PAGES[page]):
        assert (TOP / name).exists(), name
    if page == "architecture.md":
        modules = re.findall(r"`((?:api|db|sync|webhooks|http|openapi|auth)/[a-z_]+)`", PAGES[page])
        assert len(modules) > 8
        for name in modules:
            assert (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir(), name


def test_the_architecture_page_has_every_state() -> None:
    """In its table, with the states that can follow."""
    rows = re.findall(r"^\| ([A-Z_]+) \| [^|]+ \| ([^|]+) \|$", PAGES["architecture.md"], re.MULTILINE)
    states = {each.value for each in SyncStatus}
    assert {state for state, _ in rows} == states
    for _, following in rows:
        assert set(re.findall(r"\b[A-Z_]{6,}\b", following)) <= states


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    """Unreleased changes come first, under the headings that the form has."""
    headings = re.findall(r"^(#+) (.+)$", PAGES["CHANGELOG.md"], re.MULTILINE)
    assert headings[:2] == [("#", "Changelog"), ("##", "[Unreleased]")]
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for level, name in headings[2:]:
        versions = re.fullmatch(r"\d+\.\d+\.\d+", name) is not None
        assert name in kinds or versions or level == "##", name


def test_no_version_is_called_released_before_it_is() -> None:
    """The stability page and the changelog say the same, until a version is in the changelog."""
    released = re.findall(r"^## \[?(\d+\.\d+\.\d+)\]?", PAGES["CHANGELOG.md"], re.MULTILINE)
    assert ("Nothing has been released yet" in PAGES["CHANGELOG.md"]) is not bool(released)
    assert ("No version has been\nreleased yet" in PAGES["stability.md"]) is not bool(released)


def test_nothing_is_deprecated_while_the_stability_page_says_so() -> None:
    """The page says that no response carries Deprecation or Sunset."""
    texts = "".join((TOP / "openapi" / name).read_text() for name in ("product-gateway.yaml", "operations.yaml"))
    assert "Nothing is deprecated today" in PAGES["stability.md"]
    assert "deprecated: true" not in texts
    assert not re.search(r"^ +(Deprecation|Sunset):", texts, re.MULTILINE)


def test_the_typescript_versions_are_those_that_are_run() -> None:
    """From the package.json and the lock file of the generated clients."""
    text = (DOCS / "clients.md").read_text()
    (section,) = re.findall(r"^### TypeScript: versions.*?(?=^### )", text, re.MULTILINE | re.DOTALL)
    package = json.loads((TOP / "tests" / "clients" / "package.json").read_text())
    for name, version in (package["dependencies"] | package["devDependencies"]).items():
        rows = [line for line in section.splitlines() if line.startswith("|") and f"`{name}`" in line]
        assert rows, name
        assert version in rows[0], name
    locked = (TOP / "requirements" / "clients.txt").read_text()
    (generator,) = re.findall(r"^openapi-generator-cli==([\d.]+)", locked, re.MULTILINE)
    assert f"openapi-generator {generator}" in section


def block(language: str, containing: str) -> str:
    """Return the code block of the scheduling page with the text."""
    (found,) = (
        each
        for each in re.findall(rf"^```{language}\n(.*?)^```$", SCHEDULING, re.MULTILINE | re.DOTALL)
        if containing in each
    )
    return str(found)


def commands() -> dict[str, str]:
    """Return the shell command of each recipe, without its delay."""
    (line,) = (each for each in block("crontab", "sync").splitlines() if each.startswith("17 "))
    fields = line.split(" ", 5)
    assert "%" not in fields[5].replace("\\%", "")  # cron ends a command at a bare percent sign
    cron = fields[5].replace("\\%", "%")
    (unit,) = re.findall(r"^ExecStart=\S+/(product-gateway .+)$", block("ini", "ExecStart"), re.MULTILINE)
    job = yaml.safe_load(block("yaml", "CronJob"))["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = job["containers"]
    assert container["command"] == ["sh", "-c"]
    delay = r"sleep \$\([^\n;]*?\)+[;\n]\s*"
    assert re.match(delay, cron)
    assert re.match(delay, container["args"][0])
    return {
        "cron": re.sub(delay, "", cron),
        "systemd": unit.replace("%d/token", "/etc/gateway/acme.token"),
        "kubernetes": re.sub(delay, "", container["args"][0]),
    }


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Start a sandbox; yield its URL and a file with a token."""
    folder = tmp_path_factory.mktemp("scheduling")
    with Deployment(folder, "").process("sandbox", "--sync-seconds", "0") as process:
        line = within(STARTS_WITHIN, lambda: re.search(r"^\{.*\}$", process.log.read_text(), re.MULTILINE))
        said = json.loads(line[0])
        (folder / "token").write_text(said["tokens"]["byop"])
        yield said["baseUrl"], folder / "token"


@pytest.mark.parametrize("recipe", ["cron", "systemd", "kubernetes"])
def test_the_command_of_a_recipe_syncs(recipe: str, sandbox: tuple[str, Path]) -> None:
    """Against a sandbox, with another address and token."""
    url, token = sandbox
    command = re.sub(r"--token-file \S+", f"--token-file {token}", commands()[recipe])
    assert "https://gateway.example" in command
    done = subprocess.run(
        ["bash" if recipe == "cron" else "sh", "-c", command.replace("https://gateway.example", url)],
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCEEDED" in done.stdout + done.stderr


def test_the_random_delays_are_at_most_half_an_hour() -> None:
    """As each recipe says. The shell evaluates the expression of the crontab."""
    (expression,) = re.findall(r"sleep (\$\(\(.*?\)\))", block("crontab", "sync"))
    program = f"for i in {{1..200}}; do echo {expression.replace(chr(92), '')}; done"
    said = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=30).stdout.split()
    assert len({int(each) for each in said}) > 50
    assert all(0 <= int(each) < 1800 for each in said)
    assert "$(shuf -i 0-1800 -n 1)" in block("yaml", "CronJob")
    assert "RandomizedDelaySec=30m" in block("ini", "OnCalendar")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
def test_systemd_understands_the_timer_and_its_service(tmp_path: Path) -> None:
    """The units are valid, and the timer runs four times a day."""
    service = block("ini", "ExecStart").replace("/opt/product-gateway/bin/product-gateway", "/bin/true")
    (tmp_path / "gateway-sync@.service").write_text(service)
    (tmp_path / "gateway-sync@.timer").write_text(block("ini", "OnCalendar"))
    unit = tmp_path / "gateway-sync@acme.timer"
    told = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    about_ours = [line for line in told.stderr.splitlines() if "gateway-sync" in line]
    assert (told.returncode, about_ours) == (0, []), told.stderr
    (calendar,) = re.findall(r"^OnCalendar=(.+)$", block("ini", "OnCalendar"), re.MULTILINE)
    shown = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=5", calendar], capture_output=True, text=True, timeout=60
    )
    assert shown.returncode == 0, shown.stderr
    hours = re.findall(r" (\d\d):17:00", shown.stdout)
    assert set(hours) == {"00", "06", "12", "18"}


def test_the_cron_job_is_consistent() -> None:
    """Names that refer to each other agree, and a run cannot outlast its deadline unnoticed."""
    job = yaml.safe_load(block("yaml", "CronJob"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert {each["name"] for each in pod["containers"][0]["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    deadline = job["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"]
    assert deadline > Settings.model_fields["max_sync_seconds"].default + 1800
