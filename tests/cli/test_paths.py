"""Paths that a person names: each that cannot be used gets a sentence, also where the system does not look at it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import Terminal, assert_refused
from tests.support.deployment import Deployment

TOO_LONG = "x" * 300


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """For commands that need no process of their own."""
    return Terminal(monkeypatch, capsys)


@pytest.mark.parametrize("command", ["merchant list", "token shop", "worker", "migrate", "serve --port 0", "prune"])
def test_a_data_directory_that_the_system_refuses_to_look_at(command: str, sqlite_deployment: Deployment) -> None:
    """Here its name is too long; a parent directory of another user is the common case."""
    sqlite_deployment.environment |= {"PRODUCT_GATEWAY_DATABASE_URL": "", "PRODUCT_GATEWAY_DATA_DIR": TOO_LONG}
    done = sqlite_deployment.run(*command.split(), check=False)
    assert_refused(done, "PRODUCT_GATEWAY_DATA_DIR: it is too long for the path of a file.")


@pytest.mark.parametrize("setting", ["SECRET_KEY_FILE", "JWT_PUBLIC_KEY_FILE", "OPERATOR_TOKEN_FILE"])
def test_a_key_file_that_the_system_refuses_to_look_at(
    setting: str, sqlite_deployment: Deployment, terminal: Terminal
) -> None:
    """The text may be the key itself, so it is not shown. A folder and a device are not read as keys either."""
    name = f"PRODUCT_GATEWAY_{setting}"
    for path, reason in (
        (TOO_LONG, "it is too long for the path of a file"),
        (str(sqlite_deployment.folder), "is a directory"),
        ("/dev/null", "/dev/null is not an ordinary file"),
        ("/no/such/file", "there is no file /no/such/file"),
    ):
        sqlite_deployment.environment[name] = path
        done = terminal.run(sqlite_deployment, "merchant list")
        assert_refused(done, f"{name}: ", reason)
        assert TOO_LONG not in done.stderr


def test_a_token_in_place_of_the_name_of_its_file_is_not_printed(
    sqlite_deployment: Deployment, terminal: Terminal
) -> None:
    """A common slip: --token-file "$(cat file)"."""
    token = sqlite_deployment.token("shop")
    for given in (token, token[:200]):
        done = terminal.run(sqlite_deployment, f"status PRODUCT --token-file {given}")
        assert done.returncode == 2
        assert "Name a file that holds the token." in done.stderr
        assert "Traceback" not in done.stderr
        assert given not in done.stderr


def test_a_token_may_come_through_a_pipe(sqlite_deployment: Deployment) -> None:
    """As from a password manager: --token-file <(…), and /dev/stdin."""
    sqlite_deployment.run("merchant", "add", "shop", "--platform", "BYOP", "--product-service-url", "https://x.example")
    with sqlite_deployment.serving() as url:
        done = subprocess.run(
            [sys.executable, "-m", "product_gateway", "history", "--url", url, "--token-file", "/dev/stdin"],
            check=False,
            env=sqlite_deployment.environment,
            cwd=sqlite_deployment.folder,
            input=sqlite_deployment.token("shop"),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "There are no syncs yet." in done.stdout


def test_a_working_directory_that_was_removed(sqlite_deployment: Deployment, tmp_path: Path) -> None:
    """A relative data directory is then nowhere."""
    sqlite_deployment.environment |= {"PRODUCT_GATEWAY_DATABASE_URL": "", "PRODUCT_GATEWAY_DATA_DIR": "var"}
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", f'cd "{gone}" && rmdir "{gone}" && exec "{sys.executable}" -m product_gateway merchant list'],
        check=False,
        env=sqlite_deployment.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("There is no data directory at var.")


def test_the_id_of_a_sync_is_asked_for_in_words(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """A parser's own message says nothing to a person."""
    for command in ("show", "revert", "publish", "discard", "problems"):
        done = terminal.run(sqlite_deployment, f"{command} latest")
        assert done.returncode == 2
        assert "'latest' is not the id of a sync. `product-gateway history` lists them." in done.stderr
