"""A server behind a proxy with a path prefix: all its links work through the proxy."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import httpx2
import orjson
import pytest
import yaml
from playwright.sync_api import expect

from product_gateway import settings
from product_gateway.docs_pages.pages import PATHS
from product_gateway.errors import SettingsError
from product_gateway.settings import is_path_prefix
from tests.support.browser import PATIENCE, chromium, wants_a_browser, window
from tests.support.contract import Gateway, gateway
from tests.support.deployment import API, Deployment, within
from tests.support.merchants import headers, open_shops
from tests.support.serving import serve
from tests.support.stripping_proxy import StrippingProxy

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
PAGES = tuple(PATHS.values())
TOKEN = "an-operators-token-of-some-length"


@dataclass
class Published:
    """A gateway, and the URL under which a proxy publishes it."""

    gateway: Gateway
    prefix: str
    url: str
    proxy: StrippingProxy | None = None

    @property
    def origin(self) -> str:
        """The URL of the gateway behind the proxy."""
        return self.url.removesuffix(self.prefix)

    def of(self, merchant: str) -> httpx2.Client:
        """Return a client of the merchant that knows only the proxy."""
        return httpx2.Client(headers={"Authorization": f"Bearer {self.gateway.token(merchant)}"}, timeout=30)


@pytest.fixture(scope="module", params=["setting", "header", "header of two proxies", "nginx"])
def published(
    request: pytest.FixtureRequest, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Published]:
    """A gateway that learns its prefix in one of several ways."""
    folder = tmp_path_factory.mktemp("prefix")
    shutil.copy(sqlite_template, folder / "gateway.db")
    how = request.param
    prefix = "/shops/gw" if how == "header of two proxies" else "/gw"
    told: dict[str, str] = {"public_base_path": prefix} if how == "setting" else {"trusted_proxies": "127.0.0.1"}
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}", **told) as served:
        served.add("shop")
        if how == "nginx":
            with nginx(folder, served.url, prefix) as url:
                yield Published(served, prefix, url)
            return
        said = {"setting": {}, "header": {"X-Forwarded-Prefix": "/gw/"}}.get(how, {"X-Forwarded-Prefix": "/shops, /gw"})
        proxy = StrippingProxy(served.url, prefix, said)
        with serve(proxy) as base:
            yield Published(served, prefix, base + prefix, proxy)
        assert proxy.outside == [], "something that the gateway sent leads out of its prefix"


@contextmanager
def nginx(folder: Path, target: str, prefix: str) -> Iterator[str]:
    """Run nginx as the proxy."""
    if NGINX is None:
        pytest.skip("nginx is not on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; server {{ listen 127.0.0.1:{port}; location {prefix}/ {{ proxy_pass {target}/;\n"
        f"proxy_set_header Host $http_host; proxy_redirect off; proxy_set_header X-Forwarded-Prefix {prefix};\n"
        "proxy_set_header X-Forwarded-For $remote_addr; } } }\n"
    )
    command = [NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as proxy:
        try:
            url = f"http://127.0.0.1:{port}{prefix}"
            within(20, lambda: answers(f"{url}/health/live"))
            yield url
        finally:
            proxy.terminate()


def answers(url: str) -> bool:
    """Return whether the URL answers."""
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def test_location_and_link_contain_the_prefix(published: Published) -> None:
    """A client resolves them against the URL that it has requested."""
    with published.of("shop") as client:
        url = f"{published.url}{API}/sync/PRODUCT"
        client.delete(url)  # another test's
        accepted = client.put(url)
        assert accepted.status_code == 202
        refused = client.put(url)
        assert refused.status_code == 429
        link = re.fullmatch(r'<([^>]+)>; rel="monitor"', refused.headers["Link"])
        assert link is not None
        for target in (accepted.headers["Location"], link[1]):
            assert target.startswith(f"{published.prefix}{API}/syncs/")
            found = client.get(urljoin(url, target))
            assert (found.status_code, found.json()["data"]["id"]) == (200, accepted.json()["data"]["id"])
        cancelled = client.delete(url)
        assert client.get(urljoin(url, cancelled.headers["Location"])).json()["data"]["status"] == "CANCELLED"


@pytest.mark.parametrize("slash", ["", "/"])
def test_each_link_of_each_page_works_through_the_proxy(published: Published, slash: str) -> None:
    """This covers pages, their assets, and images in the spec's text; with and without a trailing slash."""
    seen: set[str] = set()
    wanted = [f"{published.url}{path.rstrip('/')}{slash if path == '/' else ''}" for path in PAGES]
    if not slash:
        wanted.remove(published.url)  # proxies differ in what they do with it
    while wanted:
        url = wanted.pop()
        answer = httpx2.get(url)
        assert answer.status_code == 200, url
        found = re.findall(r'(?:href|src|data-document)="([^"]*)"', answer.text) if "html" in url_type(answer) else []
        if url.endswith("openapi.yaml"):
            found = re.findall(r"!\[[^]]*\]\(([^)]+)\)", answer.text)
            assert found
        for each in (urljoin(url, each) for each in found):
            assert each.startswith(f"{published.url}/"), f"{url} leads to {each}"
            if each not in seen:
                seen.add(each)
                wanted.append(each)
    assert {f"{published.url}/openapi.yaml", f"{published.url}/docs/assets/sync-states.svg"} <= seen


def url_type(answer: httpx2.Response) -> str:
    return str(answer.headers["Content-Type"])


@pytest.mark.parametrize("name", ["openapi.yaml", "openapi-3.1.yaml"])
def test_the_served_spec_names_the_public_server_url(published: Published, name: str) -> None:
    """Generated clients use that URL. Each prefix has its own ETag."""
    url = f"{published.url}/{name}"
    answer = httpx2.get(url)
    document = yaml.safe_load(answer.text)
    (server,) = document["servers"]
    base = urljoin(url, server["url"])
    assert base == published.url
    with published.of("shop") as client:
        for path in ("/health/live", f"{API}/products"):
            assert path in document["paths"]
            assert client.get(base + path).status_code == 200
    assert httpx2.get(url, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    if published.proxy is not None and published.proxy.headers:
        direct = httpx2.get(f"{published.gateway.url}/{name}")
        assert yaml.safe_load(direct.text)["servers"][0]["url"] == "/"
        assert direct.headers["ETag"] != answer.headers["ETag"]


def test_the_oauth_metadata_names_the_public_url(published: Published) -> None:
    """A client compares `resource` with the URL that it uses (RFC 9728 §3.3), and a 401 leads it there."""
    refused = httpx2.get(f"{published.url}{API}/products")
    (link,) = re.findall(r'resource_metadata="([^"]+)"', refused.headers["WWW-Authenticate"])
    assert httpx2.get(link).json()["resource"] == published.url
    listed = httpx2.get(f"{published.url}/llms.txt").text
    for each in re.findall(r"\]\(([^)#]+)", listed):
        assert httpx2.get(urljoin(f"{published.url}/llms.txt", each)).status_code == 200, each


def test_the_commands_work_through_the_proxy(published: Published, tmp_path: Path) -> None:
    """`product-gateway sync` follows Location."""
    (tmp_path / "token").write_text(published.gateway.token("shop"))
    asked = ("PRODUCT", "--url", published.url, "--token-file", str(tmp_path / "token"))
    said = published.gateway.deployment.run("status", *asked, check=False)
    assert "no sync has succeeded yet" in said.stdout, said.stderr
    begun = published.gateway.deployment.run("sync", *asked, check=False)
    assert begun.returncode == 0, begun.stderr


@wants_a_browser
def test_the_pages_work_in_a_browser(published: Published) -> None:
    """Nothing is missing, and requests from the try-it-out page go through the proxy."""
    with chromium() as browser:
        with window(browser, f"{published.url}/docs") as page:
            picture = page.locator("img[src$='sync-states.svg']")
            expect(picture).to_be_attached(timeout=PATIENCE)
            assert picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 0
        with window(browser, f"{published.url}/docs/try") as page:
            operation = page.locator("[id$=-getLiveness]")
            operation.locator(".opblock-summary-control").click(timeout=PATIENCE)
            operation.get_by_role("button", name="Try it out").click()
            operation.get_by_role("button", name="Execute").click()
            answer = operation.locator(".live-responses-table .response-col_status").last
            expect(answer).to_contain_text("200", timeout=PATIENCE)
            expect(operation.locator(".request-url")).to_contain_text(f"{published.url}/health/live")


FORGED = [
    "//evil.example", "https://evil.example", "/gw/../..", "/..", "/./gw", "gw", "/gw?x=", "/gw#", "/g w", "/gw\\x",
    "/%2e%2e", "/gw>;rel=x", '/"onload="', "/gw,//evil.example", "/a,evil", "/" + "a" * 300, "/gw//b", "/g\xfc",
]  # fmt: skip


@pytest.fixture(scope="module")
def believing(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a gateway that trusts its proxy."""
    folder = tmp_path_factory.mktemp("believing")
    shutil.copy(sqlite_template, folder / "gateway.db")
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}", trusted_proxies="127.0.0.1") as served:
        yield served.url


@pytest.mark.parametrize("forged", FORGED)
def test_an_invalid_prefix_is_ignored(believing: str, forged: str) -> None:
    """A trusted proxy may pass on a forged header."""
    said = {b"x-forwarded-prefix": forged.encode("latin-1")}
    answer, page = (httpx2.get(believing + path, headers=said) for path in ("/openapi.yaml", "/"))
    assert yaml.safe_load(answer.text)["servers"][0]["url"] == "/"
    assert 'href="docs"' in page.text


def test_a_client_cannot_choose_the_prefix(sqlite_deployment: Deployment) -> None:
    """The header counts only from an address in TRUSTED_PROXIES."""
    for trusted in ("", "192.0.2.0/24"):
        sqlite_deployment.environment["PRODUCT_GATEWAY_TRUSTED_PROXIES"] = trusted
        sqlite_deployment.environment["PRODUCT_GATEWAY_PUBLIC_BASE_PATH"] = "/own"
        with sqlite_deployment.serving() as url:
            answer = httpx2.get(f"{url}/openapi.yaml", headers={"X-Forwarded-Prefix": "/evil"})
            assert yaml.safe_load(answer.text)["servers"][0]["url"] == "/own"


def test_the_proxys_prefix_overrides_the_setting(sqlite_deployment: Deployment) -> None:
    """An empty prefix from the proxy overrides the setting, too."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_TRUSTED_PROXIES"] = "127.0.0.1"
    sqlite_deployment.environment["PRODUCT_GATEWAY_PUBLIC_BASE_PATH"] = "/own"
    with sqlite_deployment.serving() as url:
        for said, server in (("/gw", "/gw"), ("/", "/"), ("", "/"), ("gw", "/own")):
            answer = httpx2.get(f"{url}/openapi.yaml", headers={"X-Forwarded-Prefix": said})
            assert yaml.safe_load(answer.text)["servers"][0]["url"] == server


WRONG = ["gw", "/", "/gw/", "//gw", "/gw//x", "/..", "/a/./b", "/gw?", "/g w", "/" + "a" * 300]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ["public_base_path", "operations_base_path"])
def test_an_invalid_base_path_stops_the_start(name: str, wrong: str) -> None:
    """It would appear in each Location."""
    with pytest.raises(SettingsError, match=f"{name.upper()}: .* is not a path prefix. Write it like /gw"):
        settings.load(**{name: wrong})
    for good in ("/gw", "/a.b/c_d~e-f/..."):
        assert is_path_prefix(good)


@pytest.mark.parametrize("how", ["setting", "header"])
def test_the_monitor_works_behind_a_prefix(sqlite_deployment: Deployment, tmp_path: Path, how: str) -> None:
    """This covers links, session, actions, and the Location of a new sync."""
    (tmp_path / "operator.token").write_text(TOKEN)
    sqlite_deployment.environment["PRODUCT_GATEWAY_OPERATOR_TOKEN_FILE"] = str(tmp_path / "operator.token")
    told = {"setting": "OPERATIONS_BASE_PATH", "header": "TRUSTED_PROXIES"}[how]
    sqlite_deployment.environment[f"PRODUCT_GATEWAY_{told}"] = {"setting": "/ops", "header": "127.0.0.1"}[how]
    open_shops(sqlite_deployment, "http://127.0.0.1:1", ["shop"])
    with sqlite_deployment.process("serve", "--port", "0") as process:
        sync = httpx2.put(f"{process.url()}{API}/sync/PRODUCT", headers=headers(sqlite_deployment, "shop")).json()[
            "data"
        ]
        proxy = StrippingProxy(
            process.operations_url(), "/ops", {"X-Forwarded-Prefix": "/ops"} if how == "header" else {}
        )
        with serve(proxy) as base, httpx2.Client(timeout=30) as operator:
            url = f"{base}/ops/monitor"
            assert operator.get(url).status_code == 401
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            over_tls = httpx2.post(f"{url}/session", headers={**bearer, "X-Forwarded-Proto": "https"})
            assert ("Secure" in over_tls.headers["Set-Cookie"]) is (how == "header")  # only then is the proxy trusted
            assert operator.post(f"{url}/session", headers=bearer).status_code == 200
            ours = {"Origin": base}
            for path in ("", f"/syncs/shop/{sync['id']}"):
                page = operator.get(url + path)
                assert page.status_code == 200
                for each in re.findall(r'(?:href|src|action)="([^"]*)"', page.text):
                    assert operator.get(urljoin(url + path, each)).status_code == 200
                (act,) = set(re.findall(r'data-act="([^"]*cancel)"', page.text))
                act = urljoin(url + path, act)
            assert operator.post(act, headers=ours).status_code == 200
            again = operator.post(act.replace("/cancel", "/run-again"), headers=ours)
            assert again.status_code == 201
            assert operator.get(urljoin(act, again.headers["Location"])).status_code == 200
            assert operator.delete(f"{url}/session", headers=ours).status_code == 200
            assert operator.get(url).status_code == 401
        assert proxy.outside == []


def test_a_sandbox_works_behind_a_prefix(tmp_path: Path) -> None:
    """Clients can be tested through their real proxy."""
    deployment = Deployment(tmp_path, "", public_base_path="/gw", log_format="json")
    with deployment.process("sandbox", "--port", "0") as process:
        said = orjson.loads(str(within(30, lambda: first_line(process.log))))
        with serve(StrippingProxy(said["baseUrl"], "/gw")) as base:
            url = f"{base}/gw{API}/sync/PRODUCT"
            bearer = {"Authorization": f"Bearer {said['tokens']['byop']}", "Prefer": "sync=slow"}
            accepted = httpx2.put(url, headers=bearer)
            assert accepted.status_code == 202
            assert httpx2.get(urljoin(url, accepted.headers["Location"]), headers=bearer).status_code == 200


def first_line(path: Path) -> str | None:
    """Wait for the whole line in a log."""
    time.sleep(0.05)
    said = path.read_text()
    return said.partition("\n")[0] if "\n" in said else None
