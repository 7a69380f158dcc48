"""docs/clients.md has the clients that `make clients` runs, with the same commands."""

import re
import shlex
import subprocess
import sys

import pytest

from product_gateway.openapi import documents
from tests.tools.client_roster import CLIENTS, TOOLS, TOP, TOURS, Client

PAGE = (TOP / "docs" / "clients.md").read_text()
CELLS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]
ROWS = [row for row in CELLS if len(row) == 4]  # the table of scores has three columns
each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


def test_the_matrix_lists_the_clients_of_make_clients() -> None:
    """With the locked versions of the generators."""
    assert [row[:3] for row in ROWS] == [[f"`{each.name}`", each.language, each.generator] for each in CLIENTS]


def test_every_tour_is_run() -> None:
    """A folder that the roster does not name would go stale."""
    folders = {path.name for path in TOURS.iterdir() if path.is_dir()} - {".build", "node_modules"}
    assert folders == {client.name for client in CLIENTS}


def test_there_are_nine_clients_in_seven_languages() -> None:
    """docs/clients.md promises them."""
    assert len(CLIENTS) >= 9
    assert len({client.language for client in CLIENTS}) >= 7


@each_client
def test_the_page_has_the_commands_that_are_run(client: Client) -> None:
    """Verbatim, in the client's own section."""
    (section,) = re.findall(rf"^### {client.name}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    (block,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    commands = [command for command in (client.generate, client.build, client.run) if command]
    assert block.splitlines() == [f"$ {command}" for command in commands]


@each_client
def test_the_page_links_the_tour(client: Client) -> None:
    """The page links the program that the client's last command runs."""
    (row,) = (row for row in ROWS if row[0] == f"`{client.name}`")
    (link,) = re.findall(r"\]\((.*)\)", row[3])
    assert (TOP / "docs" / link).resolve().is_relative_to(TOURS / client.name)
    assert (TOP / "docs" / link).is_file()


@each_client
def test_a_missing_tool_of_a_client_is_reported(client: Client) -> None:
    """A missing tool is reported before a client is run."""
    assert set(client.needs) <= set(TOOLS)
    assert "openapi-generator" not in client.package or {"Java 11", "JDK 11"} & set(client.needs)


def test_ci_installs_what_the_page_says() -> None:
    """Except the JDK, which CI installs only where it is missing."""
    (command,) = re.findall(r"^\$ apt-get install (.*?)\n```", PAGE, re.MULTILINE | re.DOTALL)
    script = (TOP / ".ci" / "run").read_text()
    listed = " ".join(re.findall(r"toolchains\+?=\((.*?)\)", script))
    assert set(shlex.split(command.replace("\\\n", " "))) == set(shlex.split(listed))


def test_a_client_that_does_not_exist_is_refused() -> None:
    """A misspelt name in CLIENTS must not end in a green run of no client."""
    command = [sys.executable, "-m", "tests.tools.generated_clients"]
    done = subprocess.run(
        command, cwd=TOP, env={"CLIENTS": "cobol"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "There is no client cobol" in done.stderr


def test_the_fields_that_the_page_calls_nullable_are() -> None:
    """And no other fields of a sync."""
    schemas = documents.load(documents.GATEWAY)["components"]["schemas"]
    (sentence,) = re.findall(r"In a sync,\s(.*?) are always present", PAGE, re.DOTALL)
    nullable = {
        name
        for schema in ("Sync", "SyncProgress")
        for name, each in schemas[schema]["properties"].items()
        if documents.resolve(documents.load(documents.GATEWAY), each).get("nullable")
    }
    assert set(re.findall(r"`(?:progress\.)?(\w+)`", sentence)) == nullable
