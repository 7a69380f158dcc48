"""The pages over HTTP: served from the package alone, cached as long as possible, absent if disabled."""

import gzip
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import orjson
import pytest
import yaml

from product_gateway.docs_pages import pages
from product_gateway.docs_pages.pages import POLICIES, PageHandlers
from product_gateway.openapi import documents
from tests.support.contract import DOCUMENT, Gateway, error, gateway
from tests.support.deployment import Deployment
from tests.tools.vendored import shipped

PAGES = {path: name for name, path in pages.PATHS.items()}
FOREVER = "public, max-age=31536000, immutable"
each_page = pytest.mark.parametrize("path", PAGES)


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Start a gateway that validates its responses."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copy(sqlite_template, folder / "gateway.db")
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}") as served:
        yield served


@pytest.fixture
def reader(served: Gateway) -> Iterator[httpx2.Client]:
    """Return a client without a token that does not decode responses."""
    with served.client(None) as client:
        client.headers["Accept-Encoding"] = "identity"
        yield client


def links(client: httpx2.Client, path: str) -> list[str]:
    """Return the paths that a page links to or loads."""
    found = re.findall(r'(?:href|src|data-document)="([^"]*)"', client.get(path).text)
    return [httpx2.URL(f"http://gateway{path}").join(each).path for each in found]


def loaded(client: httpx2.Client) -> list[str]:
    """Return every file that the pages load, by path."""
    return sorted({each for path in PAGES for each in links(client, path) if each.startswith("/docs/assets/")})


@each_page
def test_every_link_of_a_page_works(reader: httpx2.Client, path: str) -> None:
    """None leads to another host: the pages must work offline."""
    text = reader.get(path).text
    assert not re.search(r"https?://", text), f"{path} names another host"
    for each in links(reader, path):
        assert reader.get(each).status_code == 200, f"{path} leads to {each}, which is not there"


@each_page
def test_a_page_is_revalidated_with_a_304(reader: httpx2.Client, path: str) -> None:
    """After an upgrade a browser shows the new page at once (RFC 9110 §13.1.2)."""
    first = reader.get(path)
    assert (first.status_code, first.headers["Content-Type"]) == (200, "text/html")
    assert first.headers["Cache-Control"] == "no-cache"
    assert {name: first.headers.get(name) for name in pages.ISOLATION} == pages.ISOLATION
    etag = first.headers["ETag"]
    for known in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        again = reader.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
        assert "Content-Type" not in again.headers
    assert reader.get(path, headers={"If-None-Match": 'W/"other"'}).status_code == 200


SPECS = ("/openapi.yaml", "/openapi-3.1.yaml", "/workflows.arazzo.yaml", "/product-service.yaml")


@pytest.mark.parametrize("path", SPECS)
def test_a_spec_is_revalidated_with_a_304(reader: httpx2.Client, path: str) -> None:
    """Tools that poll for a new version transfer nothing."""
    etag = reader.get(path).headers["ETag"]
    assert reader.get(path, headers={"If-None-Match": etag}).status_code == 304
    lines = [("If-None-Match", '"other"'), ("If-None-Match", etag)]
    assert reader.get(path, headers=lines).status_code == 304


def test_the_contract_of_product_services_is_served_as_written(reader: httpx2.Client) -> None:
    """A merchant who has only the package generates a service from it."""
    answer = reader.get("/product-service.yaml")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/yaml")
    assert answer.content == documents.path(documents.PRODUCT_SERVICE).read_bytes()
    for page in ("/", "/docs/product-service"):
        assert "/product-service.yaml" in links(reader, page)
    for page in ("/", "/docs", "/docs/try"):
        assert "/docs/product-service" in links(reader, page)


def test_the_workflows_name_the_spec_that_this_server_serves(reader: httpx2.Client) -> None:
    """A tool that loads the document by its URL finds the operations beside it."""
    answer = reader.get("/workflows.arazzo.yaml")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/yaml")
    (source,) = yaml.safe_load(answer.content)["sourceDescriptions"]
    assert source == {"name": "gateway", "url": "openapi.yaml", "type": "openapi"}
    written = documents.path(documents.WORKFLOWS).read_bytes()
    assert answer.content == written.replace(b"url: product-gateway.yaml", b"url: openapi.yaml")
    assert {"/workflows.arazzo.yaml", "/openapi-3.1.yaml"} <= set(links(reader, "/"))


def test_the_spec_is_compressed_for_clients_that_accept_gzip(reader: httpx2.Client) -> None:
    """It has more than 100 KB. Both forms have one entity tag."""
    plain = reader.get("/openapi.yaml", headers={"Accept-Encoding": "identity"})
    with reader.stream("GET", "/openapi.yaml", headers={"Accept-Encoding": "gzip"}) as packed:
        content = b"".join(packed.iter_raw())
    assert gzip.decompress(content) == plain.content
    assert len(content) * 3 < len(plain.content)
    head = reader.head("/openapi.yaml", headers={"Accept-Encoding": "gzip"})
    assert head.headers["Content-Length"] == str(len(content))
    assert plain.headers["ETag"] == packed.headers["ETag"] == head.headers["ETag"]
    for answer in (plain, packed, head):
        assert answer.headers["Vary"] == "accept-encoding"
    known = {"If-None-Match": plain.headers["ETag"], "Accept-Encoding": "gzip"}
    for method in ("GET", "HEAD"):
        unchanged = reader.request(method, "/openapi.yaml", headers=known)
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert "Content-Encoding" not in unchanged.headers
        assert unchanged.headers["Vary"] == "accept-encoding"


def test_files_with_a_hash_in_their_name_are_immutable_and_images_are_not(reader: httpx2.Client) -> None:
    """A megabyte of script is loaded once; an image may change under its name."""
    for path in loaded(reader):
        hashed = re.search(r"\.[0-9a-f]{16}\.", path) is not None
        cache = reader.get(path).headers["Cache-Control"]
        assert cache == (FOREVER if hashed else "no-cache"), f"{path}: {cache}"
        assert hashed is not path.endswith(".svg"), path


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("br;q=1.0, gzip;q=0.5", True),
        ("*", True),
        ("GZIP", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("x-gzip", True),
        ("gzip;q=0.001", True),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("identity;q=1.0, gzip;q=0.9", False),
        ("identity;q=0.1, *;q=0.2", True),
        ("gzip;level=9", False),
        ("gzip; q = 1", True),
        ("gzip;q=nonsense", False),
        ("gzip;q=0.000, *", False),
        ("br", False),
        ("", False),
    ],
)
def test_large_files_are_compressed_for_clients_that_accept_gzip(
    reader: httpx2.Client, accepted: str, packed: bool
) -> None:
    """A quarter of the bytes, and never a coding that the client does not accept (RFC 9110 §12.5.3)."""
    (path,) = (each for each in loaded(reader) if "redoc" in each)
    with reader.stream("GET", path, headers={"Accept-Encoding": accepted}) as answer:
        content = b"".join(answer.iter_raw())
    assert ("Content-Encoding" in answer.headers) is packed
    assert answer.headers["Vary"] == "accept-encoding"
    assert int(answer.headers["Content-Length"]) == len(content)
    plain = gzip.decompress(content) if packed else content
    assert hashlib.sha256(plain).digest() == hashlib.sha256(shipped("redoc.standalone.js")).digest()


@each_page
def test_a_page_may_load_from_its_own_server_only(reader: httpx2.Client, path: str) -> None:
    """Content of a merchant must not run a script or send data to other hosts."""
    policy = reader.get(path).headers["Content-Security-Policy"]
    assert policy == POLICIES[PAGES[path]]
    directives = dict(each.strip().split(" ", 1) for each in policy.split(";"))
    assert directives["default-src"] == directives["frame-ancestors"] == directives["base-uri"] == "'none'"
    assert "unsafe" not in policy
    assert not re.search(r"https?:|\*", policy)
    for kind, sources in directives.items():
        allowed = {"'self'", "'none'", "data:", "blob:"} | set(re.findall(r"'sha256-\S+'", sources))
        assert set(sources.split()) <= allowed, f"{kind} {sources}"
    assert "data:" not in directives.get("script-src", "")


def test_other_files_of_the_package_are_not_served(reader: httpx2.Client) -> None:
    """Neither unlisted names nor outdated hashes."""
    for name in ("redoc.standalone.js", "reference.js", "pages.0123456789abcdef.css", "VENDORED.toml", "__init__.py"):
        assert error(reader.get(f"/docs/assets/{name}"), 404) == "There is nothing at this path."
    error(reader.get("/docs/assets/..%2FVENDORED.toml"), 400)


async def test_the_example_of_an_asset_in_the_spec_exists() -> None:
    """Mocks, fuzzers and readers use it. If the file is gone, change the example."""
    example = DOCUMENT["components"]["parameters"]["AssetName"]["example"]
    assert (await PageHandlers(shown=True).get_docs_asset(example)).media_type == "image/svg+xml"
    assert f"(/docs/assets/{example})" in DOCUMENT["info"]["description"]


@pytest.mark.parametrize(
    ("asset", "spec", "variable"),
    [("/reference.", "/openapi.yaml", "GATEWAY"), ("/product-service.", "/product-service.yaml", "SERVICE")],
)
def test_a_reference_is_the_spec_and_code_samples(reader: httpx2.Client, asset: str, spec: str, variable: str) -> None:
    """The cached spec document stays unchanged."""
    (path,) = (each for each in loaded(reader) if asset in each)
    shown = orjson.loads(reader.get(path).text.removeprefix("const REFERENCE = ").removesuffix(";\n"))
    written = yaml.safe_load(reader.get(spec).content)
    for _, _, operation in documents.operations(shown):
        samples = operation.pop("x-codeSamples")
        assert [each["label"] for each in samples] == ["curl", "Python", "JavaScript", "Java"]
        assert all(variable in each["source"] for each in samples)
    for _, _, operation in documents.operations(written):
        operation.pop("x-codeSamples", None)
    assert shown == orjson.loads(orjson.dumps(written))
    assert "x-codeSamples" not in documents.load(documents.GATEWAY)["paths"]["/health/live"]["get"]


def test_the_pages_can_be_disabled(sqlite_deployment: Deployment) -> None:
    """The spec stays: it is a part of the API."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_DOCS"] = "false"
    with sqlite_deployment.serving() as url, httpx2.Client(base_url=url) as client:
        for path in (*PAGES, "/docs/assets/sync-states.svg"):
            assert error(client.get(path), 404) == "There is nothing at this path."
        for path in SPECS:
            assert client.get(path).status_code == 200
