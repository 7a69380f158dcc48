"""Discovery: OAuth protected resource metadata (RFC 9728) for the URL that the client uses."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from product_gateway.auth.keys import SCOPES
from tests.support.contract import Gateway, error
from tests.support.deployment import API, Deployment
from tests.support.raw_http import Wire

WELL_KNOWN = "/.well-known/oauth-protected-resource"
ISSUER = "https://issuer.example/realms/shops"


@pytest.fixture(scope="module")
def plain(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway without a proxy, with tokens of its own."""
    yield from _gateway(sqlite_template, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def proxied(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that trusts its proxy, with an issuer and without pages."""
    more = {"trusted_proxies": "127.0.0.1", "public_base_path": "/gw", "jwt_issuer": ISSUER, "docs": "false"}
    yield from _gateway(sqlite_template, tmp_path_factory.mktemp("proxied"), **more)


def _gateway(template: Path, folder: Path, **more: str) -> Iterator[Gateway]:
    shutil.copy(template, folder / "gateway.db")
    deployment = Deployment(folder, f"sqlite:///{folder / 'gateway.db'}", **more)
    with deployment.serving() as url:
        yield Gateway(deployment, url)


def metadata(served: Gateway, path: str = WELL_KNOWN, **headers: str) -> dict[str, Any]:
    """Return the metadata, after a check of the response against the spec."""
    with served.client(None) as client:
        answer = client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_metadata_describes_the_resource(plain: Gateway, proxied: Gateway) -> None:
    """An issuer that is no URL cannot be an authorization server. Without pages there is no documentation."""
    assert metadata(plain) == {
        "resource": plain.url,
        "bearer_methods_supported": ["header"],
        "scopes_supported": sorted(SCOPES),
        "resource_name": "Product gateway",
        "resource_documentation": f"{plain.url}/docs",
    }
    assert metadata(proxied) == {
        "resource": f"{proxied.url}/gw",
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
        "scopes_supported": sorted(SCOPES),
        "resource_name": "Product gateway",
    }


def test_the_metadata_is_revalidated_like_other_documents(plain: Gateway) -> None:
    """HEAD has the headers of GET, and each host an entity tag of its own."""
    with plain.client(None) as client:
        first, head = client.get(WELL_KNOWN), client.head(WELL_KNOWN)
        assert (first.headers["Cache-Control"], first.headers["Content-Type"]) == ("no-cache", "application/json")
        assert (head.status_code, head.headers["ETag"], head.content) == (200, first.headers["ETag"], b"")
        known = {"If-None-Match": first.headers["ETag"]}
        assert client.get(WELL_KNOWN, headers=known).status_code == 304
        assert client.get(WELL_KNOWN, headers={**known, "Host": "other.example"}).status_code == 200


def test_a_client_finds_the_metadata_from_a_401_and_a_403(plain: Gateway) -> None:
    """`resource` is the beginning of the URL that was refused (RFC 9728 §3.3)."""
    for token, status in ((None, 401), ("nonsense", 401), (plain.token("shop", "sync:read"), 403)):
        with plain.client(token) as client:
            refused = client.get(f"{API}/products")
            assert refused.status_code == status
            (link,) = re.findall(r', resource_metadata="([^"]+)"$', refused.headers["WWW-Authenticate"])
            assert str(refused.url).startswith(client.get(link).json()["resource"] + "/")


@pytest.mark.parametrize("host", ["gateway.example", "gateway.example:8443", "[::1]:8080", "10.0.0.7"])
def test_the_resource_has_the_host_of_the_request(plain: Gateway, host: str) -> None:
    """A server has several names. The client compares the one that it used."""
    assert metadata(plain, Host=host)["resource"] == f"http://{host}"


@pytest.mark.parametrize("host", ['a"b', "a/b", "a@b", "a b", "a,b", "<a>", "a:b", "a\\b", "ä", "a" * 300, ""])
def test_an_unusable_host_is_not_repeated(plain: Gateway, host: str) -> None:
    """It could end the quoted string of a challenge, or lead to another server."""
    sent = {b"Host": host.encode("latin-1")}
    assert "Host" in error(httpx2.get(plain.url + WELL_KNOWN, headers=sent), 400)
    refused = httpx2.get(f"{plain.url}{API}/products", headers=sent)
    challenge = 'Bearer realm="product-gateway"'
    assert (refused.status_code, refused.headers.get("WWW-Authenticate")) in ((400, None), (401, challenge))


def test_http_1_0_without_a_host_gets_a_400(plain: Gateway) -> None:
    """The server's own address may be a private one."""
    with Wire(plain.url) as wire:
        (reply,) = wire.until_end(f"GET {WELL_KNOWN} HTTP/1.0\r\n\r\n".encode()).replies
    assert (reply.status, b"Host is missing" in reply.body) == (400, True)


def test_a_trusted_proxy_names_scheme_host_and_prefix(proxied: Gateway) -> None:
    """The public URL may have nothing in common with the address of the gateway."""
    said = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "shops.example", "X_Forwarded_Prefix": "/a/b"}
    assert metadata(proxied, **said)["resource"] == "https://shops.example/a/b"
    assert metadata(proxied, X_Forwarded_Host="a.example, b.example")["resource"] == "http://a.example/gw"
    refused = httpx2.get(
        f"{proxied.url}{API}/products", headers={name.replace("_", "-"): value for name, value in said.items()}
    )
    assert f'resource_metadata="https://shops.example/a/b{WELL_KNOWN}"' in refused.headers["WWW-Authenticate"]


def test_the_prefix_may_come_after_the_well_known_path(proxied: Gateway) -> None:
    """RFC 9728 §3.1 inserts the well-known path between host and prefix. Other prefixes are other resources."""
    assert httpx2.get(f"{proxied.url}{WELL_KNOWN}/gw").json() == metadata(proxied)
    said = {"X-Forwarded-Prefix": "/a/b"}
    found = httpx2.get(f"{proxied.url}{WELL_KNOWN}/a/b", headers=said)
    assert found.json()["resource"] == f"{proxied.url}/a/b"
    for path in (f"{WELL_KNOWN}/gw", f"{WELL_KNOWN}/a", f"{WELL_KNOWN}/a/b/"):
        assert httpx2.get(proxied.url + path, headers=said).status_code == 404


@pytest.mark.parametrize("forged", ["evil.example/", 'a"', "https://evil.example", ""])
def test_an_invalid_forwarded_host_is_ignored(proxied: Gateway, forged: str) -> None:
    """A proxy may pass on what a client has written."""
    assert metadata(proxied, X_Forwarded_Host=forged)["resource"] == f"{proxied.url}/gw"


def test_a_client_cannot_choose_the_public_url(plain: Gateway) -> None:
    """The headers count only from an address in TRUSTED_PROXIES."""
    said = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "evil.example", "X_Forwarded_Prefix": "/evil"}
    assert metadata(plain, **said)["resource"] == plain.url
