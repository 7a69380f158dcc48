"""Arguments and options with an enum: an error lists all values."""

import inspect
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, get_args, get_type_hints

import pytest
import typer

from product_gateway.cli.main import app
from tests.support.commands import Terminal
from tests.support.deployment import Deployment

WRONG = "MADE_UP"


def commands(group: typer.Typer, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command with its function."""
    for each in group.registered_commands:
        assert each.callback is not None
        yield prefix + (each.name or each.callback.__name__.replace("_", "-")), each.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{prefix}{inner.name} " if isinstance(inner.name, str) else prefix)


def enum_of(kind: Any) -> type[StrEnum] | None:
    """Return the enum that a parameter is annotated with: alone, in a list or with None."""
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind
    return next(filter(None, map(enum_of, get_args(kind))), None)


def cases() -> Iterator[tuple[str, type[StrEnum]]]:
    """Yield a wrong command line for every enum, and the enum."""
    for command, function in commands(app):
        hints = get_type_hints(function)
        marks = get_type_hints(function, include_extras=True)
        before = ""
        for name in inspect.signature(function).parameters:
            is_argument = any(type(mark).__name__ == "ArgumentInfo" for mark in get_args(marks[name]))
            if kind := enum_of(hints[name]):
                option = "" if is_argument else f"--{name.replace('_', '-')} "
                yield f"{command} {before}{option}{WRONG}", kind
            if is_argument:
                before += "https://shop.example " if name == "url" else "shop "


CASES = list(cases())


@pytest.mark.parametrize(("command", "kind"), CASES, ids=[command for command, _ in CASES])
def test_an_error_about_an_enum_lists_all_its_values(
    command: str,
    kind: type[StrEnum],
    sqlite_deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A user corrects the command without --help."""
    done = Terminal(monkeypatch, capsys).run(sqlite_deployment, command)
    assert done.returncode == 2, done
    said = " ".join(done.stderr.split())
    assert f"'{WRONG}'" in said
    assert set(re.findall(r"\w+", said.partition("is not one of")[2])) == {each.value for each in kind}


def test_every_command_with_an_enum_is_tested() -> None:
    """The cases come from the functions' annotations: a change of their form must not empty the list."""
    assert {command.split()[0] for command, _ in CASES} >= {
        "sync",
        "status",
        "cancel",
        "history",
        "check-service",
        "merchant",
    }
