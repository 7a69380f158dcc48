"""Response framing: a response without a body ends with its headers, and its connection stays usable."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from product_gateway.openapi import documents
from product_gateway.services import http_server, sockets
from tests.support.contract import DOCUMENT, Gateway, gateway
from tests.support.deployment import Deployment
from tests.support.operations import example_of
from tests.support.raw_http import Conversation, Wire

SHOP = "https://shop.example"
BODILESS = (204, 304)
CHANGING = ("date", "x-request-id")


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with CORS. A broken response would leave an error in its log."""
    folder = tmp_path_factory.mktemp("framing")
    shutil.copy(sqlite_template, folder / "gateway.db")
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}", cors_origins=SHOP) as served:
        served.add("shop")
        yield served
        log = "".join(path.read_text() for path in folder.glob("serve-*.log"))
        assert "Traceback" not in log
        assert " ERROR " not in log


def request(method: str, path: str, **headers: str) -> bytes:
    """Return a request that keeps its connection open."""
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def exchanged(url: str, *requests: bytes, pipelined: bool = False) -> Conversation:
    """Send requests on one connection, one after the other or pipelined."""
    methods = [each.partition(b" ")[0].decode() for each in requests]
    with Wire(url, methods) as wire:
        if pipelined:
            return wire.replies(len(requests), b"".join(requests))
        for number, each in enumerate(requests, 1):
            wire.replies(number, each)
        return wire.said


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("path", [*map(example_of, DOCUMENT["paths"]), "/nowhere"])
def test_a_preflight_leaves_its_connection_open(served: Gateway, path: str, pipelined: bool) -> None:
    """A browser sends the request itself on the same connection."""
    asked = {"Origin": SHOP, "Access_Control_Request_Method": "PUT", "Access_Control_Request_Headers": "authorization"}
    preflight = request("OPTIONS", path, **asked)
    live = request("GET", "/health/live", Origin=SHOP)
    said = exchanged(served.url, preflight, live, preflight, live, pipelined=pipelined)
    assert (said.statuses, said.end) == ([204, 200, 204, 200], "open")
    for reply in (said.replies[0], said.replies[2]):
        assert not reply.closes
        assert reply.all("content-type") == reply.all("transfer-encoding") == []
        assert reply.all("access-control-allow-origin") == [SHOP]


def etags(url: str, paths: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the paths whose responses have an ETag, with the ETag."""
    for path in paths:
        answer = httpx2.get(url + path)
        if "ETag" in answer.headers:
            yield path, answer.headers["ETag"]


def test_a_304_leaves_its_connection_open(served: Gateway) -> None:
    """Pages, assets and the spec of the gateway."""
    pages = ["/", "/docs", "/docs/try", "/openapi.yaml", "/docs/assets/icon.svg"]
    known = list(etags(served.url, pages))
    assert [path for path, _ in known] == pages
    for method in ("GET", "HEAD"):
        for path, etag in known:
            conditional = request(method, path, If_None_Match=etag)
            said = exchanged(served.url, conditional, conditional, request("GET", "/health/live"), pipelined=True)
            assert (said.statuses, said.end) == ([304, 304, 200], "open"), (method, path)


def get_paths(document: documents.Document) -> list[str]:
    """Return each path with GET except the endless stream, filled with examples."""
    return [
        example_of(path, document)
        for path, method, operation in documents.operations(document)
        if method == "get" and operation["operationId"] != "streamMonitor"
    ]


def assert_head_is_get_without_its_body(url: str, paths: list[str], **headers: str) -> None:
    """Check that HEAD has the status and headers of GET (RFC 9110 §9.3.2) and keeps the connection open."""
    for path in paths:
        get, head = (request(method, path, Accept_Encoding="identity", **headers) for method in ("GET", "HEAD"))
        said = exchanged(url, get, head, head, get)
        assert said.end == "open", path
        first, *others = said.replies
        for each in others:
            assert each.status == first.status, path
            assert stable(each.headers) == stable(first.headers), path
        assert (others[0].body, others[1].body) == (b"", b""), path


def stable(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers that do not change between two responses to the same request."""
    return sorted((name, value) for name, value in headers if name not in CHANGING)


def test_head_has_the_status_and_headers_of_get(served: Gateway) -> None:
    """With a token operations answer, without it refusals do."""
    paths = [*get_paths(DOCUMENT), "/nowhere"]
    assert_head_is_get_without_its_body(served.url, paths)
    assert_head_is_get_without_its_body(served.url, paths, Authorization=f"Bearer {served.token('shop')}")


def test_head_and_304_of_the_operations_port_leave_the_connection_open(sqlite_deployment: Deployment) -> None:
    """/metrics is not compared: its length changes from one response to the next."""
    with sqlite_deployment.process("worker") as worker:
        url = worker.operations_url()
        paths = [each for each in get_paths(documents.load(documents.OPERATIONS)) if each != "/metrics"]
        host = url.removeprefix("http://")
        icon = [*etags(url, ["/monitor/assets/icon.svg"])]
        assert len(icon) == 1
        for path, etag in icon:
            asked = (request("GET", path, If_None_Match=etag), request("HEAD", "/metrics"))
            said = exchanged(url, *(each.replace(b"gateway", host.encode()) for each in asked))
            assert (said.statuses, said.end) == ([304, 200], "open")
        for path in paths:
            said = exchanged(url, *(request(each, path).replace(b"gateway", host.encode()) for each in ("HEAD", "GET")))
            assert said.end == "open", path
            assert said.replies[0].status == said.replies[1].status, path
            assert said.replies[0].body == b"", path


async def _broken(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that sends a body and its length with the status in the path."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    status = int(scope["path"][1:])
    headers = [(b"content-length", b"2"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"O", "more_body": True})
    await send({"type": "http.response.body", "body": b"K"})


@pytest.mark.parametrize("status", BODILESS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
def test_a_body_that_the_status_does_not_allow_is_removed(
    status: int, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The fault is logged, and the connection stays usable."""
    with sockets.bind("127.0.0.1", 0) as listening, http_server.HTTPServer(_broken, listening):
        each = request(method, f"/{status}")
        said = exchanged(sockets.url_of(listening), each, request("GET", "/200"), each, pipelined=True)
        assert (said.statuses, said.end) == ([status, 200, status], "open")
        assert said.replies[1].body == b"OK"
    assert f"A response to {method} had a body, which its status does not allow." in caplog.text
