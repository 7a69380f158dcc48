"""A client in Python, tested against a sandbox: needs product-gateway and pytest. Run it with: pytest test_client.py"""

import json
import time
import urllib.error
import urllib.request


class SyncFailed(Exception):
    """The sync ended, but not well."""


class Client:
    """What is tested; in your project it is imported."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], dict]:
        """Status, headers and body."""
        headers = {"Authorization": f"Bearer {self.token}", **headers}
        request = urllib.request.Request(self.url + path, method=method, headers=headers)
        try:
            reply = urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            reply = error
        with reply:
            return reply.status, {name.lower(): value for name, value in reply.headers.items()}, json.load(reply)

    def wait(self, path: str) -> dict:
        """The sync, when it has succeeded."""
        status, headers, body = self.ask("GET", path)
        while "retry-after" in headers:
            time.sleep(int(headers["retry-after"]))
            status, headers, body = self.ask("GET", path)
        if status != 200 or body["data"]["status"] != "SUCCEEDED":
            raise SyncFailed(body["data"]["failure"]["code"])
        return body["data"]


def test_waits_for_a_sync_that_is_active(product_gateway_sandbox):
    sandbox = product_gateway_sandbox
    client = Client(sandbox.base_url, sandbox.tokens["byop"])
    put = ("PUT", f"{sandbox.api_prefix}/sync/PRODUCT")

    status, accepted, _ = client.ask(*put, Prefer="sync=slow")
    assert status == 202

    status, refused, body = client.ask(*put)
    assert status == 429
    assert int(refused["retry-after"]) >= 1
    assert body["error"][0]["title"] == "Too Many Requests"

    assert client.wait(accepted["location"])["result"]["created"] == 24
    status, _, body = client.ask("GET", f"{sandbox.api_prefix}/sync/PRODUCT")
    assert (status, body["data"]["numRecords"]) == (200, 24)


def test_meets_a_gateway_that_is_away(product_gateway_sandbox):
    sandbox = product_gateway_sandbox
    client = Client(sandbox.base_url, sandbox.tokens["byop"])
    status, headers, body = client.ask("GET", f"{sandbox.api_prefix}/products", Prefer="code=503")
    assert status == 503
    assert int(headers["retry-after"]) >= 1
    assert body["error"][0]["status"] == "503"


def test_says_why_a_sync_failed(product_gateway_sandbox):
    sandbox = product_gateway_sandbox
    client = Client(sandbox.base_url, sandbox.tokens["otherByop"])
    _, accepted, _ = client.ask("PUT", f"{sandbox.api_prefix}/sync/PRODUCT", Prefer="sync=failing")
    try:
        client.wait(accepted["location"])
    except SyncFailed as failed:
        assert str(failed) == "PRODUCT_SERVICE_ERROR"
    else:
        raise AssertionError("it should have failed")


def test_the_fixture_helps_where_the_client_is_not_what_is_tested(product_gateway_sandbox):
    sync = product_gateway_sandbox.enqueue("COLLECTION", script="rejecting")
    assert product_gateway_sandbox.wait(sync)["result"]["rejected"] == 2
    answer = product_gateway_sandbox.request("PUT", "/sync/PRODUCT", who="readOnly")
    assert answer.status == 403
