"""A real browser for tests of pages: no console messages, no requests to other hosts, axe, and screenshots."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

IMAGES = Path(__file__).parents[2] / "docs" / "images"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# No background requests; CI runs it as root.
QUIET = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
PATIENCE = 30_000  # milliseconds: a loaded machine draws slowly
PHONE, DESK = (390, 800), (1440, 900)
READABLE = 4.5  # contrast of text (WCAG 2.2 §1.4.3, AA)

wants_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run one browser for all tests of a file; each test opens its own window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def window(browser: Browser, url: str, size: tuple[int, int] = DESK, light: str = "light") -> Iterator[Page]:
    """Open a page; fail on console messages and on requests to other hosts."""
    viewport: ViewportSize = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.emulate_media(color_scheme=light)  # type: ignore[arg-type]  # one of its two words
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    yield page
    context.close()
    assert said == [], f"the console of {url} is not empty"
    origin = re.match(r"https?://[^/]+", url)
    assert origin is not None
    elsewhere = [each for each in asked if not each.removeprefix("blob:").startswith((f"{origin[0]}/", "data:"))]
    assert elsewhere == [], f"{url} asks other hosts"


def keep(request: pytest.FixtureRequest, page: Page, name: str) -> None:
    """Store a screenshot for the README, if requested."""
    if request.config.getoption("--screenshots"):
        IMAGES.mkdir(exist_ok=True)
        page.screenshot(path=IMAGES / name, animations="disabled")


def assert_readable(page: Page, selector: str) -> None:
    """Assert the contrast of all text, in the light and the dark theme."""
    for light in ("light", "dark"):
        page.emulate_media(color_scheme=light)
        page.evaluate(END_TRANSITIONS)
        for text, ink, paper in page.locator(selector).evaluate_all(COLOURS):
            contrast = _contrast(_rgb(ink), _rgb(paper))
            assert contrast >= READABLE, f"{page.url}, {light}: {text!r} has a contrast of {contrast:.1f}"


def assert_accessible(page: Page, known: frozenset[tuple[str, str]] = frozenset(), exclude: str = "") -> None:
    """Assert that axe has no critical or serious finding, in either theme, besides `known`: (rule, part of the target).

    Fails for an entry of `known` that axe does not find, so that the list stays true. Leaves out elements of the
    selector `exclude`.
    """
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    where: dict[str, list[list[str]]] = {"exclude": [[exclude]]} if exclude else {"include": [["html"]]}
    found: dict[tuple[str, str], str] = {}
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        page.evaluate(END_TRANSITIONS)
        page.wait_for_load_state("networkidle")
        page.evaluate(axe)
        for rule in page.evaluate("where => axe.run(where, { resultTypes: ['violations'] })", where)["violations"]:
            if rule["impact"] in ("critical", "serious"):
                for node in rule["nodes"]:
                    found[rule["id"], str(node["target"])] = f"{scheme}: {node['html'][:200]} {node['failureSummary']}"
    unknown = {
        key: why for key, why in found.items() if not any(key[0] == rule and part in key[1] for rule, part in known)
    }
    assert not unknown, "\n".join(f"{rule} {target}, {why}" for (rule, target), why in unknown.items())
    gone = [each for each in known if not any(rule == each[0] and each[1] in target for rule, target in found)]
    assert not gone, f"axe no longer finds {gone}: remove it from the list"


# Swagger UI fades its links from the colours of one scheme to those of the other.
# After two frames: in the first, a page may still learn of the colour scheme.
END_TRANSITIONS = """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
  document.getAnimations().filter(each => each instanceof CSSTransition).forEach(each => each.finish());
  done();
})))"""

# Of each element with letters of its own that is seen: the letters, their colour, and the colour behind them.
COLOURS = """elements => elements.filter(each => each.checkVisibility() && each.innerText.trim()).map(element => {
  let behind = element;
  const clear = each => /rgba.*, 0(\\.[0-4]\\d*)?\\)$/.test(getComputedStyle(each).backgroundColor);
  while (behind.parentElement && clear(behind)) behind = behind.parentElement;
  const paper = clear(behind) ? "rgb(255, 255, 255)" : getComputedStyle(behind).backgroundColor;
  return [element.innerText.slice(0, 40), getComputedStyle(element).color, paper];
})"""


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(float(each) / 255 for each in re.findall(r"[\d.]+", colour)[:3])


def _luminance(colour: tuple[float, ...]) -> float:
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in colour]
    return sum(each * weight for each, weight in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))


def _contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.2, "contrast ratio"."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
