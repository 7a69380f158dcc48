"""The README is short, and everything that it names exists."""

import re

import pytest
import typer

from product_gateway.cli.main import app
from product_gateway.openapi import documents
from product_gateway.settings import PREFIX, Settings
from tests.support.markdown import TOP

README = (TOP / "README.md").read_text()
FIRST_SCREEN = README.partition("\n## ")[0]


def test_the_readme_has_at_most_150_lines() -> None:
    """Everything else has a page in docs."""
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize(
    "part", ["Who it is for", "Why use it", "$ make run", "$ make test", "![", "script", "data pipeline", "mock"]
)
def test_the_first_screen_says_what_the_gateway_is_for(part: str) -> None:
    """A newcomer decides there whether to read on."""
    assert part in FIRST_SCREEN
    assert len(FIRST_SCREEN.splitlines()) < 40


def test_every_setting_that_the_readme_names_exists() -> None:
    """A misspelt setting has no effect and gives no error."""
    named = set(re.findall(rf"{PREFIX}([A-Z_]+[A-Z])", README))
    assert named <= {name.upper() for name in Settings.model_fields}


def test_every_option_in_the_readmes_commands_exists() -> None:
    """A reader can copy every line."""
    root = typer.main.get_command(app)
    lines = re.findall(r"(?:bin/|`)product-gateway ((?:[^\n`]|\\\n)+)", README)
    assert len(lines) > 5
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
    named = set(re.findall(r"(?:`|\$ )make ([a-z]+)\b", README))
    assert {"run", "test"} <= named <= described


def test_every_path_in_the_readme_is_in_the_spec() -> None:
    """The example session uses real paths."""
    templates = [re.sub(r"\{\w+\}", "[^/]+", path) for path in documents.load(documents.GATEWAY)["paths"]]
    paths = {path.rstrip(".") for path in re.findall(r"/product-gateway/v1/[\w/{}.-]+", README)}
    paths |= {f"/product-gateway/v1{path}" for path in re.findall(r"\$API(/[\w/]+)", README)}
    assert len(paths) > 3
    for path in paths:
        assert any(re.fullmatch(template, path) for template in templates), path
