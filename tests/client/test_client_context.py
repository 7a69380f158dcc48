"""Where the client commands find their gateway and their token: options, environment, saved context, default."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Done, Terminal, assert_refused
from tests.support.deployment import Deployment
from tests.support.scripted_answers import Merchant

ERROR = {"error": [{"status": "401", "title": "Unauthorized", "detail": "Invalid token."}]}
EMPTY: dict[str, Any] = {"data": [], "meta": {}}


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sqlite_deployment: Deployment
) -> Callable[..., Done]:
    """A command with its own configuration directory."""
    terminal = Terminal(monkeypatch, capsys)
    monkeypatch.delenv("PRODUCT_GATEWAY_URL", raising=False)
    monkeypatch.delenv("PRODUCT_GATEWAY_TOKEN", raising=False)
    sqlite_deployment.environment["XDG_CONFIG_HOME"] = str(sqlite_deployment.folder / "config")
    for name in ("flag", "saved"):
        (sqlite_deployment.folder / f"{name}.token").write_text(f"token-of-{name}\n")

    def in_environment(line: str, status: int = 0, **environment: str) -> Done:
        before = dict(sqlite_deployment.environment)
        sqlite_deployment.environment |= {f"PRODUCT_GATEWAY_{name.upper()}": each for name, each in environment.items()}
        with monkeypatch.context():
            done = terminal.run(sqlite_deployment, line)
        sqlite_deployment.environment.clear()
        sqlite_deployment.environment.update(before)
        assert done.returncode == status, done
        return done

    return in_environment


@pytest.fixture
def saved(sqlite_deployment: Deployment) -> Path:
    """The file of the saved context."""
    return sqlite_deployment.folder / "config" / "product-gateway" / "context.json"


def token(gateway: Merchant) -> str:
    """Return the token of the latest request."""
    return gateway.asked[-1].headers["Authorization"].removeprefix("Bearer ")


def test_options_come_before_the_environment_before_the_saved_context(
    run: Callable[..., Done], gateway: Merchant, saved: Path
) -> None:
    """As in gh and stripe."""
    gateway.says(EMPTY)
    done = run(f"login --url {gateway.url}/ --token-file saved.token")
    assert done.stdout == f"Saved {gateway.url} and the token in {saved}.\n"
    run("history")
    assert token(gateway) == "token-of-saved"
    run("history", token="token-of-environment")
    assert token(gateway) == "token-of-environment"
    away = run("history --token-file flag.token", 1, token="token-of-environment", url="http://127.0.0.1:1")
    assert "The connection to 127.0.0.1 was refused." in away.stderr
    assert "PRODUCT_GATEWAY" not in run(f"history --url {gateway.url} --token-file flag.token", url="nonsense").stderr
    assert token(gateway) == "token-of-flag"
    refused = run("history", 1, url="nonsense", token="x")
    assert "PRODUCT_GATEWAY_URL: 'nonsense' is not the address of a gateway" in refused.stderr


def test_the_saved_file_is_private_and_logout_deletes_it(
    run: Callable[..., Done], gateway: Merchant, saved: Path
) -> None:
    """It holds the token."""
    gateway.says(EMPTY)
    run("login --token-file saved.token", url=gateway.url)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert json.loads(saved.read_text()) == {"url": gateway.url, "token": "token-of-saved"}
    assert run("logout").stdout == "Logged out.\n"
    assert not saved.exists()
    assert run("logout").stdout == "There is no saved context.\n"
    assert "There is no bearer token. Give --token-file FILE" in run("history", 2).stderr


def test_a_token_that_the_gateway_refuses_is_named_by_its_source_and_not_saved(
    run: Callable[..., Done], gateway: Merchant, saved: Path
) -> None:
    """Otherwise the wrong one of three is replaced."""
    gateway.says(EMPTY)
    run(f"login --url {gateway.url} --token-file saved.token")
    before = saved.read_text()
    gateway.says(401)
    gateway.answers[0].body = json.dumps(ERROR).encode()
    gateway.answers[0].headers["Content-Length"] = str(len(gateway.answers[0].body))
    sources = {
        f"login --url {gateway.url} --token-file flag.token": "the file flag.token",
        "history --token-file flag.token": "the file flag.token",
        "history": f"the saved context {saved}",
    }
    for line, source in sources.items():
        assert f"The token comes from {source}." in run(line, 1).stderr
    assert "The token comes from PRODUCT_GATEWAY_TOKEN." in run("history", 1, token="x").stderr
    assert saved.read_text() == before


def test_the_saved_token_goes_only_to_its_gateway(run: Callable[..., Done], gateway: Merchant) -> None:
    """Another server must not get it."""
    gateway.says(EMPTY)
    run(f"login --url {gateway.url} --token-file saved.token")
    asked = len(gateway.asked)
    other = gateway.url.replace("127.0.0.1", "localhost")
    assert_refused(
        run(f"history --url {other}", 1), f"The saved token is for {gateway.url}, and is not sent to {other}"
    )
    assert len(gateway.asked) == asked


@pytest.mark.parametrize("text", ["", "[]", '{"url": "ftp://x", "token": "x"}', '{"url": "http://x", "token": "a b"}'])
def test_a_saved_context_that_cannot_be_used_is_named(run: Callable[..., Done], saved: Path, text: str) -> None:
    """With its path, and without its content."""
    saved.parent.mkdir(parents=True)
    saved.write_text(text)
    saved.chmod(0o600)
    assert_refused(run("history", 1), str(saved))
    saved.chmod(0o644)
    assert_refused(run("history", 1), f"Other users may access the saved context {saved}. Run: chmod 600 {saved}")


def test_a_token_that_cannot_be_one_is_named_by_its_source(run: Callable[..., Done]) -> None:
    """Nothing is sent."""
    refused = run("history", 1, token="two words")
    assert_refused(refused, "PRODUCT_GATEWAY_TOKEN does not hold a bearer token: one line of ASCII without spaces.")


def test_the_two_variables_are_known_to_all_commands(run: Callable[..., Done]) -> None:
    """A warning about them would be wrong."""
    assert "no setting" not in run("merchant list", url="http://127.0.0.1:1", token="x").stderr
    assert (
        "There is no setting PRODUCT_GATEWAY_TOKENS"
        in run("history", 1, url="http://127.0.0.1:1", token="x", tokens="y").stderr
    )
