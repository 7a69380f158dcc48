"""The console report of check-service, and docs/check-service.md with its example."""

import io
import re
from pathlib import Path

import pytest

from product_gateway.check_service.recording_client import Exchange
from product_gateway.check_service.reports import console
from product_gateway.check_service.results import CheckResults, ListResults, Result
from product_gateway.check_service.rules import RULES
from product_gateway.model.syncs import EntityType
from product_gateway.sample import catalog_file
from product_gateway.sample.service import create_sample_app
from tests.support.commands import Terminal
from tests.support.deployment import Deployment
from tests.support.serving import serve

DOCUMENT = (Path(__file__).parents[2] / "docs" / "check-service.md").read_text()
TOKEN = "the-merchants-t0ken"
URL = "https://shop.example/api"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*3[0-7]m")


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def results() -> CheckResults:
    """An error with long words, a warning, and checks that were not reached."""
    made = CheckResults(TOKEN, tuple(EntityType))
    seen = f"The record {'x' * 200!r} came with {TOKEN} \x1b[2J and 商品 " + "and so on " * 20
    products, collections = (ListResults(made, each) for each in (EntityType.PRODUCT, EntityType.COLLECTION))
    products.failed("json", seen, Exchange(f"{URL}?{'y' * 150}", "$TOKEN"))
    for number in range(7):
        collections.failed("page-size", f"Page {number}.", Exchange(URL, "$TOKEN"))
    products.passed("not-empty")
    products.not_checked("the list could not be read", "dry-run", result=Result.NOT_REACHED)
    return made


def shown(results: CheckResults, stream: io.StringIO) -> str:
    """Return the report."""
    console.show(results, URL, 1, stream)
    return stream.getvalue()


def test_a_report_without_a_terminal_is_plain_text(results: CheckResults) -> None:
    """Files and logs contain it."""
    said = shown(results, io.StringIO())
    assert all(character.isprintable() or character == "\n" for character in said)
    assert not [line for line in said.splitlines() if line != line.rstrip()]
    assert "ERROR json (products)" in said
    assert "And 4 more like that." in said
    assert "products, not reached: the list could not be read: dry-run" in said


def test_a_terminal_has_colours_unless_no_color_is_set(results: CheckResults, monkeypatch: pytest.MonkeyPatch) -> None:
    """See https://no-color.org."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert COLOUR.search(shown(results, Screen()))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOUR.search(shown(results, Screen()))


def test_the_report_fits_into_a_narrow_terminal(results: CheckResults, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only commands are longer: one line each, so that they can be copied."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "50")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown(results, Screen())).splitlines()
    assert [line for line in lines if len(line) > 50 and not line.startswith("  $ curl ")] == []
    assert [line for line in lines if line.startswith("  $ curl ") and len(line) > 150]


def test_the_documented_checks_are_the_rules() -> None:
    """Code, severity, what must hold, and where the contract says so: in the order of the report."""
    rows = [line.strip("| ").split(" | ") for line in DOCUMENT.splitlines() if line.startswith("| `")]
    wanted = [[f"`{each.code}`", each.severity.value, each.must, each.source] for each in RULES.values()]
    assert rows == wanted, "docs/check-service.md: correct the table of checks"


def test_the_documented_report_is_real(sqlite_deployment: Deployment, terminal: Terminal, tmp_path: Path) -> None:
    """The sample service without a token of its own takes any: an error, and the only one."""
    (tmp_path / "service.token").write_text(TOKEN)
    with serve(create_sample_app(catalog_file.read(catalog_file.SAMPLE), token=None)) as url:
        done = terminal.run(sqlite_deployment, f"check-service {url} --token-file {tmp_path / 'service.token'}")
    assert done.returncode == 1
    assert without_numbers(done.stdout.strip()) in without_numbers(DOCUMENT), done.stdout


def without_numbers(text: str) -> str:
    """Replace numbers: ports and request counts differ."""
    return re.sub(r"\d+", "0", text)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Runs commands in the test's process."""
    return Terminal(monkeypatch, capsys)
