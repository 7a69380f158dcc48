"""The command line, as an operator meets it: real processes, what they print where, and how they end."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from product_gateway.auth import keys
from product_gateway.db import merchants
from product_gateway.db.database import Database, open_database
from product_gateway.model.merchants import Merchant, Platform
from tests.support.commands import Terminal, assert_refused
from tests.support.deployment import Deployment

COMMANDS = ["demo", "serve", "worker", "migrate", "prune", "token", "sample-service", "check-service", "merchant"]
COMMANDS += ["sync", "status", "cancel", "history"]
COMMANDS += [f"merchant {each}" for each in ("add", "list", "show", "update", "remove", "allow-mass-deletion")]
TOKEN = "the-plain-token-of-the-merchant"
URL = "https://shop.example/api"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """For commands that need no process of their own."""
    return Terminal(monkeypatch, capsys)


@pytest.fixture
def shop(sqlite_deployment: Deployment) -> Iterator[Database]:
    """The deployment's database with the merchant `shop`."""
    with open_database(f"sqlite:///{sqlite_deployment.folder / 'gateway.db'}") as database:
        database.call(merchants.add, "shop", Platform.BYOP, product_service_url=URL)
        yield database


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """The token that the merchant's product service expects."""
    path = tmp_path / "service.token"
    path.write_text(TOKEN + "\n")
    return path


def found(database: Database, name: str = "shop") -> Merchant | None:
    """The merchant as it stands."""
    return database.call(merchants.find, name)


def test_every_command_explains_itself(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """`--help` is the manual; it needs no database and no settings."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"] = "nonsense"
    for command in ("", *COMMANDS):
        done = terminal.run(sqlite_deployment, f"{command} --help")
        assert (done.returncode, done.stderr) == (0, ""), done
        assert "Usage: " in done.stdout
        assert f"{command} [OPTIONS]".lstrip() in " ".join(done.stdout.split())


def test_wrong_usage_ends_with_2(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """Scripts can tell a slip of the pen from a thing that must be mended."""
    wrong = ["nonsense", "merchant nonsense", "serve --port 65536", "merchant add shop", "token"]
    wrong += ["merchant add shop --platform SHOPIFY", "merchant add shop --platform BENTO --currency"]
    wrong += ["merchant add shop --platform BYOP --product-service-token-file missing.token"]
    for command in wrong:
        done = terminal.run(sqlite_deployment, command)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert "Error" in done.stderr


def test_the_installed_command_and_the_module_are_the_same(sqlite_deployment: Deployment) -> None:
    """`product-gateway` is what documentation says; `python -m product_gateway` always works."""
    installed = Path(sys.executable).with_name("product-gateway")
    texts = [
        subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout.partition("Copies")[2]
        for command in ([installed], [sys.executable, "-m", "product_gateway"])
    ]
    assert texts[0] == texts[1] != ""


def test_a_merchant_is_added_shown_and_listed_without_its_secrets(
    deployment: Deployment, terminal: Terminal, token_file: Path
) -> None:
    """On both databases. The address leads nowhere: adding contacts nothing."""
    added = deployment.run(
        *("merchant", "add", "shop", "--platform", "BYOP", "--currency", "GBP"),
        *("--product-service-url", URL + "/", "--product-service-token-file", str(token_file)),
    )
    assert added.stdout == "Added shop.\n"
    shown, listed = (terminal.run(deployment, f"merchant {command}") for command in ("show shop", "list"))
    assert listed.stdout == f"shop\tBYOP\tenabled\t{URL}\n"
    for word in ("shop", "BYOP", URL, "GBP", "set", "never synced"):
        assert word in shown.stdout
    with open_database(deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]) as database:
        stored = found(database)
    assert stored is not None
    assert stored.product_service_token is not None
    for done in (added, shown, listed):
        assert TOKEN not in done.stdout + done.stderr
        assert stored.product_service_token not in done.stdout + done.stderr


def test_a_merchant_without_a_platform_of_its_own_needs_no_address(
    sqlite_deployment: Deployment, shop: Database, terminal: Terminal
) -> None:
    """Bento keeps its products."""
    assert terminal.run(sqlite_deployment, "merchant add bento --platform BENTO").stdout == "Added bento.\n"
    added = found(shop, "bento")
    assert added is not None
    assert (added.platform, added.product_service_url) == (Platform.BENTO, None)


@pytest.mark.parametrize(("options", "disabled"), [("--disable", True), ("--enable --currency EUR", False)])
def test_a_merchant_is_disabled_enabled_and_changed(
    sqlite_deployment: Deployment, shop: Database, terminal: Terminal, options: str, disabled: bool
) -> None:
    """Options that are not given leave their values unchanged."""
    shop.call(merchants.update_merchant, "shop", disabled=not disabled)
    assert terminal.run(sqlite_deployment, f"merchant update shop {options}").stdout == "Updated shop.\n"
    now = found(shop)
    assert now is not None
    assert (now.disabled, now.product_service_url) == (disabled, URL)
    assert now.currency == (None if disabled else "EUR")


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yellow\n"])
def test_a_merchant_stays_unless_its_removal_is_meant(
    sqlite_deployment: Deployment, shop: Database, terminal: Terminal, answer: str
) -> None:
    """It cannot be undone. Without an answer it is not meant either."""
    done = terminal.run(sqlite_deployment, "merchant remove shop", answer)
    assert_refused(done, "Erase shop with its syncs and its catalog? [y/N] ", "Nothing was done.\n")
    assert found(shop) is not None


@pytest.mark.parametrize(("option", "answer"), [("", "y\n"), ("", "YES\n"), ("--yes", "")])
def test_a_merchant_is_removed_when_that_is_meant(
    sqlite_deployment: Deployment, shop: Database, terminal: Terminal, option: str, answer: str
) -> None:
    """By hand or in a script."""
    done = terminal.run(sqlite_deployment, f"merchant remove shop {option}", answer)
    assert (done.returncode, done.stdout) == (0, "Removed shop.\n")
    assert found(shop) is None


BYOP = "--platform BYOP --product-service-url"
REFUSED = {
    "merchant add acme --platform BYOP": "needs --product-service-url",
    f"merchant add ac/me {BYOP} {URL}": "'ac/me' cannot be a merchant's name: up to 128 letters",
    f"merchant add acme {BYOP} ftp://shop.example": "'ftp://shop.example' is not the address of a product service",
    f"merchant add acme {BYOP} https://u:pw@shop.example": "without a user, query or fragment",
    f"merchant add acme {BYOP} {URL} --currency pounds": "'pounds' is not a currency. Give its code of ISO 4217",
    f"merchant add acme {BYOP} {URL} --product-service-token-file empty": "does not hold a bearer token: one line",
    f"merchant add shop {BYOP} {URL}": "There is a merchant shop already. `product-gateway merchant update shop",
    "merchant show unknown": "There is no merchant unknown. `product-gateway merchant list`",
    "merchant update unknown --disable": "There is no merchant unknown.",
    "merchant remove unknown --yes": "There is no merchant unknown.",
    "merchant allow-mass-deletion unknown PRODUCT": "There is no merchant unknown.",
    "merchant show \udcff": "cannot be a merchant's name",
    "merchant update shop": "Nothing to change: name at least one of the options",
    "token shop --scope sync:delete": "There is no scope sync:delete. Use: sync:write, sync:read, catalog:read",
    "token shop --expires soon": "'soon' is not a length of time; write it like 90s, 30m, 1h or 7d",
    "token shop/": "'shop/' cannot be a merchant's name",
    "sample-service --token-file empty": "does not hold a bearer token",
}


@pytest.mark.parametrize(("command", "words"), REFUSED.items())
def test_what_cannot_be_done_is_said_with_what_to_do(
    sqlite_deployment: Deployment, shop: Database, terminal: Terminal, command: str, words: str
) -> None:
    """On standard error, in plain words, with exit status 1; and nothing is changed."""
    (sqlite_deployment.folder / "empty").touch()
    before = shop.call(merchants.list_all)
    assert_refused(terminal.run(sqlite_deployment, command), words)
    assert shop.call(merchants.list_all) == before


def test_a_refusal_looks_the_same_from_outside(sqlite_deployment: Deployment) -> None:
    """The only test of refusals here that starts a process of its own."""
    done = sqlite_deployment.run("merchant", "show", "unknown", check=False, anew=True)
    assert_refused(done, "There is no merchant unknown. `product-gateway merchant list` shows all merchants.\n")


def test_a_token_is_printed_alone(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """So that TOKEN=$(product-gateway token …) works."""
    done = sqlite_deployment.run(
        "token", "shop", "--scope", "sync:read", "--scope", "sync:write", "--expires", "2h", anew=True
    )
    assert done.stderr == ""
    (token,) = done.stdout.splitlines()
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["merchant"], claims["scope"], claims["exp"] - claims["iat"]) == (
        "shop",
        "sync:read sync:write",
        7200,
    )
    everything = jwt.decode(
        terminal.run(sqlite_deployment, "token shop").stdout.strip(), options={"verify_signature": False}
    )
    assert (everything["scope"].split(), everything["exp"] - everything["iat"]) == (list(keys.SCOPES), 3600)
