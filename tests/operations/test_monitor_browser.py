"""The monitor as an operator has it: in a real browser, beside a real gateway with a worker.

`pytest tests/operations/test_monitor_browser.py --screenshots` renews the pictures in docs/images.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from product_gateway import settings
from product_gateway.db.database import open_database
from product_gateway.operations.app import create_operations_app
from product_gateway.sample import catalog_file
from product_gateway.sample.service import create_sample_app
from product_gateway.telemetry.metrics import Metrics
from tests.support.browser import PATIENCE, assert_accessible, assert_readable, chromium, keep, wants_a_browser, window
from tests.support.contract import Gateway
from tests.support.deployment import API, Deployment
from tests.support.monitor_scene import REFUSED, paint
from tests.support.paced_service import PacedService
from tests.support.serving import serve

PHONE, DESK, PICTURE = (360, 760), (1280, 900), (1280, 1000)
TOKEN = "an-operators-token-of-some-length"

pytestmark = wants_a_browser


@dataclass
class Served:
    """A gateway with a worker, its monitor, and a product service that goes on when it is told to."""

    gateway: Gateway
    monitor: str
    paced: PacedService

    def ask(self, merchant: str, entity_type: str = "PRODUCT") -> None:
        """For a sync, as the merchant's client does."""
        with self.gateway.of(merchant) as client:
            assert client.put(f"{API}/sync/{entity_type}").status_code == 202


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With `acme` and `initech`, whose service is paced, and `globex`, whose service refuses our token."""
    folder = tmp_path_factory.mktemp("monitor")
    shutil.copy(sqlite_template, folder / "gateway.db")
    paced = PacedService()
    refusing = create_sample_app(catalog_file.GeneratedCatalog(3), token="another-token")
    deployment = Deployment(
        folder, f"sqlite:///{folder / 'gateway.db'}", validate_responses="true", page_size="10", max_page_size="10"
    )
    with (
        serve(paced) as service,
        serve(refusing) as refuses,
        deployment.process("serve", "--port", "0", "--with-worker") as it,
    ):
        gateway = Gateway(deployment, it.url())
        for paced_one in ("acme", "initech"):
            gateway.add(paced_one, f"{service}/{paced_one}")
        gateway.add("globex", refuses)
        yield Served(gateway, f"{it.operations_url()}/monitor", paced)


@pytest.fixture(scope="module")
def scene(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The monitor of a day on which something of everything is the matter; nothing in it moves."""
    folder = tmp_path_factory.mktemp("scene")
    shutil.copy(sqlite_template, folder / "gateway.db")
    url = f"sqlite:///{folder / 'gateway.db'}"
    with open_database(url) as database:
        paint(database)
    app, end_streams = create_operations_app(settings.load(database_url=url), Metrics())
    with serve(app) as base:
        yield f"{base}/monitor"
        end_streams()


def reloaded(page: Page) -> bool:
    """Whether the page is another than the one that was marked."""
    return not page.evaluate("window.marked === true")


def test_a_sync_is_seen_to_move_and_is_cancelled_without_a_reload(browser: Browser, served: Served) -> None:
    """What the operator looks at all day."""
    with window(browser, served.monitor, DESK) as page:
        page.evaluate("window.marked = true")
        expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("All is well|need"), timeout=PATIENCE)
        expect(page.locator("#live")).to_have_text("Live", timeout=PATIENCE)
        served.ask("acme")
        row = page.locator("#active tr", has_text="acme")
        expect(row).to_be_visible(timeout=PATIENCE)
        for pages, shown in ((2, "20 of 60"), (1, "30 of 60")):
            served.paced.allow("acme", pages)
            expect(row).to_contain_text(shown, timeout=PATIENCE)
        expect(row.get_by_role("progressbar")).to_have_attribute("value", "50")
        row.get_by_role("button", name="Cancel").click()
        dialog = page.get_by_role("dialog", name="Cancel acme’s PRODUCT sync?")
        dialog.get_by_role("button", name="Not now").click()
        expect(row).to_be_visible()
        row.get_by_role("button", name="Cancel").click()
        dialog.get_by_role("button", name="Cancel the sync").click()
        expect(row).to_have_count(0, timeout=PATIENCE)
        expect(page.locator("#recent tr", has_text="acme").first).to_contain_text("Cancelled", timeout=PATIENCE)
        served.paced.allow("acme")
        assert not reloaded(page)


def test_a_failure_is_explained_and_the_sync_is_run_again(browser: Browser, served: Served) -> None:
    """Who has a problem, why, and what to do: in the first thing on the page, and on the sync's own."""
    with window(browser, served.monitor, DESK) as page:
        page.evaluate("window.marked = true")
        served.ask("globex")
        card = page.locator(".problem", has_text="globex")
        expect(card).to_contain_text("PRODUCT failed", timeout=PATIENCE)
        expect(card).to_contain_text("The product service refuses our token (401).")
        expect(card).to_contain_text("product-gateway merchant update globex --product-service-token-file FILE")
        expect(page.locator("#news")).to_contain_text("globex", timeout=PATIENCE)
        assert page.title().startswith("(1) ")
        assert not reloaded(page)
        card.get_by_role("link", name="Details").click()
        expect(page.locator(".timeline li")).to_have_text(
            [re.compile("Requested"), re.compile("Attempt 1"), re.compile(f"Failed. {REFUSED}")]
        )
        page.get_by_role("button", name="Run again").click()
        page.get_by_role("dialog").get_by_role("button", name="Run it again").click()
        page.get_by_role("link", name="Monitor", exact=True).click()
        expect(page.locator(".problem", has_text="globex")).to_contain_text("2nd time in a row", timeout=PATIENCE)


def test_a_page_without_the_stream_asks_again_and_again(browser: Browser, served: Served) -> None:
    """Some proxies swallow streams."""
    context = browser.new_context()
    page = context.new_page()
    page.route("**/api/stream", lambda route: route.abort())
    page.goto(served.monitor)
    page.evaluate("window.marked = true")
    expect(page.locator("#live")).to_have_text("Updated every few seconds", timeout=PATIENCE)
    served.ask("initech", "COLLECTION")
    expect(page.locator("#recent tr", has_text="COLLECTION").first).to_contain_text("initech", timeout=PATIENCE)
    assert not reloaded(page)
    context.close()


def test_with_a_token_an_operator_signs_in_and_out(browser: Browser, served: Served, tmp_path: Path) -> None:
    """The token is typed in once; a wrong one is refused in words."""
    (tmp_path / "operator.token").write_text(TOKEN)
    url = served.gateway.deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]
    made = settings.load(database_url=url, operator_token_file=tmp_path / "operator.token")
    app, end_streams = create_operations_app(made, Metrics())
    with serve(app) as base:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{base}/monitor?status=FAILED")
        for token in ("wrong", TOKEN):
            page.get_by_label("Operator token").fill(token)
            page.get_by_role("button", name="Sign in").click()
            if token == "wrong":
                expect(page.get_by_role("alert").filter(has_text="not the operator token")).to_be_visible()
        expect(page.get_by_label("Status")).to_have_value("FAILED", timeout=PATIENCE)
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Operator token")).to_be_visible(timeout=PATIENCE)
        assert context.cookies() == []
        end_streams()
        context.close()


def test_five_seconds_are_enough(browser: Browser, scene: str, request: pytest.FixtureRequest) -> None:
    """Who has a problem, and what to do, stand on the first screen, above everything else."""
    with window(browser, scene, PICTURE) as page:
        expect(page.locator("#live")).to_have_text("Live", timeout=PATIENCE)
        expect(page.get_by_role("heading", level=1)).to_have_text("2 problems need attention")
        cards = page.locator(".problem")
        assert [each.split("\n")[0].split()[0] for each in cards.all_inner_texts()] == ["globex", "acme"]
        for card in cards.all():
            box = card.bounding_box()
            assert box is not None
            assert box["y"] + box["height"] < PICTURE[1] / 2
        expect(cards.nth(1)).to_contain_text(re.compile("for the 3rd time in a row, 1\\d min ago"))
        keep(request, page, "monitor.png")
        cards.first.get_by_role("link", name="Details").click()
        expect(page.locator("svg polyline")).to_be_visible()
        expect(page.locator(".samples li")).to_have_count(5)
        keep(request, page, "monitor-sync.png")


def test_a_revert_is_confirmed_after_its_consequences_are_said(
    browser: Browser, scene: str, request: pytest.FixtureRequest
) -> None:
    """An operator undoes a merchant's mistake within seconds; the revert leads back to what it reverts."""
    with window(browser, f"{scene}?merchant=dora&entity_type=PRODUCT", PICTURE) as page:
        page.locator("#recent tr", has_text="12 new").get_by_role("link").click()
        expect(page.locator(".facts div", has_text="Generation").first).to_contain_text("2, published")
        reverted = page.url
        page.get_by_role("button", name="Revert").click()
        dialog = page.get_by_role("dialog", name="Revert dora’s PRODUCT sync?")
        expect(dialog).to_contain_text("restores the catalog as it was before this sync")
        assert_readable(page, "dialog :is(h2, p, button)")
        assert_accessible(page)
        page.emulate_media(color_scheme="light")
        keep(request, page, "monitor-revert.png")
        dialog.get_by_role("button", name="Revert it").click()
        expect(page.locator(".timeline")).to_contain_text("Its revert was requested by an operator", timeout=PATIENCE)
        page.goto(f"{scene}?merchant=dora&entity_type=PRODUCT")
        page.locator("#recent tr", has_text="a revert").get_by_role("link").click()
        page.get_by_role("link", name=re.compile("sync [0-9a-f-]{36}")).click()
        assert page.url == reverted


def test_pages_fit_a_phone_and_can_be_read_by_day_and_by_night(browser: Browser, scene: str) -> None:
    """Nothing scrolls sideways at 360 pixels; letters stand out from what is behind them."""
    with window(browser, scene, PHONE) as page:
        for way in (None, "Details"):
            if way:
                page.get_by_role("link", name=way).first.click()
                expect(page.locator(".timeline")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], f"{page.url} scrolls sideways"
            assert_readable(page, "main :is(h1, h2, p, a, b, dt, dd, td, th, button, .badge, .under, code, time, span)")


def test_the_keyboard_alone_is_enough(browser: Browser, scene: str) -> None:
    """One sees where one is; a dialog takes the focus, and gives it back to the button that opened it."""
    with window(browser, scene, DESK) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        for _ in range(40):
            page.keyboard.press("Tab")
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            if page.evaluate("document.activeElement.textContent") == "Run again":
                break
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        assert page.evaluate("document.activeElement.textContent") == "Not now"
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        assert page.evaluate("document.activeElement.textContent") == "Run again"
        unnamed = page.locator("button, a, input, select").evaluate_all(
            "all => all.filter(each => !(each.textContent.trim() || each.labels?.length)).length"
        )
        assert unnamed == 0


@pytest.mark.parametrize("size", [DESK, (400, 800)], ids=["desk", "narrow"])
def test_axe_finds_nothing_serious(browser: Browser, scene: str, size: tuple[int, int]) -> None:
    """WCAG 2.2, as far as a program can check it, in both themes, on every page of the port."""
    with window(browser, scene.removesuffix("monitor"), size) as page:
        assert_accessible(page)
        page.get_by_role("link", name="Monitor", exact=True).click()
        expect(page.locator("#freshness")).to_be_visible()
        assert_accessible(page)
        page.get_by_role("link", name="Details").first.click()
        expect(page.locator(".chart .scale span")).to_have_text(["100", "50", "0"])
        expect(page.locator(".chart time")).to_have_count(3)
        assert_accessible(page)
