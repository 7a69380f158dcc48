"""A pytest plugin with the fixture `product_gateway_sandbox`, for tests of the gateway's clients. See docs/sandbox.md.

pytest imports plugins at every start. Slow imports are therefore in the functions that need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

SECONDS_TO_END = 15


class Answer(NamedTuple):
    """A response of the gateway. Header names are in lower case. `body` is the JSON, or None without a body."""

    status: int
    headers: dict[str, str]
    body: Any


class Sandbox:
    """A running sandbox. `who` selects one of its `tokens`: byop, otherByop, notByop, readOnly, expired."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.said = said
        self.base_url: str = said["baseUrl"]
        self.api_prefix: str = said["apiPrefix"]
        self.api_url = self.base_url + self.api_prefix
        self.tokens: dict[str, str] = said["tokens"]
        self.merchants: list[dict[str, str]] = said["merchants"]
        self.product_service_url: str = said["productServiceUrl"]
        self.product_service_token: str = said["productServiceToken"]
        self.webhook_secret: str | None = said.get("webhookSecret")

    def request(
        self, method: str, path: str, *, who: str = "byop", prefer: str | None = None, seconds: float = 30
    ) -> Answer:
        """Send a request. `path` is relative to the API's prefix, or complete as in a Location header."""
        import json
        import urllib.error
        import urllib.request

        url = self.base_url + path if path.startswith(self.api_prefix) else self.api_url + path
        headers = {"Authorization": f"Bearer {self.tokens[who]}", **({"Prefer": prefer} if prefer else {})}
        request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 - of our own
        try:
            reply = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=seconds)
        except urllib.error.HTTPError as error:
            reply = error
        with reply:
            content = reply.read()
            found = {name.lower(): value for name, value in reply.headers.items()}
            return Answer(reply.status, found, json.loads(content) if content else None)

    def advance(self, time: str) -> None:
        """Advance the sandbox's clock, such as by "72h", and take the tokens that are valid then."""
        import json
        import urllib.request

        body = json.dumps({"advance": time}).encode()
        request = urllib.request.Request(f"{self.base_url}/sandbox/clock", body, method="POST")  # noqa: S310 - of our own
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as reply:
            self.tokens.update(json.load(reply)["data"]["tokens"])

    def enqueue(self, entity_type: str = "PRODUCT", *, script: str | None = None, who: str = "byop") -> str:
        """Enqueue a sync and return its Location. `script` is a scenario, such as slow or failing."""
        answer = self.request("PUT", f"/sync/{entity_type}", who=who, prefer=script and f"sync={script}")
        if answer.status != 202:
            raise AssertionError(f"The sync was not enqueued: {answer.status} {answer.body}")
        return answer.headers["location"]

    def wait(self, sync: str, *, who: str = "byop", seconds: float = 60) -> dict[str, Any]:
        """Wait until the sync has ended and return it. `sync` is a Location, as `enqueue` returns it, or an id."""
        import threading
        import time

        path = sync if "/" in sync else f"/syncs/{sync}"
        until = time.monotonic() + seconds
        while True:
            answer = self.request("GET", path, who=who)
            if answer.status != 200:
                raise AssertionError(f"The sync cannot be seen: {answer.status} {answer.body}")
            found: dict[str, Any] = answer.body["data"]
            if found["status"] not in ("QUEUED", "IN_PROGRESS"):
                return found
            if time.monotonic() > until:
                raise AssertionError(f"The sync has not ended after {seconds} s: {found}")
            threading.Event().wait(0.05)


@pytest.fixture(scope="session")
def product_gateway_sandbox_options() -> list[str]:
    """Return options for `product-gateway sandbox`. A project can override this fixture."""
    return []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option --product-gateway-tolerance."""
    parser.getgroup("product-gateway").addoption(
        "--product-gateway-tolerance",
        metavar="SEED|MUTATION",
        help="let the sandbox change its responses in ways that the spec allows",
    )


@pytest.fixture(scope="session")
def product_gateway_sandbox(
    product_gateway_sandbox_options: list[str], pytestconfig: pytest.Config
) -> Iterator[Sandbox]:
    """Start one sandbox for all tests of the run, on a free port. It ends with the run, even after a crash.

    Below `product-gateway tolerance`, return the sandbox of that command instead.
    """
    import json
    import subprocess
    import sys
    import tempfile

    from product_gateway.settings import running_sandbox

    if running := running_sandbox():
        yield Sandbox(json.loads(running))
        return
    command = [sys.executable, "-m", "product_gateway", "sandbox", "--port", "0", "--until-eof"]
    if tolerance := pytestconfig.getoption("--product-gateway-tolerance"):
        command += ["--tolerance", tolerance]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(  # noqa: S603 - a fixed command
            [*command, *product_gateway_sandbox_options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                errors.seek(0)
                raise RuntimeError(f"The sandbox did not start:\n{errors.read()}")
            yield Sandbox(json.loads(line))
        finally:
            try:
                process.communicate(timeout=SECONDS_TO_END)  # closes its standard input, which ends it
            except subprocess.TimeoutExpired:
                process.kill()
                raise
