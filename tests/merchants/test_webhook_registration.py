"""The operator's side of webhooks: registered, turned off and looked at by command."""

import re
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from product_gateway.auth.encryption import Secrets
from product_gateway.db import merchants, syncs, webhooks
from product_gateway.db.database import Database, connect
from product_gateway.db.enqueue import enqueue
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from tests.support.commands import Terminal, assert_refused
from tests.support.deployment import Deployment
from tests.support.webhook_receivers import SECRET

URL = "https://receiver.example/hook?key=of-the-receiver"
PRINTED = re.compile(r"The secret of its webhook, which is not shown again: (whsec_[A-Za-z0-9+/]{43}=)\n")
PRODUCT = EntityType.PRODUCT


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """For commands that end."""
    return Terminal(monkeypatch, capsys)


def opened(deployment: Deployment) -> Database:
    """The database of a deployment, to be closed."""
    return connect(deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"])


def stored(deployment: Deployment, merchant: str = "shop") -> tuple[str, str] | None:
    """The address and the plain secret of a merchant's webhook."""
    database = opened(deployment)
    found = database.call(webhooks.find, merchant)
    database.close()
    return None if found is None else (found.url, Secrets(deployment.settings()).decrypt(found.secret))


def test_a_secret_is_made_up_and_printed_once(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """A secret is created with the merchant or later, and never shown again. A changed address keeps its secret."""
    added = terminal.run(sqlite_deployment, f"merchant add shop --platform BENTO --webhook-url {URL}")
    printed = PRINTED.findall(added.stdout)
    assert added.returncode == 0, added.stderr
    assert len(printed) == 1
    assert stored(sqlite_deployment) == (URL, printed[0])
    shown = terminal.run(sqlite_deployment, "merchant show shop").stdout
    assert "https://receiver.example/hook?***" in shown
    for each in (*printed, "of-the-receiver"):
        assert each not in shown
    moved = terminal.run(sqlite_deployment, "merchant update shop --webhook-url https://new.example/")
    assert moved.stdout == "Updated shop.\n"
    assert stored(sqlite_deployment) == ("https://new.example/", printed[0])
    another = PRINTED.findall(terminal.run(sqlite_deployment, "merchant update shop --new-webhook-secret").stdout)
    assert stored(sqlite_deployment) == ("https://new.example/", *another)
    assert another != printed
    content = b"".join(path.read_bytes() for path in sqlite_deployment.folder.glob("gateway.db*"))
    for secret in (*printed, *another):
        assert secret.removeprefix("whsec_").encode() not in content


def test_a_secret_of_ones_own_is_read_from_a_file_and_never_printed(
    sqlite_deployment: Deployment, terminal: Terminal, tmp_path: Path
) -> None:
    """Operators can supply an existing secret, such as one from a vault or one shared by all environments."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    terminal.run(sqlite_deployment, "merchant add shop --platform BENTO")
    assert "webhook         -" in terminal.run(sqlite_deployment, "merchant show shop").stdout
    done = terminal.run(sqlite_deployment, f"merchant update shop --webhook-url {URL} --webhook-secret-file secret")
    assert (done.returncode, done.stdout) == (0, "Updated shop.\n")
    assert stored(sqlite_deployment) == (URL, SECRET)


def test_a_webhook_is_turned_off(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """And everything else about the merchant stays."""
    terminal.run(sqlite_deployment, f"merchant add shop --platform BENTO --webhook-url {URL}")
    assert terminal.run(sqlite_deployment, "merchant update shop --no-webhook").stdout == "Updated shop.\n"
    assert stored(sqlite_deployment) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--webhook-url ftp://receiver.example", "is not the address of a webhook"),
        ("--webhook-url https://user:hunter2@receiver.example", "is not the address of a webhook"),
        ("--webhook-url https://receiver.example/#top", "is not the address of a webhook"),
        (f"--webhook-url https://receiver.example/{2000 * 'x'}", "is not the address of a webhook"),
        ("--webhook-url http://receiver.example", "ALLOW_PRIVATE_ADDRESSES=true allows http://"),
        ("--new-webhook-secret", "shop has no webhook yet: add --webhook-url"),
        ("--webhook-secret-file good", "shop has no webhook yet: add --webhook-url"),
        ("--webhook-secret-file good --currency GBP", "shop has no webhook yet: add --webhook-url"),
        (f"--webhook-url {URL} --webhook-secret-file short", "does not hold the secret of a webhook"),
        (f"--webhook-url {URL} --webhook-secret-file bare", "does not hold the secret of a webhook"),
        (f"--webhook-url {URL} --webhook-secret-file good --new-webhook-secret", "not both"),
        (f"--webhook-url {URL} --no-webhook", "--no-webhook turns the webhook off"),
    ],
)
def test_what_could_not_work_is_refused_and_changes_nothing(
    sqlite_deployment: Deployment, terminal: Terminal, tmp_path: Path, options: str, words: str
) -> None:
    """Better than a merchant who is never told."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_ALLOW_PRIVATE_ADDRESSES"] = "false"
    for name, content in (("good", SECRET), ("short", "whsec_c2hvcnQ="), ("bare", SECRET.removeprefix("whsec_"))):
        (tmp_path / name).write_text(content)
    database = opened(sqlite_deployment)
    database.call(merchants.add, "shop", Platform.BENTO)
    refused = terminal.run(sqlite_deployment, f"merchant update shop {options}")
    assert_refused(refused, words)
    assert "hunter2" not in refused.stderr
    assert database.call(webhooks.find, "shop") is None
    assert database.call(merchants.get, "shop").currency is None
    database.close()


def test_the_last_messages_and_how_they_went_are_shown(sqlite_deployment: Deployment, terminal: Terminal) -> None:
    """Who asks why they were not told gets an answer from one command."""
    database = opened(sqlite_deployment)
    database.call(merchants.add, "shop", Platform.BYOP, "https://shop.example")
    database.call(webhooks.put, "shop", url=URL, secret="encrypted")
    for _ in range(3):
        database.call(enqueue, "shop", PRODUCT)
        database.call(syncs.cancel, "shop", PRODUCT)
    for number in range(2):
        held = database.call(webhooks.claim, 60.0, ())
        assert held is not None
        if number == 0:
            database.call(webhooks.succeed, held[0], 200)
        else:
            database.call(webhooks.retry, held[0], 500, "The receiver answered 500.", 3600.0)
    shown = terminal.run(sqlite_deployment, "merchant show shop").stdout
    told = [line for line in shown.splitlines() if "sync.cancelled" in line]
    assert re.search(r": PENDING after 0 attempts, next [0-9: -]+$", told[0])
    assert re.search(r": PENDING after 1 attempt, next [0-9: -]+\. The receiver answered 500$", told[1])
    assert re.search(r": DELIVERED after 1 attempt$", told[2])
    held = database.call(webhooks.claim, 60.0, ())
    assert held is not None
    database.call(webhooks.disable_gone, held[0], URL, 410, "The receiver answered 410.")
    shown = terminal.run(sqlite_deployment, "merchant show shop").stdout
    assert re.search(r"hook\?\*\*\*, turned off by a 410 at [0-9-]+ [0-9:]+ UTC\n", shown)
    database.close()


def test_a_changed_secret_is_shown_with_the_end_of_the_old_one(
    sqlite_deployment: Deployment, terminal: Terminal
) -> None:
    """Without either."""
    terminal.run(sqlite_deployment, f"merchant add shop --platform BENTO --webhook-url {URL}")
    assert "previous secret" not in terminal.run(sqlite_deployment, "merchant show shop").stdout
    terminal.run(sqlite_deployment, "merchant update shop --new-webhook-secret")
    shown = terminal.run(sqlite_deployment, "merchant show shop").stdout
    assert re.search(r"signed with the previous secret too until [0-9-]{10} [0-9:]{8} UTC", shown)
    assert "whsec_" not in shown


def test_a_secret_key_is_replaced_step_by_step(deployment: Deployment, tmp_path: Path) -> None:
    """As docs/deploy.md has it, with the real commands: in the end the old key is not needed any more."""
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    file = tmp_path / "secret.key"
    deployment.environment["PRODUCT_GATEWAY_SECRET_KEY_FILE"] = str(file)
    file.write_text(f"{old}\n")
    deployment.run("merchant", "add", "shop", "--platform", "BENTO", "--webhook-url", URL)
    file.write_text(f"{new}\n{old}\n")
    said = deployment.run("merchant", "reencrypt").stdout
    assert said == "Encrypted 1 secrets with the first key; 0 already were.\n"
    file.write_text(f"{new}\n")
    assert deployment.run("merchant", "reencrypt").stdout == "Encrypted 0 secrets with the first key; 1 already were.\n"
    file.write_text(f"{old}\n")
    refused = deployment.run("merchant", "reencrypt", check=False)
    assert refused.returncode == 1
    assert "No key in the key file reads 1: shop (webhook secret)." in refused.stderr
