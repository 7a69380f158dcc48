"""The command check-service: output, report files, exit statuses and read-only access."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import orjson
import pytest

from product_gateway import settings
from product_gateway.check_service.runner import Plan, check
from product_gateway.model.syncs import EntityType
from product_gateway.sample import catalog_file
from product_gateway.sample.service import create_sample_app
from tests.support import hostile_service
from tests.support.commands import Terminal, assert_refused
from tests.support.deployment import Deployment, within
from tests.support.faulty_service import TOKEN, Crooked
from tests.support.product_service_faults.regressions import HonestButForOne
from tests.support.serving import serve

TOP = Path(__file__).parents[2]
CATALOGS = sorted((TOP / ".." / "shared" / "catalogs").glob("*.csv"))
CURL = re.compile(r"^  \$ (curl .*)$", re.MULTILINE)
ENDS_WITHIN = 60
# Attributes and children of Jenkins' schema for JUnit XML (xunit plugin, junit-10.xsd), as far as used.
JUNIT = {
    "testsuites": ({"name", "tests", "failures", "errors", "skipped", "time"}, {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors", "skipped", "time"}, {"testcase"}),
    "testcase": ({"name", "classname", "time"}, {"skipped", "failure", "system-out"}),
    "skipped": ({"message"}, set()),
    "failure": ({"message", "type"}, set()),
    "system-out": (set(), set()),
}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    """Runs commands in the test's process."""
    return Terminal(monkeypatch, capsys)


@pytest.fixture
def token_file(sqlite_deployment: Deployment) -> Path:
    """The token that the services expect."""
    path = sqlite_deployment.folder / "service.token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture(scope="module")
def misbehaving() -> Iterator[hostile_service.Hostile]:
    """The hostile service."""
    with hostile_service.serve(HonestButForOne) as server:
        yield server


def crooked(fault: str | None, records: int = 24) -> Crooked:
    """The sample service with a fault."""
    return Crooked(catalog_file.GeneratedCatalog(records), fault)


@pytest.mark.parametrize("catalog", [catalog_file.SAMPLE, *CATALOGS], ids=lambda path: path.stem)
def test_the_sample_service_passes_without_a_finding(
    catalog: Path, sqlite_deployment: Deployment, terminal: Terminal, token_file: Path
) -> None:
    """Merchants copy it, and a finding in it would be a false alarm."""
    with serve(create_sample_app(catalog_file.read(catalog), token=TOKEN)) as url:
        done = terminal.run(sqlite_deployment, f"check-service {url} --token-file {token_file} --examples 10")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "errors: 0, warnings: 0, advice: 0." in done.stdout, done.stdout


def test_max_pages_limits_the_traversal_and_the_report_says_so(
    sqlite_deployment: Deployment, terminal: Terminal, token_file: Path
) -> None:
    """Otherwise "passed" would seem to be about the whole list."""
    with serve(create_sample_app(catalog_file.GeneratedCatalog(3000), token=TOKEN)) as url:
        options = f"--token-file {token_file} --examples 0 --max-pages 2 --only PRODUCT"
        done = terminal.run(sqlite_deployment, f"check-service {url} {options}")
    assert done.returncode == 0, done
    assert "PRODUCT: read 500 records, pages: 2, NOT to the end: --max-pages is 2" in done.stdout
    assert "not read to its end" in done.stdout
    assert "COLLECTION" not in done.stdout
    assert re.search(r"products +500 +500 +[0-9.]+ +\d+ +\d+\n", done.stdout), "the speed of pages is missing"


def test_exit_status_is_1_after_errors_and_0_after_warnings(
    sqlite_deployment: Deployment, terminal: Terminal, token_file: Path
) -> None:
    """CI fails exactly where a sync would."""
    for fault, status in (("open-with-any-token", 1), ("errors-of-its-own", 0), ("prices-in-pounds", 0)):
        with serve(crooked(fault)) as url:
            done = terminal.run(sqlite_deployment, f"check-service {url} --token-file {token_file} --examples 0")
        assert done.returncode == status, done.stdout


def test_exit_status_is_2_for_wrong_usage(sqlite_deployment: Deployment, terminal: Terminal, token_file: Path) -> None:
    """The command sends no request then."""
    for options in ("", f"--token-file {token_file} --only STOCK", f"--token-file {token_file} --page-size 1001"):
        assert terminal.run(sqlite_deployment, f"check-service https://shop.example {options}").returncode == 2


def test_invalid_arguments_are_refused_with_a_reason(
    sqlite_deployment: Deployment, terminal: Terminal, token_file: Path
) -> None:
    """The same as with every command."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_ALLOW_PRIVATE_ADDRESSES"] = "false"
    http = f"check-service http://127.0.0.1:1 --token-file {token_file}"
    assert_refused(terminal.run(sqlite_deployment, http), "without encryption", "https://")
    assert_refused(
        terminal.run(sqlite_deployment, f"check-service shop --token-file {token_file}"), "'shop'", "address"
    )
    sqlite_deployment.run("merchant", "add", "shop", "--platform", "BENTO")
    unknown = f"check-service https://shop.example --token-file {token_file} --merchant shpo"
    assert_refused(terminal.run(sqlite_deployment, unknown), "no merchant shpo")
    nowhere = sqlite_deployment.folder / "nowhere.db"
    sqlite_deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"] = f"sqlite:///{nowhere}"
    assert_refused(terminal.run(sqlite_deployment, unknown), "no database", "--merchant")
    assert not nowhere.exists()


def test_a_missing_extra_is_refused_with_the_way_to_install_it(
    sqlite_deployment: Deployment, terminal: Terminal, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only generated requests need Schemathesis, which servers do not install."""
    for name in ("schemathesis", "hypothesis"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "product_gateway.check_service.fuzzing", raising=False)
    with serve(crooked(None)) as url:
        command = f"check-service {url} --token-file {token_file}"
        assert_refused(terminal.run(sqlite_deployment, command), "pip install 'product-gateway[check]'", "--examples 0")
        assert terminal.run(sqlite_deployment, f"{command} --examples 0").returncode == 0


def test_an_unreachable_service_is_an_error_in_the_report(
    sqlite_deployment: Deployment, terminal: Terminal, token_file: Path
) -> None:
    """CI shows it like other errors, with the checks that did not run."""
    junit = sqlite_deployment.folder / "junit.xml"
    done = terminal.run(
        sqlite_deployment, f"check-service http://127.0.0.1:1 --token-file {token_file} --junit {junit}"
    )
    assert done.returncode == 1
    assert "ERROR reachable (service)" in done.stdout
    assert "The connection to 127.0.0.1 was refused" in done.stdout
    assert "Traceback" not in done.stderr
    assert junit.read_text().count("<skipped ") > 50


@pytest.mark.parametrize("name", ["token-echoed", "token-echoed-in-records", "error-500-always", "id-with-nul"])
def test_the_token_is_in_no_report(
    name: str, misbehaving: hostile_service.Hostile, sqlite_deployment: Deployment, terminal: Terminal, token_file: Path
) -> None:
    """CI publishes reports. They must not break terminals or XML parsers either."""
    paths = [sqlite_deployment.folder / each for each in ("junit.xml", "report.json")]
    sqlite_deployment.environment["PRODUCT_GATEWAY_RETRY_WAIT_SECONDS"] = "0.01"
    options = f"--examples 0 --page-size 5 --only PRODUCT --junit {paths[0]} --json {paths[1]}"
    done = terminal.run(sqlite_deployment, f"check-service {misbehaving.url(name)} --token-file {token_file} {options}")
    said = [done.stdout, done.stderr, *(path.read_text() for path in paths)]
    assert all(TOKEN not in each for each in said)
    assert all(character.isprintable() or character == "\n" for character in done.stdout)
    Xml.fromstring(said[2])
    assert orjson.loads(said[3])["checks"]


def test_each_finding_has_a_curl_command_that_repeats_its_request(
    sqlite_deployment: Deployment, terminal: Terminal, token_file: Path
) -> None:
    """The command takes the token from the variable TOKEN."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    for fault, status in (("open-with-any-token", 200), ("falls-over-a-parameter", 500), ("nothing-with-200", 200)):
        with serve(crooked(fault)) as url:
            done = terminal.run(sqlite_deployment, f"check-service {url} --token-file {token_file} --examples 0")
            commands = CURL.findall(done.stdout)
            assert commands, done.stdout
            for each in commands:
                shown = subprocess.run(
                    each, shell=True, env={**os.environ, "TOKEN": TOKEN}, capture_output=True, text=True, timeout=30
                )
                assert shown.stdout.startswith(f"HTTP/1.1 {status} "), (each, shown)


def test_junit_xml_matches_jenkins_schema(sqlite_deployment: Deployment, terminal: Terminal, token_file: Path) -> None:
    """A CI system rejects other files. Only errors are failures, and each failure has its command."""
    path = sqlite_deployment.folder / "junit.xml"
    with serve(crooked("no-single-records")) as url:
        terminal.run(sqlite_deployment, f"check-service {url} --token-file {token_file} --examples 0 --junit {path}")
    top = Xml.fromstring(path.read_text())
    assert top.tag == "testsuites"
    for element in top.iter():
        attributes, children = JUNIT[element.tag]
        assert set(element.attrib) <= attributes
        assert {child.tag for child in element} <= children
    for counted in (top, *top):
        for attribute, tag in (("tests", "testcase"), ("failures", "failure"), ("skipped", "skipped")):
            assert counted.get(attribute) == str(len(list(counted.iter(tag)))), (counted.get("name"), attribute)
    assert [suite.get("name") for suite in top] == ["products", "collections", "service"]
    failing = {
        case.get("name", "").partition(":")[0]: case
        for case in top.iter("testcase")
        if case.find("failure") is not None
    }
    assert "page-sizes" in failing
    assert "curl" in (failing["page-sizes"].findtext("system-out") or "")


def test_the_same_seed_makes_the_same_requests(sqlite_deployment: Deployment, token_file: Path) -> None:
    """A finding that cannot be seen again cannot be mended."""
    asked: list[list[str]] = []
    for seed in (1, 1, 2):
        service = Counting(catalog_file.GeneratedCatalog(24), None)
        with serve(service) as url:
            made = settings.load(allow_private_addresses=True)
            plan = Plan(url, TOKEN, (EntityType.PRODUCT,), examples=10, seed=seed)
            check(plan, made)
        asked.append(service.asked)
    assert asked[0] == asked[1]
    assert asked[0] != asked[2]


class Counting(Crooked):
    """Notes what it is asked for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] == "http":
            self.asked.append(f"{scope['raw_path']!r}?{scope['query_string']!r}")
        await super().__call__(scope, receive, send)


def test_ctrl_c_reports_the_results_so_far(sqlite_deployment: Deployment, token_file: Path) -> None:
    """Also during generated requests, which another thread generates."""
    service = crooked("open-with-any-token")
    with serve(service) as url:
        options = ("--token-file", str(token_file), "--examples", "100000", "--only", "PRODUCT")
        with sqlite_deployment.process("check-service", url, *options) as process:
            within(ENDS_WITHIN, lambda: service.number > 150)
            process.send(signal.SIGINT)
            within(ENDS_WITHIN, lambda: process.status() is not None)
            assert process.status() == 1, process.log.read_text()
    said = process.log.read_text()
    assert "The run was stopped early" in said
    assert "ERROR token-checked (products)" in said
    assert "Traceback" not in said
