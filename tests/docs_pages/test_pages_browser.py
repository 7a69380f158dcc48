"""The pages as a reader has them: in a real browser, against a real gateway with a worker.

`pytest tests/docs_pages/test_pages_browser.py --screenshots` renews the pictures in docs/images.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from product_gateway.docs_pages.pages import PATHS
from product_gateway.openapi import documents
from tests.support.browser import (
    DESK,
    PATIENCE,
    PHONE,
    assert_accessible,
    assert_readable,
    chromium,
    keep,
    wants_a_browser,
    window,
)
from tests.support.contract import DOCUMENT, SERVICE_TOKEN, Gateway, gateway
from tests.support.deployment import API, ended

SUMMARIES = [each["summary"] for _, _, each in documents.operations(DOCUMENT)]

NARROW = (400, 800)
# What Swagger UI itself does wrong: (rule of axe, part of the target).
SWAGGER_UI_FINDINGS = frozenset(
    {
        ("nested-interactive", ".opblock-summary-control"),  # a button that contains a link to the operation
    }
)
# Operations of a reference whose elements are like those of the first. axe would need minutes for all.
ALIKE = "[data-section-id*='/operation/']:not([data-section-id$='/enqueueSync'], [data-section-id$='/listProducts'])"

pytestmark = wants_a_browser
each_page = pytest.mark.parametrize("path", list(PATHS.values()))


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Start a gateway with a worker and the merchant `shop`."""
    folder = tmp_path_factory.mktemp("browser")
    shutil.copy(sqlite_template, folder / "gateway.db")
    (folder / "service.token").write_text(SERVICE_TOKEN)
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}", "--with-worker") as served:
        arguments = ("--records", "40", "--token-file", str(folder / "service.token"))
        with served.deployment.sample_service(*arguments) as service:
            served.add("shop", service)
            yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start one browser for all tests; each test opens a new context."""
    with chromium() as browser:
        yield browser


@contextmanager
def opened(browser: Browser, url: str, size: tuple[int, int] = DESK) -> Iterator[Page]:
    """Open a page and wait until it is rendered."""
    with window(browser, url, size) as page:
        if url.endswith(("/docs", "/product-service")):
            last = SUMMARIES[-1] if url.endswith("/docs") else "Get one collection"
            expect(page.get_by_role("heading", name=last)).to_be_attached(timeout=PATIENCE)
        elif url.endswith("/try"):
            expect(page.locator("#operations-Sync-enqueueSync")).to_be_visible(timeout=PATIENCE)
        page.wait_for_load_state("networkidle")
        yield page


def test_the_reference_shows_every_operation_and_the_states(
    browser: Browser, served: Gateway, request: pytest.FixtureRequest
) -> None:
    """Under its own policy, without console messages or requests to other hosts."""
    with opened(browser, f"{served.url}/docs") as page:
        headings = {each.strip() for each in page.locator("h1, h2, h3").all_inner_texts()}
        wanted = {*SUMMARIES, "Quick start", "Sync lifecycle", "Waiting for a sync", "Errors"}
        assert wanted <= headings, f"not in the reference: {wanted - headings}"
        picture = page.locator("img[src$='sync-states.svg']")
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 0
        page.get_by_role("menuitem", name="Sync", exact=True).get_by_text("Sync", exact=True).click()
        page.get_by_text("Enqueue a sync", exact=True).first.click()
        for language in ("curl", "Python", "JavaScript", "Java"):
            expect(page.get_by_role("tab", name=language, exact=True).first).to_be_visible()
        page.get_by_role("tab", name="Python", exact=True).first.click()
        expect(page.get_by_text("requests.Session()").first).to_be_visible()
        keep(request, page, "docs.png")


def test_a_sync_can_be_requested_from_the_try_it_out_page(
    browser: Browser, served: Gateway, request: pytest.FixtureRequest
) -> None:
    """From the form to the worker: 202, and the sync succeeds."""
    with opened(browser, f"{served.url}/docs/try", (1280, 1080)) as page:
        page.get_by_role("button", name="Authorize").click()
        page.locator(".auth-container input").fill(served.token("shop"))
        page.locator(".auth-btn-wrapper button[type=submit]").click()
        page.locator(".auth-btn-wrapper .btn-done").click()
        operation = page.locator("#operations-Sync-enqueueSync")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        expect(operation.locator("tr[data-param-name='Idempotency-Key'] input")).to_have_value("")
        operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table .response-col_status").last
        expect(answer).to_contain_text("202", timeout=PATIENCE)
        operation.locator(".parameters-container").evaluate("shown => scrollTo(0, shown.offsetTop - 130)")
        keep(request, page, "try.png")
    with served.of("shop") as client:
        (sync,) = client.get(f"{API}/syncs").json()["data"]
        assert ended(client, sync)["status"] == "SUCCEEDED"


def test_the_keyboard_reaches_every_link_of_the_first_page(browser: Browser, served: Gateway) -> None:
    """In document order and with a visible focus (WCAG 2.2 §2.1.1, §2.4.7)."""
    with opened(browser, f"{served.url}/") as page:
        reached = []
        for _ in range(page.locator("a, button, [tabindex]").count()):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.getAttribute('href')"))
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        header = ("docs", "docs/try", "docs/product-service", "openapi.yaml")
        documented = ["docs", "docs/try", "openapi.yaml", "openapi-3.1.yaml", "workflows.arazzo.yaml"]
        documented += ["docs/product-service", "product-service.yaml", "llms.txt"]
        assert reached == [".", *header, *documented, None, None, "health/ready"]
        page.get_by_role("link", name="Try it out").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/docs/try")
        expect(page.locator("#operations-Sync-enqueueSync")).to_be_visible(timeout=PATIENCE)


@each_page
def test_a_page_fits_a_phone_and_has_enough_contrast_in_both_colour_schemes(
    browser: Browser, served: Gateway, path: str
) -> None:
    """Only code and tables scroll sideways."""
    with opened(browser, f"{served.url}{path}", PHONE) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], f"{path} scrolls sideways"
        assert_readable(page, "main p, main li span, main a, .comment, .note, .bar a")


@pytest.mark.parametrize("size", [DESK, NARROW], ids=["desk", "narrow"])
@each_page
def test_axe_finds_nothing_serious(browser: Browser, served: Gateway, path: str, size: tuple[int, int]) -> None:
    """WCAG 2.2, as far as a program can check it, in both themes."""
    with opened(browser, f"{served.url}{path}", size) as page:
        known = SWAGGER_UI_FINDINGS if path.endswith("/try") else frozenset()
        assert_accessible(page, known, ALIKE if path.startswith("/docs") and not path.endswith("/try") else "")


def test_samples_name_this_server_and_are_copied(browser: Browser, served: Gateway) -> None:
    """A reader pastes them as they are."""
    with opened(browser, f"{served.url}/") as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        block = page.get_by_role("region", name="Code 1", exact=True)
        expect(block).to_contain_text(f"{served.url}/product-gateway/v1/sync/PRODUCT")
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()").strip() == block.inner_text().strip()
    with opened(browser, f"{served.url}/docs") as page:
        shown = page.locator("#reference").inner_text()
        assert f'curl "{served.url}/health/live"' in shown
        assert "$GATEWAY" not in shown
        expect(page.get_by_role("region", name="Code 1", exact=True)).to_have_attribute("tabindex", "0")


def test_the_try_it_out_page_lists_the_api_without_this_servers_pages(browser: Browser, served: Gateway) -> None:
    """A page in the list of operations is of no use to a client."""
    with opened(browser, f"{served.url}/docs/try") as page:
        paths = page.locator(".opblock-summary-path").all_inner_texts()
        listed = {each.replace("\u200b", "").strip() for each in paths}
        assert "/product-gateway/v1/products" in listed
        assert not {each for each in listed if each == "/" or each.startswith("/docs")}
