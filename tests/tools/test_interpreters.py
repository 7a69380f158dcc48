"""interpreters: the Python versions that the tests run on, and what the documents promise about them."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.tools import interpreters

TOP = Path(__file__).parents[2]


def executable(path: Path, script: str) -> Path:
    """Write a shell script."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_one_interpreter_is_found_for_each_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PATH and among pyenv's versions; a shim of an unselected version is ignored."""
    real = str(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"))
    chosen = tmp_path / "versions" / "3.99.1" / "bin"
    chosen.mkdir(parents=True)
    (chosen / "python").symlink_to(real)
    executable(tmp_path / "python3.12", "echo pyenv: python3.12: command not found >&2; exit 127")
    executable(tmp_path / "python3.11", """echo '[[3, 11, 1], true]'""")
    executable(tmp_path / "python3.13", """echo '[[3, 13, 0], false]'""")
    executable(tmp_path / "python3", """echo '[[3, 11, 9], true]'""")
    executable(tmp_path / "python", """echo '[[3, 10, 13], true]'""")
    executable(tmp_path / "pyenv", f'[ "$1" = root ] && echo {tmp_path}')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin/no-such-folder")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python-without-uv-beside-it" / "python"))
    found = interpreters.versions()
    found_here = found.pop(sys.version_info[:2])
    if sys.version_info[:2] == (3, 11) and sys.version_info.micro < 9:
        assert found_here == "python3"
    else:
        assert found_here in (str(chosen / "python"), real)
        assert found.pop((3, 11)) == "python3"
    assert found == {}


def test_the_promised_versions_are_the_tested_ones_of_the_readme() -> None:
    """An untested version is not promised."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    (run,) = re.findall(r"The tests were run on Python (.+?\))\.", (TOP / "README.md").read_text(), re.DOTALL)
    assert re.findall(r"(3\.\d+)\.\d+", run) == promised
    assert project["requires-python"] == f">={promised[0]}"
