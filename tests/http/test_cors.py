"""CORS: allowed origins can read responses in a browser; other clients see no difference."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from product_gateway import settings
from product_gateway.errors import SettingsError
from product_gateway.openapi import documents
from tests.support.contract import DOCUMENT, Gateway, gateway
from tests.support.deployment import API
from tests.support.operations import example_of

SHOP, ADMIN, STRANGER = "https://shop.example", "http://localhost:3000", "https://shop.example.evil.example"
EXPOSED = {"location", "retry-after", "link", "preference-applied", "x-request-id", "www-authenticate", "etag", "allow"}
REQUEST_HEADERS = {
    each["name"].lower()
    for path, _, operation in documents.operations(DOCUMENT)
    for each in documents.parameters(DOCUMENT, path, operation)
    if each["in"] == "header"
}
PREFLIGHT = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,idempotency-key"}
STAMP = {"x-content-type-options": "nosniff", "cache-control": "no-store"}


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with two allowed origins and a low rate limit."""
    yield from _gateway(sqlite_template, tmp_path_factory.mktemp("cors"), cors_origins=f"{SHOP}, {ADMIN}")


@pytest.fixture(scope="module")
def closed(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the default: no CORS."""
    yield from _gateway(sqlite_template, tmp_path_factory.mktemp("closed"))


def _gateway(template: Path, folder: Path, **more: str) -> Iterator[Gateway]:
    (folder / "gateway.db").write_bytes(template.read_bytes())
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}", rate_limit_per_merchant="3/day", **more) as served:
        for name in ("shop", "limited", "other"):
            served.add(name)
        yield served


def cors(answer: httpx2.Response) -> dict[str, str]:
    """Return the CORS headers of a response."""
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def ask(url: str, method: str = "GET", **headers: str) -> httpx2.Response:
    """Send a request with these headers."""
    return httpx2.request(method, url, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_without_configured_origins_there_are_no_cors_headers(closed: Gateway, path: str) -> None:
    """OPTIONS is then a method that no path has."""
    for headers in ({"Origin": SHOP}, {"Origin": "null"}, {"Origin": SHOP, **PREFLIGHT}):
        options = httpx2.options(closed.url + example_of(path), headers=headers)
        assert (options.status_code, cors(options), "Vary" in options.headers) == (405, {}, False)
        get = httpx2.get(closed.url + example_of(path), headers=headers)
        assert (cors(get), "Origin" in get.headers.get("Vary", "")) == ({}, False)


@pytest.mark.parametrize("origin", [SHOP, ADMIN])
@pytest.mark.parametrize("path", [*DOCUMENT["paths"], "/nowhere"])
def test_a_preflight_of_an_allowed_origin_lists_methods_and_headers(served: Gateway, path: str, origin: str) -> None:
    """The lists come from the spec, are valid for ten minutes, and never allow cookies."""
    known = DOCUMENT["paths"].get(path)
    answer = httpx2.options(served.url + (example_of(path) if known else path), headers={"Origin": origin, **PREFLIGHT})
    assert (answer.status_code, answer.content) == (204, b"")
    said = cors(answer)
    assert said.pop("access-control-allow-origin") == origin
    methods = {method.upper() for _, method, _ in documents.operations(DOCUMENT)} | {"HEAD"}
    assert set(said.pop("access-control-allow-methods").split(", ")) == methods
    allowed = set(said.pop("access-control-allow-headers").lower().split(", "))
    assert allowed >= {"authorization", "x-request-id", *REQUEST_HEADERS}
    assert {"idempotency-key", "if-none-match", "prefer"} <= REQUEST_HEADERS
    assert "cookie" not in allowed
    assert said == {"access-control-max-age": "600"}
    assert "Origin" in answer.headers["Vary"]
    assert STAMP.items() <= dict(answer.headers).items()
    assert answer.headers["X-Request-Id"]


def test_a_preflight_for_a_forbidden_method_lists_the_allowed_ones(served: Gateway) -> None:
    """The browser compares, and its console names the forbidden method or header."""
    asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "x-custom"}
    answer = httpx2.options(f"{served.url}{API}/products", headers={"Origin": SHOP, **asked})
    assert answer.status_code == 204
    assert "PATCH" not in answer.headers["Access-Control-Allow-Methods"]
    assert "x-custom" not in answer.headers["Access-Control-Allow-Headers"].lower()


@pytest.mark.parametrize(
    "origin", [STRANGER, "null", "http://shop.example", f"{SHOP}:8443", "https://SHOP.example", f"{SHOP}/", "", "*"]
)
def test_another_origin_gets_no_cors_headers(served: Gateway, origin: str) -> None:
    """Origins are compared exactly. Vary keeps caches from mixing responses."""
    for method, headers in (("GET", {}), ("OPTIONS", PREFLIGHT)):
        answer = httpx2.request(method, f"{served.url}/health/live", headers={"Origin": origin, **headers})
        assert (answer.status_code, cors(answer)) == ({"GET": 200, "OPTIONS": 405}[method], {})
        assert answer.headers["Vary"] == "Origin"


def test_a_request_without_origin_differs_only_in_vary(served: Gateway) -> None:
    """Caches need Vary also for requests without Origin (Fetch, CORS protocol and HTTP caches)."""
    answer = httpx2.get(f"{served.url}/openapi.yaml")
    assert (answer.status_code, cors(answer), answer.headers["Vary"]) == (200, {}, "accept-encoding, Origin")
    answer = httpx2.get(f"{served.url}/health/live")
    assert (answer.status_code, cors(answer), answer.headers["Vary"]) == (200, {}, "Origin")


def errors(served: Gateway) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield requests with the status that they get."""
    token = {"Authorization": f"Bearer {served.token('shop')}"}
    yield 202, {"method": "PUT", "url": f"{API}/sync/PRODUCT", "headers": token}
    yield 429, {"method": "PUT", "url": f"{API}/sync/PRODUCT", "headers": token}
    yield 401, {"method": "GET", "url": f"{API}/products"}
    reader = {"Authorization": f"Bearer {served.token('other', 'sync:read')}"}
    yield 403, {"method": "GET", "url": f"{API}/products", "headers": reader}
    yield 400, {"method": "GET", "url": f"{API}/products?page_size=0", "headers": token}
    yield 404, {"method": "GET", "url": f"{API}/products/none", "headers": token}
    yield 429, {"method": "GET", "url": f"{API}/products", "headers": token}
    yield 404, {"method": "GET", "url": "/nowhere"}
    yield 405, {"method": "PATCH", "url": f"{API}/products"}
    yield 405, {"method": "OPTIONS", "url": f"{API}/products"}
    yield 413, {"method": "PUT", "url": f"{API}/sync/PRODUCT", "content": b"x" * (1024 * 1024 + 1)}


def test_error_responses_have_cors_headers(served: Gateway) -> None:
    """Without them, an expired token looks like a "CORS error", and a page cannot read Retry-After."""
    with httpx2.Client(base_url=served.url, timeout=30) as browser:
        for status, request in errors(served):
            answer = browser.request(**request | {"headers": {**request.get("headers", {}), "Origin": ADMIN}})
            assert answer.status_code == status, (request["method"], request["url"], answer.text)
            said = cors(answer)
            assert said.pop("access-control-allow-origin") == ADMIN, status
            assert set(said.pop("access-control-expose-headers").lower().split(", ")) == EXPOSED
            assert said == {}
            assert answer.headers["Vary"] == "Origin"
            assert STAMP.items() <= dict(answer.headers).items()


def test_all_origins_means_a_star_without_credentials(sqlite_template: Path, tmp_path: Path) -> None:
    """This is safe for an API whose tokens browsers do not add by themselves."""
    for served in _gateway(sqlite_template, tmp_path, cors_origins="*"):
        get = httpx2.get(f"{served.url}/health/live", headers={"Origin": STRANGER, "Cookie": "a=b"})
        assert cors(get).pop("access-control-allow-origin") == "*"
        assert "access-control-allow-credentials" not in get.headers
        options = httpx2.options(f"{served.url}/health/live", headers={"Origin": "null", **PREFLIGHT})
        assert (options.status_code, options.headers["Access-Control-Allow-Origin"]) == (204, "*")


@pytest.mark.parametrize(
    "good", ["*", "https://shop.example", "https://shop.example,http://localhost:3000", "http://[::1]:3000 ,", "capacitor://localhost"]
)  # fmt: skip
def test_a_valid_origin_setting_is_accepted(good: str) -> None:
    """RFC 6454 §6.2; a trailing comma is ignored."""
    assert settings.load(cors_origins=good).cors_origins == good


@pytest.mark.parametrize(
    "bad",
    ["shop.example", "https://shop.example/", "https://shop.example/app", "https://Shop.example", "null", "https://*",
     "https://*.shop.example", "https://shop.example:443", "http://shop.example:80", "https://shop.example, *",
     "https://shop.example:0", "https://a@shop.example", "//shop.example", "https://shop.example?x"],
)  # fmt: skip
def test_an_invalid_origin_setting_stops_the_start(bad: str) -> None:
    """Such an origin would never match."""
    with pytest.raises(SettingsError, match=r"^PRODUCT_GATEWAY_CORS_ORIGINS: .* is not an origin as browsers send it"):
        settings.load(cors_origins=bad)
