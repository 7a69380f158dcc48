"""The HTTP contract: authentication, the order of checks, and error responses."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from product_gateway.auth.keys import SCOPES
from product_gateway.model.merchants import Platform
from product_gateway.openapi import documents
from product_gateway.telemetry.version import version
from tests.support.contract import DOCUMENT, Gateway, error, gateway
from tests.support.deployment import API
from tests.support.operations import Operation, each_operation, each_secured, example_of

UNKNOWN_SYNC = f"{API}/syncs/019364f0-7c1e-7a10-9a6b-3f1f5f0c9a11"
each_path = pytest.mark.parametrize("path", DOCUMENT["paths"])


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Start a gateway without a worker; `shop` has never synced."""
    folder = tmp_path_factory.mktemp("contract")
    shutil.copy(sqlite_template, folder / "gateway.db")
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}") as served:
        served.add("shop")
        served.add("bento", platform=Platform.BENTO)
        served.add("disabled")
        served.change("disabled", disabled=True)
        yield served


@pytest.fixture(scope="module")
def shop(served: Gateway) -> Iterator[httpx2.Client]:
    """Return a client of the merchant `shop`."""
    with served.of("shop") as client:
        yield client


def metadata_of(served: Gateway) -> str:
    """Return the parameter of a challenge that leads to the metadata (RFC 9728 §5.1)."""
    return f'resource_metadata="{served.url}/.well-known/oauth-protected-resource"'


@each_secured
def test_the_token_is_checked_first(served: Gateway, operation: Operation) -> None:
    """Without a token a client learns nothing, not even the parameters."""
    method, path, _ = operation
    challenge, metadata = 'Bearer realm="product-gateway"', metadata_of(served)
    with served.client(None) as anonymous:
        answer = anonymous.request(method, f"{path}?nonsense=1")
        assert "bearer token" in error(answer, 401)
        assert answer.headers["WWW-Authenticate"] == f"{challenge}, {metadata}"
        answer = anonymous.request(method, f"{path}?nonsense=1", headers={"Authorization": "Bearer nonsense"})
        assert "nonsense" not in error(answer, 401)
        described = f'error_description="{error(answer, 401)}"'
        assert answer.headers["WWW-Authenticate"] == f'{challenge}, error="invalid_token", {described}, {metadata}'


@each_secured
def test_the_scope_is_checked_second(served: Gateway, operation: Operation) -> None:
    """Each operation needs its own scope; the response names it (RFC 6750)."""
    method, path, document = operation
    needed = document["x-required-scope"]
    with served.of("bento", *(set(SCOPES) - {needed})) as other_scopes:
        answer = other_scopes.request(method, f"{path}?nonsense=1")
        assert needed in error(answer, 403)
        challenge = f'Bearer realm="product-gateway", error="insufficient_scope", scope="{needed}"'
        assert answer.headers["WWW-Authenticate"] == f"{challenge}, {metadata_of(served)}"
    with served.of("shop", needed) as this_scope:
        assert this_scope.request(method, path).status_code not in (401, 403)


@each_secured
def test_the_parameters_are_checked_third(served: Gateway, operation: Operation) -> None:
    """For any merchant."""
    method, path, _ = operation
    with served.of("bento") as client:
        assert "'nonsense'" in error(client.request(method, f"{path}?nonsense=1"), 400)


@each_secured
@pytest.mark.parametrize(
    ("merchant", "said"),
    [("bento", "bring your own platform"), ("disabled", "disabled"), ("unknown", "does not know its merchant")],
)
def test_the_merchant_is_checked_fourth(served: Gateway, operation: Operation, merchant: str, said: str) -> None:
    """Only BYOP merchants are served, before the state is read."""
    method, path, _ = operation
    with served.of(merchant) as client:
        answer = client.request(method, path)
    assert said in error(answer, 403)
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [f"{API}/sync/PRODUCT", UNKNOWN_SYNC, f"{UNKNOWN_SYNC}/problems", f"{API}/products/x", f"{API}/collections/x"],
)
def test_the_state_is_checked_last(shop: httpx2.Client, path: str) -> None:
    """A missing resource is 404 for merchants that might have it."""
    error(shop.get(path), 404)


@pytest.mark.parametrize(
    "entity_type", ["product", "Product", "PRODUCTS", "COLLECTIONS", "ALL", "%20PRODUCT", "%F0%9F%90%9F"]
)
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
def test_an_unknown_entity_type_is_a_bad_request(shop: httpx2.Client, method: str, entity_type: str) -> None:
    """400, not 404; the detail lists the types."""
    detail = error(shop.request(method, f"{API}/sync/{entity_type}"), 400)
    assert detail.startswith("Path parameter entityType: ")
    assert detail.endswith("should be 'PRODUCT' or 'COLLECTION'.")


@pytest.mark.parametrize(
    ("path", "about"),
    [
        (f"{API}/syncs/nonsense", "Path parameter syncId"),
        (f"{UNKNOWN_SYNC}0", "Path parameter syncId"),
        (f"{API}/products?page_size=0", "Query parameter page_size"),
        (f"{API}/products?page_size=501", "Query parameter page_size"),
        (f"{API}/products?page_size=ten", "Query parameter page_size"),
        (f"{API}/products?page_size=10&page_size=10", "page_size is given more than once"),
        (f"{API}/products?cursor=", "Query parameter cursor"),
        (f"{API}/products?pageSize=10", "'pageSize'"),
        (f"{API}/products/%00", "Path parameter productId"),
        (f"{API}/products/{'x' * 256}", "Path parameter productId"),
        (f"{API}/products/%FF", "UTF-8"),
        (f"{API}/products?cursor=%FF", "UTF-8"),
        (f"{API}/syncs?status=DONE", "Query parameter status"),
        (f"{API}/syncs?entityType=product", "Query parameter entityType"),
    ],
)
def test_a_bad_request_names_the_parameter(shop: httpx2.Client, path: str, about: str) -> None:
    """In one line, without the validator's text."""
    detail = error(shop.get(path), 400)
    assert about in detail
    assert "\n" not in detail
    assert len(detail) < 400


@pytest.mark.parametrize(
    "path", ["/docs/", "/product-gateway/v1", f"{API}/sync", f"{API}/sync/", f"{API}/sync/PRODUCT/",
             f"{API}/sync/PRODUCT/x", f"/{API}/sync/PRODUCT", f"{API}/products/", "/openapi.json", "/ui",
             "/product-gateway/v2/products"],
)  # fmt: skip
def test_an_unknown_path_is_not_found(shop: httpx2.Client, path: str) -> None:
    """With the error body and without a redirect."""
    assert error(shop.get(path), 404) == "There is nothing at this path."


@each_path
def test_an_unknown_method_is_405_with_a_complete_allow_header(shop: httpx2.Client, path: str) -> None:
    """RFC 9110 §10.2.1."""
    methods = {method.upper() for method in documents.METHODS if method in DOCUMENT["paths"][path]}
    methods |= {"HEAD"} if "GET" in methods else set()
    for method in {"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"} - methods:
        answer = shop.request(method, example_of(path))
        assert answer.headers["Allow"] == ", ".join(sorted(methods))
        if method != "HEAD":
            assert error(answer, 405) == f"This path answers to {', '.join(sorted(methods))}; not to {method}."


@each_operation
def test_a_large_body_is_refused_before_it_is_read(served: Gateway, operation: Operation) -> None:
    """No operation needs a body, and it must not fill the memory."""
    method, path, _ = operation
    with served.client(None) as client:
        sizes: Any = {"Content-Length": str(1024 * 1024 + 1)}
        answer = client.request(method, path, headers=sizes, content=b"x" * (1024 * 1024 + 1))
    assert error(answer, 413) == "A request body may have at most 1048576 bytes."


@pytest.mark.parametrize("path", [path for path, item in DOCUMENT["paths"].items() if "get" in item])
def test_head_is_get_without_the_body(shop: httpx2.Client, path: str) -> None:
    """RFC 9110 §9.3.2: the same status and headers."""
    same = {"X-Request-Id": "the-same"}
    head, get = shop.head(example_of(path), headers=same), shop.get(example_of(path), headers=same)
    assert (head.status_code, head.content) == (get.status_code, b"")
    changing = {"date"}
    assert {name: head.headers[name] for name in head.headers if name not in changing} == {
        name: get.headers[name] for name in get.headers if name not in changing
    }


def test_the_spec_is_served_as_it_was_written(served: Gateway) -> None:
    """Clients are generated from it. The media type is that of RFC 9512."""
    with served.client(None) as anonymous:
        answer = anonymous.get("/openapi.yaml")
    assert answer.headers["Content-Type"] == "application/yaml"
    assert answer.content == (Path(__file__).parents[2] / "openapi" / "product-gateway.yaml").read_bytes()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_health_needs_no_token_and_ignores_one(served: Gateway, path: str) -> None:
    """Orchestrators and load balancers have no token."""
    for token in (None, "nonsense"):
        with served.client(token) as client:
            assert client.get(path).json() == {"data": {"status": "ok", "version": version()}, "meta": {}}


@pytest.mark.parametrize(
    "authorization", ["Bearer", "Basic c2hvcDpzaG9w", "Token x", "bearer", "Bearer a b", "Bearer\tx"]
)
def test_other_authorization_headers_are_401(served: Gateway, authorization: str) -> None:
    """Never a 500."""
    with served.client(None) as anonymous:
        error(anonymous.get(f"{API}/products", headers={"Authorization": authorization}), 401)


def test_the_scheme_is_bearer_in_any_case(served: Gateway) -> None:
    """RFC 9110 §11.1: it is case-insensitive."""
    with served.client(None) as client:
        header = {"Authorization": f"bEARER {served.token('shop')}"}
        assert client.get(f"{API}/products", headers=header).status_code == 200


def test_two_authorization_headers_are_refused(served: Gateway) -> None:
    """A proxy and the server must not use different ones."""
    with served.client(None) as client:
        token = f"Bearer {served.token('shop')}"
        error(client.get(f"{API}/products", headers=[("Authorization", token), ("Authorization", token)]), 401)
