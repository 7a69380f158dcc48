"""The README names every setting and command, and everything that it names exists."""

import re
from pathlib import Path

import pytest
import typer

from product_gateway.cli.main import app
from product_gateway.openapi import documents
from product_gateway.settings import PREFIX, Settings

TOP = Path(__file__).parents[2]
README = (TOP / "README.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL))


def cells(section: str) -> list[list[str]]:
    """The rows of the section's table."""
    rows = [line.strip("|").split("|") for line in SECTIONS[section].splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def test_the_readme_lists_every_setting_with_default_and_meaning() -> None:
    """README and settings.py must agree."""
    wanted = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else str(field.default)
        default = default.lower() if isinstance(field.default, bool) else default
        wanted.append([f"`{name.upper()}`", f"`{default}`" if default else "", field.description])
    assert cells("Settings") == wanted


def test_every_setting_that_the_readme_names_exists() -> None:
    """A misspelt setting has no effect and gives no error."""
    named = set(re.findall(rf"{PREFIX}([A-Z_]+[A-Z])", README))
    assert named <= {name.upper() for name in Settings.model_fields}


def test_every_command_is_in_the_readme() -> None:
    """And every command in the README exists."""
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    listed = {re.findall(r"`([a-z-]+)", row[0])[0] for row in cells("Commands")}
    assert listed == set(root.commands)
    merchant = root.commands["merchant"]
    assert isinstance(merchant, typer.core.TyperGroup)
    (row,) = (row for row in cells("Commands") if row[0].startswith("`merchant"))
    assert set(re.findall(r"`(?:merchant )?([a-z-]+)`", row[0])) == set(merchant.commands)


def test_every_option_in_the_readmes_commands_exists() -> None:
    """A reader can copy every line."""
    root = typer.main.get_command(app)
    lines = re.findall(r"bin/product-gateway ((?:[^\n]|\\\n)+)", README)
    assert lines
    for line in lines:
        words = line.split("#")[0].split()
        command = root
        while isinstance(command, typer.core.TyperGroup):
            command = command.commands[words.pop(0)]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_every_make_target_in_the_readme_exists() -> None:
    """With its line in `make help`."""
    described = set(re.findall(r"^([a-z]+):.*## ", (TOP / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)\b", README)) - {"lists"} <= described


def test_every_path_in_the_readme_is_in_the_spec() -> None:
    """The example session uses real paths."""
    templates = [re.sub(r"\{\w+\}", "[^/]+", path) for path in documents.load(documents.GATEWAY)["paths"]]
    for path in set(re.findall(r"/product-gateway/v1/[\w/{}.-]+|/openapi\.yaml\b", README)):
        assert any(re.fullmatch(template, path.rstrip(".")) for template in templates), path


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_every_link_in_the_readme_leads_somewhere(link: str) -> None:
    """To a file of the project; it has no other links."""
    assert (TOP / link.replace("\\", "")).is_file()
