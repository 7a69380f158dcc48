"""visible_text: what a stranger sends cannot hide, turn or erase what people read; programs get it as it was sent."""

import logging
import shutil
from io import StringIO
from pathlib import Path

import httpx2
import pytest

from product_gateway import settings
from product_gateway.check_service.results import CheckResults
from product_gateway.client import formatting
from product_gateway.client.bodies import Problems
from product_gateway.db import catalog_write, claims, merchants
from product_gateway.db.database import Database, open_database
from product_gateway.docs_pages import pages
from product_gateway.json_tools.faults import shown
from product_gateway.model.catalog import Page, Record, Rejection
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from product_gateway.operations.app import create_operations_app
from product_gateway.telemetry import logs
from product_gateway.telemetry.metrics import Metrics
from product_gateway.telemetry.visible_text import is_visible, visible, visible_lines
from tests.support.monitor_scene import begun
from tests.support.serving import serve

UNSEEN = {
    "left-to-right mark": "\u200e", "right-to-left mark": "\u200f", "Arabic letter mark": "\u061c",
    **{f"embedding {n:x}": chr(n) for n in range(0x202A, 0x202F)},
    **{f"isolate {n:x}": chr(n) for n in range(0x2066, 0x206A)},
    "zero width space": "\u200b", "zero width joiner": "\u200d", "zero width non-joiner": "\u200c",
    "word joiner": "\u2060", "byte order mark": "\ufeff", "soft hyphen": "\xad", "invisible times": "\u2062",
    "Mongolian vowel separator": "\u180e", "line separator": "\u2028", "paragraph separator": "\u2029",
    "escape": "\x1b", "bell": "\x07", "backspace": "\b", "carriage return": "\r", "NUL": "\0", "DEL": "\x7f",
    "C1 CSI": "\x9b", "next line": "\x85", "tag letter": "\U000e0041", "tag end": "\U000e007f",
    "interlinear annotation": "\ufff9", "deprecated format": "\u206f", "half a pair": "\ud83d",
    "variation selector": "\ufe0f", "further variation selector": "\U000e0100", "Hangul filler": "\u3164",
    "halfwidth Hangul filler": "\uffa0", "Braille blank": "\u2800", "combining grapheme joiner": "\u034f",
    "private use": "\ue000", "no-break space": "\xa0", "ideographic space": "\u3000", "musical format": "\U0001d173",
}  # fmt: skip
SEEN = ("plain", "ünïcödé", "商品", "مرحبا", "שלום", "🎉", "a b", "\\u202e", "é", "<b>&amp;", "e\u0301", "")
each_unseen = pytest.mark.parametrize("name", UNSEEN)


@each_unseen
def test_a_character_that_is_not_seen_is_written_out(name: str) -> None:
    """Each invisible character becomes the escape that Python and JSON use. The rest of the text is unchanged."""
    character = UNSEEN[name]
    written = visible(f"a{character}b")
    assert written == f"a{ascii(character)[1:-1]}b"
    assert written.isascii()
    assert is_visible(written)
    assert visible_lines(f"{character}\nb").endswith("\nb") or character == "\n"


@pytest.mark.parametrize("text", SEEN)
def test_visible_text_is_unchanged(text: str) -> None:
    """Merchants write in all scripts, from left to right and from right to left."""
    assert visible(text) == text


@each_unseen
def test_logs_reports_and_clients_show_it(name: str) -> None:
    """By the same function, in whichever form."""
    text = f"sku-{UNSEEN[name]}-1"
    for form in ("text", "json"):
        stream = StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logs.Lines(as_json=form == "json"))
        record = logging.LogRecord("product_gateway", logging.INFO, "", 0, "%s", (text,), None)
        logged = handler.format(record)
        assert is_visible(logged.replace("\t", "")), form
    assert is_visible(CheckResults("a-token", []).plain(text))
    assert is_visible(shown(text))
    sample = {"recordId": text, "pointer": f"/{text}", "message": text}
    problems = Problems.model_validate({"data": [{"code": text, "count": 1, "samples": [sample]}], "meta": {}})
    assert all(map(is_visible, formatting.rejected(problems).plain.split("\n")))


@pytest.fixture(scope="module")
def monitor(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The database of a merchant whose product service hides things wherever it can."""
    folder = tmp_path_factory.mktemp("hidden")
    shutil.copy(sqlite_template, folder / "gateway.db")
    url = f"sqlite:///{folder / 'gateway.db'}"
    hidden = "".join(each for each in UNSEEN.values() if each not in ("\0", "\ud83d"))
    with open_database(url) as database:
        database.call(merchants.add, "shop", Platform.BYOP, "https://shop.example")
        fill(database, hidden)
    return url


def fill(database: Database, hidden: str) -> None:
    """A sync that has rejected records, and failed with words of the product service."""
    sync = begun(database, "shop", EntityType.PRODUCT)
    bad = (Rejection("INVALID_FIELD", f"id{hidden}", f"/meta/{hidden}", f"is {hidden}not <b>allowed</b>"),)
    database.call(claims.heartbeat, sync, 60.0)
    database.call(catalog_write.write_page, sync, Page((Record("a", "{}"),), bad, "1", 2), 60.0)
    database.call(claims.fail, sync, "INVALID_PAGE", f"The service said {hidden}.")


def test_the_monitor_shows_it_and_its_api_is_faithful(monitor: str) -> None:
    """On every page and in every part of it; markup stays escaped."""
    app, end_streams = create_operations_app(settings.load(database_url=monitor), Metrics())
    with serve(app) as base:
        (sync,) = httpx2.get(f"{base}/monitor/api/syncs").json()["data"]
        assert "\u202e" in sync["failure"]["detail"]
        assert "\u202e" in httpx2.get(f"{base}/monitor/api/syncs/shop/{sync['id']}").text
        story = httpx2.get(f"{base}/monitor/syncs/shop/{sync['id']}").text
        for page in (httpx2.get(f"{base}/monitor").text, story):
            assert all(map(is_visible, page.split("\n")))
        for name in ("\\u202e", "\\x1b", "\\U000e0041", "\\u2066", "\\u200b"):
            assert name in story
        assert "not &lt;b&gt;allowed" in story
        end_streams()


def test_every_page_is_isolated_from_other_sites(monitor: str, tmp_path: Path) -> None:
    """Also the page to sign in at, and those that say what went wrong."""
    (tmp_path / "operator.token").write_text("an-operators-token-of-some-length")
    for token in (None, tmp_path / "operator.token"):
        made = settings.load(database_url=monitor, operator_token_file=token)
        app, end_streams = create_operations_app(made, Metrics())
        with serve(app) as base:
            nothing = "/monitor/syncs/shop/01a20a4b-f514-708c-8b35-b67ebc5d86e0"
            for path in ("/monitor", "/monitor?status=GONE", nothing):
                answer = httpx2.get(base + path)
                assert answer.headers["Content-Type"] == "text/html"
                assert pages.ISOLATION.items() <= {n.title(): v for n, v in answer.headers.items()}.items()
            end_streams()
