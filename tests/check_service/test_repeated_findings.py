"""Findings of check-service that are the same for every page, list or generated request are reported once."""

from dataclasses import replace
from pathlib import Path

import pytest

from product_gateway import settings
from product_gateway.check_service.reports import console
from product_gateway.check_service.results import CheckResults
from product_gateway.check_service.rules import Severity
from product_gateway.check_service.runner import Plan, check
from product_gateway.sample import catalog_file
from tests.support.faulty_service import FAULTS, TOKEN, Asked, Crooked, Honest, Told
from tests.support.serving import serve

FUZZERS_WORDS = ("schema-", "Schema", "Undocumented", "Server error", "compliant", "violat", "deserializ", "Expected:")


async def always_500(_: Crooked, asked: Asked, honest: Honest) -> Told:
    """Answer every request with 500."""
    return replace(await honest(asked), status=500)


async def text_instead_of_json(_: Crooked, asked: Asked, honest: Honest) -> Told:
    """Send every page with the wrong Content-Type."""
    told = await honest(asked)
    return replace(told, content_type="text/plain") if told.status == 200 else told


def checked(service: Crooked, folder: Path, examples: int = 0) -> tuple[CheckResults, str]:
    """Return the results and the console report of a run over both lists, with ten pages of products."""
    made = settings.load(
        data_dir=folder,
        allow_private_addresses=True,
        page_size=5,
        max_page_size=5,
        request_attempts=2,
        retry_wait_seconds=0.01,
    )
    with serve(service) as url:
        results = check(Plan(url, TOKEN, examples=examples), made)
    report = folder / "report.txt"
    with report.open("w") as stream:
        console.show(results, "https://shop.example", None, stream)
    return results, report.read_text()


def test_a_service_that_only_answers_500_is_one_error(tmp_path: Path) -> None:
    """It is reachable. Both lists have the same fault, and no other check can be made."""
    results, report = checked(Crooked(catalog_file.GeneratedCatalog(50), always_500), tmp_path, examples=10)
    assert {each.rule.code for severity in Severity for each in results.failures(severity)} == {"no-failures"}
    assert report.count("ERROR ") == report.count("The service answered 500.") == 1
    assert "ERROR no-failures (products, collections)" in report
    assert "errors: 1, warnings: 0, advice: 0." in report


def test_a_fault_of_every_page_is_one_finding(tmp_path: Path) -> None:
    """The number of its occurrences is enough."""
    results, report = checked(Crooked(catalog_file.GeneratedCatalog(50), text_instead_of_json), tmp_path)
    outcomes = [each for each in results.failures(Severity.WARNING) if each.rule.code == "content-type"]
    assert len(outcomes) == 2
    assert [len(each.findings) for each in outcomes] == [1, 1]
    assert (
        report.count("The Content-Type is 'text/plain'.") == report.count("content-type (products, collections)") == 1
    )
    more = sum(each.count for each in outcomes) - 2
    assert more > 5
    assert f"And {more} more like that." in report


@pytest.mark.parametrize("name", [name for name, (code, _) in FAULTS.items() if code.startswith("fuzz-")])
def test_findings_of_generated_requests_are_in_plain_words_and_not_repeated(name: str, tmp_path: Path) -> None:
    """Merchants do not know the terms of the tool that generates the requests."""
    code, _ = FAULTS[name]
    results, _ = checked(Crooked(catalog_file.GeneratedCatalog(50), name), tmp_path, examples=15)
    outcomes = [each for severity in Severity for each in results.failures(severity) if each.rule.code == code]
    assert outcomes
    for outcome in outcomes:
        seen = [each.seen for each in outcome.findings]
        assert len(seen) == len(set(seen))
        for each in seen:
            assert each.startswith("The service answered ")
            assert each.endswith(".")
            assert not [word for word in FUZZERS_WORDS if word in each], each
