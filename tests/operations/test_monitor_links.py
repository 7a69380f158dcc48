"""The monitor's links and forms: everything that a page offers to follow or to submit leads somewhere."""

import re
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx2
import pytest
from playwright.sync_api import expect

from product_gateway import settings
from product_gateway.db import claims, merchants
from product_gateway.db.database import open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from product_gateway.operations.app import create_operations_app
from product_gateway.telemetry.metrics import Metrics
from tests.support.browser import PATIENCE, chromium, wants_a_browser, window
from tests.support.deployment import within
from tests.support.monitor_scene import REFUSED, WHY_REFUSED, begun, paint
from tests.support.serving import serve

NOWHERE = "/monitor/syncs/acme/01a20a4b-f514-708c-8b35-b67ebc5d86e0"
ERROR_PAGES = {"/monitor?status=GONE": 400, "/monitor?cursor=AAAA": 400, NOWHERE: 404}
ODD_NAME = "a.b:c@d|e~f+g-h_1"
MOST_PAGES = 1000
BUSY = 503  # a busy machine
FILTERED = '<table class="cards" aria-labelledby="recent-heading">'


@pytest.fixture(scope="module")
def base(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The operations port over more syncs, problems and waiting merchants than its first page shows."""
    folder = tmp_path_factory.mktemp("links")
    shutil.copy(sqlite_template, folder / "gateway.db")
    url = f"sqlite:///{folder / 'gateway.db'}"
    with open_database(url) as database:
        paint(database)
        for number in range(12):
            name = ODD_NAME if number == 0 else f"failing-{number}"
            database.call(merchants.add, name, Platform.BYOP, "https://shop.example")
            # Each claim takes the oldest sync: the first two are those that corner-books and elm-street-tea wait for.
            database.call(claims.fail, begun(database, name, EntityType.PRODUCT), REFUSED, WHY_REFUSED)
        for number in range(60):
            name = f"waiting-{number}"
            database.call(merchants.add, name, Platform.BYOP, "https://shop.example")
            database.call(enqueue, name, EntityType.COLLECTION)
    app, end_streams = create_operations_app(settings.load(database_url=url), Metrics())
    with serve(app) as served:
        yield served
        end_streams()


@dataclass
class Form:
    """A form as a browser sees it: where it goes, and each field with the values that it can have, its own first."""

    method: str
    action: str
    fields: dict[str, list[str]] = field(default_factory=dict)

    def submissions(self) -> Iterator[str]:
        """The query of the form as it stands; then, where nothing is chosen yet, with each value of each field."""
        own = {name: values[0] for name, values in self.fields.items()}
        yield urlencode(own)
        if any(own.values()):
            return
        for name, values in self.fields.items():
            for value in values[1:]:
                yield urlencode({**own, name: value})


class Offered(HTMLParser):
    """What a page offers: links and files, forms, and where its buttons send."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.acts: list[str] = []
        self.forms: list[Form] = []
        self._select = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each tag."""
        given = {name: value or "" for name, value in attrs}
        self.links += [given[name] for name in ("href", "src") if name in given]
        self.acts += [given[name] for name in ("data-act",) if name in given]
        if tag == "form":
            self.forms.append(Form(given.get("method", "get").lower(), given.get("action", "")))
        elif tag == "select":
            self._select = given["name"]
            self.forms[-1].fields[self._select] = []
        elif tag == "option":
            values = self.forms[-1].fields[self._select]
            values.insert(0 if "selected" in given else len(values), given.get("value", "PRODUCT"))
        elif tag == "input" and "name" in given:
            self.forms[-1].fields[given["name"]] = [given.get("value", ""), "acme", ODD_NAME, "unknown"]


def unless_busy(browser: httpx2.Client, path: str) -> httpx2.Response | None:
    """Return the page, or None if the machine is too busy for its database."""
    answer = browser.get(path)
    return None if answer.status_code == BUSY else answer


def test_every_link_and_form_of_every_page_leads_somewhere(base: str) -> None:
    """As a crawler with patience finds them, from the first page and from pages that say that something went wrong."""
    wanted, seen, acts = deque(["/", *ERROR_PAGES]), {"/", *ERROR_PAGES}, set()
    forms = 0
    with httpx2.Client(base_url=base, timeout=30) as browser:
        while wanted and len(seen) < MOST_PAGES:
            path = wanted.popleft()
            answer = within(60, partial(unless_busy, browser, path))
            assert answer.status_code == ERROR_PAGES.get(path, 200), f"{path}: {answer.text[-600:]}"
            if answer.headers["Content-Type"] != "text/html":
                continue
            offered = Offered(answer.text)
            found = [urljoin(f"{base}{path}", each) for each in offered.links]
            for form in offered.forms:
                action = urljoin(f"{base}{path}", form.action)
                if form.method == "get":
                    forms += 1
                    found += [f"{action}?{query}" for query in form.submissions()]
            acts |= {urljoin(f"{base}{path}", each) for each in offered.acts}
            for each in found:
                assert each.startswith(f"{base}/"), f"{path} leads to {each}"
                local = each.removeprefix(base).partition("#")[0]
                if local not in seen:
                    seen.add(local)
                    wanted.append(local)
        assert len(seen) < MOST_PAGES
        assert forms > 5
        assert any("cursor=" in each for each in seen)
        assert {"status=FAILED", "status=QUEUED"} <= {urlsplit(each).query for each in seen}
        assert any(quoted in each for each in seen for quoted in ("%7C", "|"))
        assert acts
        for act in sorted(acts):
            assert browser.get(act).headers["Allow"] == "POST", act


def test_a_filter_left_alone_means_any(base: str) -> None:
    """The form as it stands shows what the page without a query shows; each field by itself narrows it."""
    with httpx2.Client(base_url=base, timeout=30) as browser:
        (form,) = (each for each in Offered(browser.get("/monitor").text).forms if each.method == "get")
        assert set(form.fields) == {"merchant", "status", "entity_type"}
        assert [values[0] for values in form.fields.values()] == ["", "", ""]
        untouched = browser.get(f"/monitor?{next(form.submissions())}")
        assert untouched.status_code == 200
        assert rows(untouched.text) == rows(browser.get("/monitor").text)
        for query, shown in (("merchant=acme&status=&entity_type=", "acme"), ("merchant=&status=FAILED", "Failed")):
            text = browser.get(f"/monitor?{query}").text
            assert shown in text.partition(FILTERED)[2]
            assert "waiting-1" not in text.partition(FILTERED)[2]


def rows(html: str) -> list[str]:
    """The syncs of the list, by the ids of their rows."""
    return re.findall(r'id="(recent-[^"]+)"', html)


@pytest.mark.parametrize("query", ["status=", "merchant=", "entity_type=", "status=&merchant=&entity_type="])
def test_the_api_takes_an_empty_filter_as_any_too(base: str, query: str) -> None:
    """A script that fills in a template does as a form does."""
    found, everything = (httpx2.get(f"{base}/monitor/api/syncs{each}").json()["data"] for each in (f"?{query}", ""))
    assert [each["id"] for each in found] == [each["id"] for each in everything]
    assert httpx2.get(f"{base}/monitor/api/syncs?page_size=&{query}").status_code == 400
    assert httpx2.get(f"{base}/monitor/api/syncs?{query}&{query}").status_code == 400


@wants_a_browser
def test_the_form_is_submitted_in_a_browser(base: str) -> None:
    """With nothing chosen, with one status, and with a name; what was chosen stays chosen."""
    with chromium() as browser, window(browser, f"{base}/monitor") as page:
        show = page.get_by_role("button", name="Show", exact=True)
        show.click()
        page.wait_for_url(re.compile(r"\?merchant=&status=&entity_type=$"), timeout=PATIENCE)
        expect(page.locator("#recent tbody tr")).to_have_count(25)
        page.get_by_label("Status").select_option("FAILED")
        show.click()
        expect(page.get_by_label("Status")).to_have_value("FAILED")
        expect(page.locator("#recent tbody tr", has_text="Waiting")).to_have_count(0)
        page.get_by_label("Merchant").fill(ODD_NAME)
        show.click()
        expect(page.locator("#recent tbody tr")).to_have_count(1)
        assert dict(parse_qsl(urlsplit(page.url).query)) == {"merchant": ODD_NAME, "status": "FAILED"}
