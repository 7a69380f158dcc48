"""Headers of every response: what protects the client and what reveals the server, for every operation and refusal."""

import collections
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx2
import pytest

from product_gateway.http.middleware.request_context import RequestContextMiddleware
from product_gateway.openapi import documents
from product_gateway.services import http_server, sockets
from tests.support import sample_api
from tests.support.contract import DOCUMENT, Gateway, gateway
from tests.support.deployment import API
from tests.support.issuer import PRIVATE, Issuer, signed
from tests.support.operations import SECURED, Operation, each_operation
from tests.support.raw_http import Wire

ONCE = {"x-content-type-options": "nosniff", "x-request-id": None, "cache-control": None}
TELLTALE = ("server", "x-powered-by", "via", "x-aspnet-version", "x-runtime")
INSIDES = ("Traceback", "site-packages", "uvicorn", "starlette", "connexion", "sqlalchemy", ".py", "SELECT ")

Headers = Iterable[tuple[str, str]]


def check(where: str, headers: Headers, body: str) -> None:
    """Assert that the response has the protective headers and reveals nothing."""
    by_name = collections.defaultdict(list)
    for name, value in headers:
        by_name[name.lower()].append(value)
    for name, wanted in ONCE.items():
        assert len(by_name[name]) == 1, f"{where}: {name} {by_name[name]}, which must be there once"
        assert wanted in (None, by_name[name][0]), f"{where}: {name}: {by_name[name][0]}"
    for name in TELLTALE:
        assert name not in by_name, f"{where} tells what serves it: {name}: {by_name[name]}"
    told = [each for each in INSIDES if each in body]
    assert not told, f"{where} tells of its insides: {told} in {body}"


def checked(answer: httpx2.Response, *, secured: bool = False) -> int:
    """Check a response and return its status. No shared cache may store a secured response."""
    where = f"{answer.request.method} {answer.request.url.path} {answer.status_code}"
    ours = "json" in answer.headers.get("Content-Type", "")  # pages and scripts may speak of what they like
    check(where, answer.headers.multi_items(), answer.text if ours else "")
    if secured or answer.status_code >= 400:
        has_tag = answer.status_code < 400 and "ETag" in answer.headers  # revalidated with the token of the request
        assert answer.headers["Cache-Control"] == ("private, no-cache" if has_tag else "no-store"), where
    return answer.status_code


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Start a gateway: `shop` may sync, and `limited` has reached its rate limit."""
    folder = tmp_path_factory.mktemp("surface")
    shutil.copy(sqlite_template, folder / "gateway.db")
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}", rate_limit_per_merchant="200/day") as served:
        for name in ("shop", "limited", "disabled"):
            served.add(name)
        served.change("disabled", disabled=True)
        yield served


def answered(served: Gateway, method: str, path: str) -> Iterator[httpx2.Response]:
    """Return the responses of the operation to every kind of client."""
    tokens = {name: f"Bearer {served.token(name)}" for name in ("shop", "disabled", "unknown")}
    with httpx2.Client(base_url=served.url, timeout=30) as client:
        for authorization in (None, "Bearer garbage", *tokens.values()):
            headers = {} if authorization is None else {"Authorization": authorization}
            yield client.request(method, path, headers=headers)
            yield client.request(method, f"{path}?nonsense=1", headers=headers)
            if method == "GET":
                yield client.head(path, headers=headers)
        yield client.request("PATCH", path)
        yield client.request("OPTIONS", path)
        yield client.request(method, f"{path}%FF")
        yield client.request(method, path, content=b"x" * (1024 * 1024 + 1))


@each_operation
def test_every_response_has_protective_headers_and_no_server_banner(served: Gateway, operation: Operation) -> None:
    """No content sniffing, no caching of a merchant's data, no version of the server."""
    method, path, _ = operation
    secured = operation in SECURED
    statuses = {checked(answer, secured=secured) for answer in answered(served, method, path)}
    assert statuses >= {400, 405, 413}
    assert statuses & {200, 202, 404, 429}
    assert not statuses & {500, 503}
    assert not secured or statuses >= {401, 403}


def test_refusals_outside_operations_have_the_same_headers(served: Gateway) -> None:
    """Unknown paths, too many requests, malformed HTTP."""
    with served.of("limited") as client:
        assert [checked(client.get(f"{API}/products"), secured=True) for _ in range(201)][-1] == 429
    with httpx2.Client(base_url=served.url) as client:
        for path in ("/nowhere", "/nowhere/../x", f"{API}/sync", "/openapi.json", "/.git/config", "/sandbox/clock"):
            for method in ("GET", "HEAD", "PUT", "OPTIONS"):
                assert checked(client.request(method, path)) == 404
    for request, status in {
        b"nonsense\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\n\r\n": 400,
        b"GET /nowhere HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000 + b"\r\n\r\n": 431,
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n": 400,
    }.items():
        with Wire(served.url) as wire:
            (reply,) = wire.until_end(request).replies
            assert reply.status == status
            check(f"{status} to {request[:40]!r}", reply.headers, reply.body.decode())
            assert reply.all("cache-control") == ["no-store"]


def test_a_500_has_the_same_headers_and_no_details() -> None:
    """The reason is only in the log."""
    app = RequestContextMiddleware(sample_api.app(), answered=lambda *_: None, access_log=False)
    listening = sockets.bind("127.0.0.1", 0)
    with http_server.HTTPServer(app, listening):
        answer = httpx2.get(f"{sockets.url_of(listening)}/boom")
        assert checked(answer) == 500
        assert "hunter2" not in answer.text
        assert httpx2.head(f"{sockets.url_of(listening)}/boom").status_code == 500


def test_an_overload_response_has_the_same_headers(
    published: tuple[Issuer, str], issuer: Issuer, sqlite_template: Path, tmp_path: Path
) -> None:
    """503 from a process that serves one request at a time."""
    shutil.copy(sqlite_template, tmp_path / "gateway.db")
    issuer.seconds = 30
    settings = {"jwks_url": published[1], "requests_at_once": "1"}
    with gateway(tmp_path, f"sqlite:///{tmp_path / 'gateway.db'}", **settings) as served:
        waiting = {"Authorization": f"Bearer {signed(PRIVATE, kid='one')}"}
        ask = threading.Thread(target=lambda: httpx2.get(f"{served.url}{API}/products", headers=waiting, timeout=30))
        ask.start()
        assert issuer.asked.wait(10)
        answer = httpx2.get(f"{served.url}{API}/products", headers=waiting)
        assert checked(answer) == 503
        assert (answer.headers["Retry-After"], answer.json()["error"][0]["status"]) == ("1", "503")
        assert httpx2.get(f"{served.url}/health/live").status_code == 200
        ask.join()
    issuer.reset()


def test_the_spec_documents_these_headers_for_every_response() -> None:
    told = 0
    for path, method, operation in documents.operations(DOCUMENT):
        for status, response in operation["responses"].items():
            names = documents.resolve(DOCUMENT, response)["headers"]
            for name in ("X-Request-Id", "X-Content-Type-Options", "Cache-Control"):
                assert name in names, f"{method} {path} {status}: put {name} into its headers in the spec"
                told += 1
    assert told > 300
