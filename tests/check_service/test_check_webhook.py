"""check-webhook: correct receivers pass, and each planted fault breaks its own rule."""

import base64
import hashlib
import hmac
import json
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from product_gateway import settings
from product_gateway.check_service.results import CheckResults, Result
from product_gateway.check_service.webhook_rules import RULES
from product_gateway.check_service.webhooks import check
from product_gateway.settings import Settings
from tests.support.commands import Done, Terminal, assert_refused
from tests.support.deployment import Deployment
from tests.support.webhook_receivers import SECRET

GUIDE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
DOCUMENT = (Path(__file__).parents[2] / "docs" / "check-webhook.md").read_text()
TIMEOUT = 20.0
OTHER = "whsec_" + base64.b64encode(b"the secret of another receiver").decode()
KNOWN = {"type", "timestamp", "specversion", "id", "source", "subject", "time", "data"}

Headers = Mapping[str, str]
Receive = Callable[[Headers, bytes], int]
"""Return the status for a message. Header names are in lower case."""


def with_library(headers: Headers, body: bytes, secret: str = SECRET) -> int:
    """A correct receiver."""
    try:
        Webhook(secret).verify(body, dict(headers))
    except WebhookVerificationError:
        return 400
    return 204


def as_in_the_guide(headers: Headers, body: bytes) -> int:
    """The receiver of docs/webhooks.md without a library. It lacks what a framework does: errors become 400."""
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL):
        exec(code, names)
    try:
        return 400 if names["by_hand"](SECRET, headers, body) is None else 200
    except (ValueError, KeyError):
        return 401


class Remembering:
    """A receiver that handles each id once."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, headers: Headers, body: bytes) -> int:
        status = with_library(headers, body)
        if status == 204 and headers["webhook-id"] in self.seen:
            return 200
        self.seen.add(headers.get("webhook-id", ""))
        return 202 if status == 204 else status


def sign(headers: Headers, body: bytes, message_id: str | None = None) -> str:
    """Return the signature of the message."""
    content = f"{message_id or headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(base64.b64decode(SECRET.removeprefix("whsec_")), content, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def is_recent(headers: Headers) -> bool:
    """Return whether the message is less than five minutes old."""
    return abs(time.time() - float(headers["webhook-timestamp"])) < 300


def by(condition: Callable[[Headers, bytes], bool]) -> Receive:
    """Return a receiver that accepts by the condition. Its own errors are refusals."""

    def receive(headers: Headers, body: bytes) -> int:
        try:
            return 200 if condition(headers, body) else 400
        except (ValueError, KeyError):
            return 400

    return receive


def unless(condition: Callable[[Headers, Any], bool], status: int) -> Receive:
    """Return a receiver that answers with the status to authentic events of which the condition is true."""

    def receive(headers: Headers, body: bytes) -> int:
        found = with_library(headers, body)
        return status if found == 204 and condition(headers, json.loads(body)) else found

    return receive


def slow(seconds: float) -> Receive:
    """Return a receiver that takes this long for one type."""

    def wait(headers: Headers, event: Any) -> bool:
        if event["type"] == "sync.failed":
            time.sleep(seconds)
        return False

    return unless(wait, 200)


def refuses_repeats() -> Receive:
    """Return a receiver that takes a repeat for an attack."""
    seen = Remembering()
    return lambda headers, body: 409 if seen(headers, body) == 200 else with_library(headers, body)


def accepts_errors(headers: Headers, body: bytes) -> int:
    """Log an error of the verification and go on."""
    try:
        return 200 if is_recent(headers) and sign(headers, body) in headers["webhook-signature"].split(" ") else 400
    except ValueError:
        return 200
    except KeyError:
        return 400


def crashes(headers: Headers, body: bytes) -> int:
    """Raise an error, which a framework answers with 500, for malformed headers."""
    return 500 if not headers.get("webhook-timestamp", "0").lstrip("-").isdigit() else with_library(headers, body)


def only_with_signature(headers: Headers, body: bytes) -> int:
    """Verify only what carries a signature."""
    return with_library(headers, body) if "webhook-signature" in headers else 200


def rewritten(headers: Headers, body: bytes) -> bool:
    """Verify the event after a framework has parsed and written it."""
    return is_recent(headers) and sign(
        headers, json.dumps(json.loads(body), separators=(",", ":")).encode()
    ) in headers["webhook-signature"].split(" ")


def signatures(headers: Headers) -> list[str]:
    return headers["webhook-signature"].split(" ")


FAULTS: dict[str, tuple[str, Callable[[], Receive]]] = {
    "another secret": ("accepts", lambda: lambda headers, body: with_library(headers, body, OTHER)),
    "always 410": ("accepts", lambda: lambda headers, body: 410),
    "a redirect": ("no-redirects", lambda: lambda headers, body: 308),
    "hangs for one type": ("in-time", lambda: slow(1.3)),
    "slow for one type": ("quick", lambda: slow(0.7)),
    "a type that it does not want": (
        "all-types",
        lambda: unless(lambda _, event: event["type"] == "catalog.stale", 422),
    ),
    "only types that it knows": ("unknown-type", lambda: unless(lambda _, event: "new" in event["type"], 422)),
    "only members that it knows": ("unknown-members", lambda: unless(lambda _, event: set(event) > KNOWN, 422)),
    "JSON that is written again": ("raw-body", lambda: by(rewritten)),
    "repeats are conflicts": ("repeated", refuses_repeats),
    "only the first signature": (
        "rotation",
        lambda: by(
            lambda headers, body: (
                is_recent(headers)
                and sign(headers, body) in [each for each in signatures(headers) if each.startswith("v1,")][:1]
            )
        ),
    ),
    "one signature": (
        "rotation",
        lambda: unless(lambda headers, _: len(headers["webhook-signature"].split("v1,")) > 2, 400),
    ),
    "version 1 alone": (
        "other-versions",
        lambda: unless(lambda headers, _: any(not each.startswith("v1,") for each in signatures(headers)), 400),
    ),
    "signature is optional": ("unsigned", lambda: only_with_signature),
    "any signature": (
        "wrong-secret",
        lambda: by(
            lambda headers, _: (
                is_recent(headers) and headers["webhook-signature"].startswith("v1,") and bool(headers["webhook-id"])
            )
        ),
    ),
    "the id of the body": (
        "changed",
        lambda: by(
            lambda headers, body: (
                is_recent(headers)
                and "webhook-id" in headers
                and sign(headers, body, json.loads(body).get("id", headers["webhook-id"])) in signatures(headers)
            )
        ),
    ),
    "any age": ("old", lambda: by(lambda headers, body: sign(headers, body) in signatures(headers))),
    "only an age limit": (
        "future",
        lambda: by(
            lambda headers, body: (
                float(headers["webhook-timestamp"]) > time.time() - 300 and sign(headers, body) in signatures(headers)
            )
        ),
    ),
    "errors are no refusals": ("malformed", lambda: accepts_errors),
    "errors are 500": ("clean-refusals", lambda: crashes),
}
# Findings that a fault must cause besides its own.
CAUSED = {
    "any age": {"future"},
    "hangs for one type": {"all-types", "quick"},
    "any signature": {"changed", "malformed", "other-versions"},
}


class Handler(BaseHTTPRequestHandler):
    """Answer with what `receive` returns."""

    receive: Receive

    def do_POST(self) -> None:
        """One message."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status = type(self).receive({name.lower(): value for name, value in self.headers.items()}, body)
        self.send_response_only(status)
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Nothing."""


@contextmanager
def serving(receive: Receive) -> Iterator[str]:
    """Run the receiver until the block ends; yield its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Receiver", (Handler,), {"receive": staticmethod(receive)}))
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook?key=theirs"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def made(timeout: float = TIMEOUT) -> Settings:
    """Settings of the command."""
    return settings.load(allow_private_addresses=True, webhook_timeout_seconds=timeout)


def failed(results: CheckResults) -> set[str]:
    """Return the codes of the broken rules."""
    return {each.rule.code for each in results.outcomes() if each.result is Result.FAILED}


@pytest.mark.parametrize(
    "receive", [with_library, as_in_the_guide, Remembering()], ids=["library", "guide", "remembers"]
)
def test_a_correct_receiver_passes_every_check(receive: Receive) -> None:
    """A finding would be a false alarm."""
    with serving(receive) as url:
        results = check(url, SECRET, "acme", made())
    assert failed(results) == set(), [each.findings for each in results.outcomes() if each.findings]
    assert {each.rule.code for each in results.outcomes()} == set(RULES)
    assert {each.result for each in results.outcomes()} == {Result.PASSED}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    """By its own rule and, where one fault breaks several, only those."""
    code, receiver = FAULTS[fault]
    timeout = 1.0 if code in ("in-time", "quick") else TIMEOUT
    with serving(receiver()) as url:
        results = check(url, SECRET, "acme", made(timeout))
    found = failed(results)
    assert code in found
    assert found <= {code} | CAUSED.get(fault, set()), [each.findings for each in results.outcomes() if each.findings]


def test_every_rule_has_a_planted_fault() -> None:
    """A rule that nothing breaks may check nothing."""
    assert {code for code, _ in FAULTS.values()} | {"reachable"} == set(RULES)


def test_a_receiver_that_is_away_gets_one_message() -> None:
    """The other messages would each wait for the timeout."""
    results = check("http://127.0.0.1:1/hook", SECRET, "acme", made())
    assert failed(results) == {"reachable"}
    assert results.notes == ["Messages sent: 1."]
    assert {each.result for each in results.outcomes()} == {Result.FAILED, Result.NOT_REACHED}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Runs commands in the test's process."""
    return Terminal(monkeypatch, capsys)


@pytest.fixture
def secret_file(sqlite_deployment: Deployment) -> Path:
    """The receiver's secret."""
    path = sqlite_deployment.folder / "hook.secret"
    path.write_text(SECRET + "\n")
    return path


def test_the_command_reports_and_its_exit_status_is_that_of_check_service(
    sqlite_deployment: Deployment, terminal: Terminal, secret_file: Path, tmp_path: Path
) -> None:
    """0 without an error, 1 with one; JUnit and JSON for CI. The secret and the URL's query are in no report."""
    files = f"--junit {tmp_path / 'r.xml'} --json {tmp_path / 'r.json'}"
    with serving(with_library) as url:
        done = terminal.run(sqlite_deployment, f"check-webhook {url} --secret-file {secret_file} {files}")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.startswith(f"Webhook receiver {url.partition('?')[0]}?***\nMessages sent: ")
    assert f"Checks passed: {len(RULES)}, skipped: 0, not reached: 0; errors: 0" in done.stdout
    assert 'name="product-gateway check-webhook"' in (tmp_path / "r.xml").read_text()
    assert {each["code"] for each in json.loads((tmp_path / "r.json").read_text())["checks"]} == set(RULES)

    with serving(FAULTS["any age"][1]()) as url:
        done = terminal.run(sqlite_deployment, f"check-webhook {url} --secret-file {secret_file} {files}")
        assert done.returncode == 1
        assert "ERROR old (receiver) A message that is ten minutes old is refused." in done.stdout
        example = DOCUMENT.partition("--allow-private-addresses\nWebhook receiver")[2].partition("\n```")[0]
        for line in example.splitlines()[1:]:
            shown = ".*".join(re.escape(part) for part in line.split("…"))
            assert re.search(f"^{shown}$", done.stdout, re.MULTILINE), line
        (curl,) = re.findall(r"old \(receiver\).*?\$ (curl [^\n]+)", done.stdout, re.DOTALL)
        again = subprocess.run(
            ["sh", "-c", curl], env={"URL": url, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
        )
        assert again.stdout.startswith("HTTP/1.0 200"), shlex.quote(curl)
    texts = done.stdout + (tmp_path / "r.xml").read_text() + (tmp_path / "r.json").read_text()
    assert SECRET.removeprefix("whsec_") not in texts
    assert "theirs" not in texts


def test_the_address_rule_is_that_of_check_service(
    sqlite_deployment: Deployment, terminal: Terminal, secret_file: Path
) -> None:
    """A private address needs the option. Wrong URLs and secrets are refused with a reason."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_ALLOW_PRIVATE_ADDRESSES"] = "false"

    def run(line: str) -> Done:
        return terminal.run(sqlite_deployment, f"check-webhook {line}")

    said = run(f"http://127.0.0.1:1/hook --secret-file {secret_file}")
    assert_refused(said, "without encryption", "--allow-private-addresses")
    private = run(f"https://127.0.0.1:1/hook --secret-file {secret_file}")
    assert private.returncode == 1
    assert "not on the public internet. Allow it with --allow-private-addresses" in " ".join(private.stdout.split())
    assert_refused(run(f"shop --secret-file {secret_file}"), "'shop'", "address of a webhook")
    secret_file.write_text("not a secret")
    assert_refused(run(f"https://shop.example --secret-file {secret_file}"), "whsec_")
    assert run("https://shop.example").returncode == 2


def test_the_documented_checks_are_the_rules() -> None:
    """Code, severity, what must hold, and the section of the guide, in the order of the report."""
    rows = [line.strip("| ").split(" | ") for line in DOCUMENT.splitlines() if line.startswith("| `")]
    assert rows == [[f"`{each.code}`", each.severity.value, each.must, each.source] for each in RULES.values()]
    headings = set(re.findall(r"^## (.+)$", GUIDE, re.MULTILINE))
    assert {each.source for each in RULES.values()} <= headings
