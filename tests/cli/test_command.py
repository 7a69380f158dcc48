"""The command line, as an operator meets it: real processes, what they print where, and how they end."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import jwt
import pytest
from standardwebhooks import Webhook

from product_gateway.auth import keys
from product_gateway.db import claims, merchants, webhooks
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.merchants import Merchant, Platform
from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.telemetry.version import version
from tests.support import webhook_receivers
from tests.support.commands import Terminal, assert_refused
from tests.support.deployment import Deployment

COMMANDS = [
    "demo",
    "serve",
    "worker",
    "migrate",
    "distribute",
    "prune",
    "token",
    "sample-service",
    "check-service",
    "check-webhook",
    "merchant",
]
COMMANDS += ["sync", "status", "cancel", "history", "show", "problems", "products", "collections", "login", "logout"]
COMMANDS += ["sandbox", "tolerance", "webhook", "webhook test", "merchant reencrypt"]
COMMANDS += [f"merchant {each}" for each in ("add", "list", "show", "update", "remove", "allow-mass-deletion")]
TOKEN = "the-plain-token-of-the-merchant"
URL = "https://shop.example/api"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """For commands that need no process of their own."""
    return Terminal(monkeypatch, capsys)


def test_a_client_under_test_that_cannot_be_run_is_named(sqlite_deployment: Deployment) -> None:
    """It is no mutation that breaks it."""
    script = sqlite_deployment.folder / "client"
    script.write_text("#!/bin/sh\n")  # and not executable
    for command, reason in (("/no/such/client", "No such file or directory"), (str(script), "Permission denied")):
        done = sqlite_deployment.run("tolerance", "--only", "additional-nulls", "--", command, check=False)
        assert_refused(done, f"{command} cannot be run: {reason}.")


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
        assert not re.search(r"[<{]|\b(TEXT|INTEGER|FLOAT|PATH|str|int|float)\b", done.stdout.replace("<=", "")), (
            command
        )
        assert max(map(len, done.stdout.splitlines())) <= 80


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
        subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout.partition("Keep one")[2]
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
    as_json = [json.loads(terminal.run(deployment, f"merchant {each} --json").stdout) for each in ("list", "show shop")]
    assert as_json[0][0].items() <= as_json[1].items()
    assert (as_json[1]["name"], as_json[1]["hasProductServiceToken"]) == ("shop", True)
    never_synced = {"records": 0, "bytes": 0, "latestSync": None, "staleAfter": None, "stale": False}
    assert as_json[1]["catalog"]["PRODUCT"] == never_synced
    for word in ("shop", "BYOP", URL, "GBP", "set", "never synced"):
        assert word in shown.stdout
    with open_database(deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]) as database:
        stored = found(database)
    assert stored is not None
    assert stored.product_service_token is not None
    for done in (added, shown, listed):
        assert TOKEN not in done.stdout + done.stderr
        assert stored.product_service_token not in done.stdout + done.stderr


def test_max_ages_are_set_shown_changed_and_removed(deployment: Deployment, terminal: Terminal) -> None:
    """On both databases. An option changes only the entity type that it names."""
    add = f"merchant add shop --platform BYOP --product-service-url {URL} --max-age PRODUCT=90m --max-age collection=7D"
    assert terminal.run(deployment, add).stdout == "Added shop.\n"

    def ages(command: str) -> dict[str, Any]:
        found = json.loads(terminal.run(deployment, f"merchant {command} --json").stdout)
        return dict((found[0] if isinstance(found, list) else found)["maxAgeSeconds"])

    assert ages("list") == ages("show shop") == {"PRODUCT": 5400, "COLLECTION": 604800}
    lines = terminal.run(deployment, "merchant show shop").stdout.splitlines()
    assert [line.split()[2:5] for line in lines if "max age" in line] == [
        ["90m,", "stale", "after"],
        ["7d,", "stale", "after"],
    ]
    for change, expected in (
        ("PRODUCT=24h", {"PRODUCT": 86400, "COLLECTION": 604800}),
        ("COLLECTION=off", {"PRODUCT": 86400, "COLLECTION": None}),
    ):
        assert terminal.run(deployment, f"merchant update shop --max-age {change}").stdout == "Updated shop.\n"
        assert ages("show shop") == expected
    refused = terminal.run(deployment, "merchant update shop --max-age PRODUCT=1w")
    assert refused.returncode == 1
    assert "--max-age 'PRODUCT=1w': give an entity type and an age, such as PRODUCT=90m" in " ".join(
        refused.stderr.split()
    )


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
    f"merchant add acme {BYOP} {URL} --currency ABC": "'ABC' is not a currency. Give its code of ISO 4217",
    "merchant update shop --currency gbp": "'gbp' is not a currency.",
    "webhook test shop": "shop has no webhook. Add one: product-gateway merchant update shop --webhook-url URL",
    "webhook test unknown": "There is no merchant unknown.",
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


def test_the_version_is_printed(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """The first thing that a report of a fault needs."""
    done = terminal.run(sqlite_deployment, "--version")
    assert (done.returncode, done.stdout) == (0, f"product-gateway {version()}\n")


def test_a_shell_completes_commands_and_values(sqlite_deployment: Deployment) -> None:
    """The script that --show-completion prints for the shell around it asks the command itself."""
    installed = Path(sys.executable).with_name("product-gateway")
    in_bash = ["bash", "-c", f"{shlex.quote(str(installed))} --show-completion; exit $?"]
    done = subprocess.run(in_bash, env=sqlite_deployment.environment, capture_output=True, text=True, check=True)
    assert "complete -o default -F _product_gateway" in done.stdout or "_complete" in done.stdout.lower()
    sqlite_deployment.environment |= {
        "_PRODUCT_GATEWAY_COMPLETE": "complete_bash",
        "COMP_WORDS": "x sync P",
        "COMP_CWORD": "2",
    }
    asked = subprocess.run([installed], env=sqlite_deployment.environment, capture_output=True, text=True, check=False)
    assert asked.stdout.split() == ["PRODUCT"], asked


def test_no_merchants_are_said_with_what_to_do(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """Standard output stays empty for scripts."""
    done = terminal.run(sqlite_deployment, "merchant list")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("There are no merchants. Add one: product-gateway merchant add MERCHANT")
    assert terminal.run(sqlite_deployment, "merchant list --json").stdout == "[]\n"


def test_a_merchant_without_a_token_is_added_with_a_warning(
    sqlite_deployment: Deployment, terminal: Terminal, token_file: Path
) -> None:
    """A product service may need none; most do."""
    done = terminal.run(sqlite_deployment, f"merchant add acme --platform byop --product-service-url {URL}")
    assert (done.returncode, done.stdout) == (0, "Added acme.\n")
    assert "Warning: acme has no product service token" in done.stderr
    assert "product-gateway merchant update acme --product-service-token-file FILE" in done.stderr
    more = f"merchant add more {BYOP} {URL} --product-service-token-file {token_file}"
    for line in (more, "merchant add bento --platform BENTO"):
        assert terminal.run(sqlite_deployment, line).stderr == ""


def test_a_failure_is_shown_with_its_code_and_detail(
    sqlite_deployment: Deployment, shop: Database, terminal: Terminal
) -> None:
    """The operator need not look for it elsewhere."""
    shop.call(enqueue, "shop", EntityType.PRODUCT)
    claim = shop.call(claims.claim, "a-worker", 30.0, 5, 2)
    assert claim is not None
    shop.call(claims.fail, claim, "PRODUCT_SERVICE_UNAUTHORIZED", "Page 1 could not be read.")
    shown = terminal.run(sqlite_deployment, "merchant show shop").stdout
    assert "  failure       PRODUCT_SERVICE_UNAUTHORIZED: Page 1 could not be read.\n" in shown
    as_json = json.loads(terminal.run(sqlite_deployment, "merchant show shop --json").stdout)
    assert as_json["catalog"]["PRODUCT"]["latestSync"]["failure"]["code"] == "PRODUCT_SERVICE_UNAUTHORIZED"


@pytest.mark.parametrize(("path", "status"), [("ok", 0), ("500", 1)])
def test_a_webhook_is_tested_with_a_signed_message(
    sqlite_deployment: Deployment, shop: Database, terminal: Terminal, path: str, status: int
) -> None:
    """Once, and nothing is recorded."""
    with webhook_receivers.receiving() as receiver:
        added = terminal.run(sqlite_deployment, f"merchant update shop --webhook-url {receiver.url}/{path}?key=s3cret")
        secret = added.stdout.split()[-1]
        done = terminal.run(sqlite_deployment, "webhook test shop")
        as_json = terminal.run(sqlite_deployment, "webhook test shop --json")
        first, _ = receiver.messages
    assert (done.returncode, as_json.returncode) == (status, status)
    answered = f"{receiver.url}/{path}?***"
    assert f"Delivered: {answered} answered 200.\n" == done.stdout if status == 0 else answered in done.stderr
    assert json.loads(as_json.stdout)["delivered"] is (status == 0)
    body = Webhook(secret).verify(first.body, first.headers)
    schema = documents.json_schema(documents.load(documents.GATEWAY), "TestEvent")
    jsonschema_rs.Draft4Validator(schema, validate_formats=True).validate(body)
    assert body["data"] == {"merchant": "shop"}
    assert shop.call(webhooks.latest, "shop", 5) == []
    sqlite_deployment.environment["PRODUCT_GATEWAY_ALLOW_PRIVATE_ADDRESSES"] = "false"
    assert "must be called with https" in terminal.run(sqlite_deployment, "webhook test shop").stderr
