"""Every command of the README, the tutorial and the sandbox page runs as written, and prints what the page shows."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import console_page
from tests.support.console_page import Command, PageError
from tests.support.markdown import TOP

PAGES = ["README.md", "docs/sandbox.md", *sorted(str(page.relative_to(TOP)) for page in TOP.glob("docs/tutorial-*.md"))]
LONGEST = 900  # seconds for a page, on a busy machine


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_in_order_as_written(page: str, tmp_path: Path) -> None:
    """A newcomer copies them."""
    written = console_page.commands((TOP / page).read_text())
    for program in ("curl", "node"):
        if any(re.match(rf"{program}\b", each.text) for each in written) and shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    command = console_page.in_own_network(str(TOP / page), str(tmp_path))
    if command is None:
        pytest.skip("this machine does not allow network namespaces (unshare)")
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0, done.stderr
    not_run = [each for each in written if each.program in console_page.NOT_RUN]
    assert done.stdout == f"{len(written) - len(not_run)} commands\n"
    assert len(written) >= 5


def test_the_services_of_the_tutorial_have_at_most_60_lines() -> None:
    """The tutorial says so."""
    saved = console_page.files((TOP / "docs" / "tutorial-product-service.md").read_text())
    assert set(saved) == {"catalog.json", "service.py", "service.mjs"}
    assert all(30 <= len(saved[name].splitlines()) <= 60 for name in ("service.py", "service.mjs"))


def test_commands_and_their_output_are_told_apart() -> None:
    """A backslash continues a command; blocks of other languages are not run."""
    text = "```console\n$ one \\\n    two\nsaid\n$ three\n```\n\n```python\n$ four\n```\n"
    assert console_page.commands(text) == [Command(2, "one \\\n    two", ("said",)), Command(5, "three", ())]
    with pytest.raises(PageError, match="must start with a command"):
        console_page.commands("```console\nsaid\n```\n")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["one"], "one"),
        (["one", "two"], "one\ntwo\n"),
        (["a … c"], "a b c\n"),
        (["…", "three"], "one\ntwo\nthree\n"),
        (["one", "…"], "one\n"),
        (["sync 01a20a4b-f514-708c-8b35-b67ebc5d86e0"], "sync 01a20a4b-f514-708c-8b35-b67ebc5d86e1\n"),
        (["at 2026-11-23T21:24:45.407Z, after 5.1 s"], "at 2027-01-01T00:00:00Z, after 12.0 s\n"),
        (["retry-after: 2"], "retry-after: 4\r\n"),
    ],
)
def test_output_that_the_page_shows_is_accepted(shown: list[str], printed: str) -> None:
    """Ids and times differ from run to run."""
    assert console_page.prints(tuple(shown), printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["one"], "two\n"),
        (["one"], "one\ntwo\n"),
        (["one", "two"], "one\n"),
        (["a … c"], "a b\nc\n"),
        (["24 records"], "25 records\n"),
        (["HTTP/1.1 202 Accepted"], "HTTP/1.1 401 Unauthorized\n"),
    ],
)
def test_other_output_is_refused(shown: list[str], printed: str) -> None:
    """A page that shows something else than the program prints is wrong."""
    assert not console_page.prints(tuple(shown), printed)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$ echo one\ntwo", "It printed:\none"),
        ("$ exit_code_is() { return $1; }\n$ exit_code_is 3", "exit code 3"),
        ("$ true  # exit code 1", "exit code 0"),
        ("$ no-such-command", "exit code 127"),
        ("$ python3 service.py\nlistens", "has ended"),
    ],
)
def test_a_command_that_differs_from_the_page_is_an_error(text: str, reason: str, tmp_path: Path) -> None:
    """With the output of the command."""
    with pytest.raises(PageError, match=reason):
        console_page.run(f"```console\n{text}\n```\n", tmp_path)


def test_a_shell_keeps_its_variables_until_a_server_starts(tmp_path: Path) -> None:
    """A server occupies its terminal, so a reader opens another one, in the same folder."""
    service = "Save as `service.py`:\n\n```python\nimport time\n\nprint('listens', flush=True)\ntime.sleep(99)\n```\n"
    session = "$ A=1\n$ echo $A > file\n$ python3 service.py\nlistens\n$ echo $(cat file)$A\n1"
    assert console_page.run(f"{service}\n```console\n{session}\n```\n", tmp_path) == 4


def test_every_command_that_is_not_run_is_on_a_page() -> None:
    """An entry that is no longer needed would hide a command."""
    written = [each for page in PAGES for each in console_page.commands((TOP / page).read_text())]
    assert set(console_page.NOT_RUN) <= {each.program for each in written}
