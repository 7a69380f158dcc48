"""The guides as Markdown, and /llms.txt: from the package alone, without a link that leads nowhere."""

import gzip
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx2
import pytest

from product_gateway.docs_pages import guides
from tests.support import markdown
from tests.support.contract import Gateway, error
from tests.support.deployment import Deployment
from tests.support.markdown import TOP

GUIDES = guides.load()


@pytest.fixture(scope="module")
def reader(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client without a token."""
    folder = tmp_path_factory.mktemp("guides")
    shutil.copy(sqlite_template, folder / "gateway.db")
    deployment = Deployment(folder, f"sqlite:///{folder / 'gateway.db'}")
    with deployment.serving() as url, Gateway(deployment, url).client(None) as client:
        yield client


def test_every_guide_is_served_and_its_links_work(reader: httpx2.Client) -> None:
    """Links within the guides, with their headings, and to the OpenAPI documents."""
    assert set(GUIDES) == {path.relative_to(TOP / "docs").as_posix() for path in (TOP / "docs").rglob("*.md")}
    texts = {}
    for name in GUIDES:
        answer = reader.get(f"/docs/{name}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/markdown; charset=utf-8")
        texts[f"/docs/{name}"] = answer.text
    followed = 0
    for path, text in texts.items():
        for link in markdown.links(text):
            if re.match("[a-z]+:", link):
                continue
            target, _, anchor = urljoin(path, link).partition("#")
            followed += 1
            if target in texts:
                assert not anchor or anchor in markdown.anchors(texts[target]), f"{path} leads to {link}"
            else:
                assert target.lstrip("/") in guides.SPECS.values(), f"{path} leads to {link}"
    assert followed > 100


def test_a_guide_is_served_as_written_but_for_links_to_other_files() -> None:
    """Code stays, images go, and other links keep their text."""
    written = (TOP / "docs" / "sandbox.md").read_text()
    assert "[test_client.py](recipes/test_client.py)" in written
    assert GUIDES["sandbox.md"] == re.sub(r"\[([\w.-]+)\]\(recipes/[^)]+\)", r"\1", written)
    assert "![" not in GUIDES["README.md"]
    assert "[openapi/product-gateway.yaml](../openapi.yaml)" in GUIDES["README.md"]
    assert "](../deploy.md" in GUIDES["operations/README.md"]


def test_llms_txt_has_its_form_and_lists_every_guide(reader: httpx2.Client) -> None:
    """llmstxt.org: a title, a summary, and sections of links with descriptions."""
    answer = reader.get("/llms.txt")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    head, *sections = re.split(r"^## .+\n\n", answer.text, flags=re.MULTILINE)
    assert re.fullmatch(r"# Product gateway\n\n> The product gateway [^\n]+\.\n\n", head)
    assert len(sections) == 4 + ("For contributors" in answer.text)
    listed = set()
    for line in "".join(sections).split("\n"):
        if line:
            item = re.fullmatch(r"- \[[^\]]+\]\(([^)]+)\): .+", line)
            assert item, line
            listed.add(f"/{item[1]}")
            assert reader.get(f"/{item[1]}").status_code == 200
    assert listed >= {f"/docs/{name}" for name in GUIDES if name != "README.md"}
    assert {"/openapi.yaml", "/product-service.yaml"} <= listed


@pytest.mark.parametrize("path", ["/docs/webhooks.md", "/docs/operations/runbook.md"])
def test_a_guide_is_compressed_and_revalidated(reader: httpx2.Client, path: str) -> None:
    """Like the OpenAPI documents, also with HEAD."""
    plain = reader.get(path, headers={"Accept-Encoding": "identity"})
    with reader.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as packed:
        assert gzip.decompress(b"".join(packed.iter_raw())) == plain.content
    assert packed.headers["ETag"] == plain.headers["ETag"] == reader.head(path).headers["ETag"]
    assert (plain.headers["Vary"], plain.headers["Cache-Control"]) == ("accept-encoding", "no-cache")
    for revalidated in (path, "/llms.txt"):
        known = {"If-None-Match": reader.head(revalidated).headers["ETag"]}
        assert reader.get(revalidated, headers=known).status_code == 304


@pytest.mark.parametrize("path", ["/docs/nowhere.md", "/docs/llms.txt", "/docs/operations/webhooks.md", "/docs/images"])
def test_other_files_of_the_docs_are_not_served(reader: httpx2.Client, path: str) -> None:
    """Pictures and recipes are not in the package."""
    assert error(reader.get(path), 404) == "There is nothing at this path."
    error(reader.get("/docs/operations%2FREADME.md"), 400)


def test_the_guides_can_be_disabled_with_the_pages(sqlite_deployment: Deployment) -> None:
    """PRODUCT_GATEWAY_DOCS=false."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_DOCS"] = "false"
    with sqlite_deployment.serving() as url:
        for path in ("/llms.txt", "/docs/webhooks.md", "/docs/operations/README.md"):
            assert error(httpx2.get(url + path), 404) == "There is nothing at this path."
