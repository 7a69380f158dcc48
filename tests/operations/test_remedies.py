"""The monitor's advice is the runbook's, for each failure code and for each status of a product service."""

import re
from itertools import product
from pathlib import Path

import pytest

from product_gateway.http_client.status_advice import status_advice
from product_gateway.operations.monitor import remedies
from product_gateway.operations.monitor.remedies import ADVICE, BY_DETAIL, Advice

RUNBOOK = (Path(__file__).parents[2] / "docs" / "operations" / "runbook.md").read_text()
URL = "https://shop.example/api/products"
ELSEWHERE = "https://other.example/api/products"
TABLE = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in RUNBOOK.partition("| answered | meaning | what to do |")[2].partition("\n\n")[0].splitlines()[2:]
]
# First cell of the table -> the answers that it describes: statuses, Location headers, media types, registered tokens.
ANSWERS: dict[str, tuple[tuple[int, ...], tuple[str, ...], str, bool]] = {
    "401, without a registered token": ((401,), ("",), "", False),
    "403 with an HTML page": ((403,), ("",), "text/html", True),
    "304": ((304,), ("",), "", True),
    "a redirect to the same list: with or without a slash, without `Location`, or to itself": (
        (301, 302, 303, 307, 308),
        ("", URL, f"{URL}/"),
        "",
        True,
    ),
    "a redirect to a log-in page": ((302, 303), ("https://id.example/login",), "text/html", True),
    "any other redirect": ((301, 302, 303, 307, 308), (ELSEWHERE, "/v2/products"), "", True),
    "204 and other 2xx": ((201, 204, 206), ("",), "", True),
    "405, 406, 411, 415": ((405, 406, 411, 415), ("",), "", True),
    "402, 407, 414, 421, 426, 431, 451": ((402, 407, 414, 421, 426, 431, 451), ("",), "", True),
    "400, 408, 413, 425": ((400, 408, 413, 425), ("",), "", True),
    "404, 410 and other 4xx": ((404, 410, 418, 422), ("",), "", True),
    "5xx with an HTML page": ((502, 503, 504, 520), ("",), "text/html", True),
}


def written(advice: Advice) -> str:
    """Return the advice as the runbook has it."""
    command = advice.command and advice.command.format(merchant="MERCHANT", entity_type="PRODUCT")
    return f"{advice.what_to_do} `{command}`" if command else advice.what_to_do


@pytest.mark.parametrize("code", ADVICE)
def test_the_runbook_gives_the_monitors_advice_for_each_code(code: str) -> None:
    """An operator who reads both must not have to choose."""
    section = RUNBOOK.partition(f"\n## {code}\n")[2].partition("\n## ")[0]
    (advice,) = re.findall(r"^\*\*What to do:\*\* (.*)$", section, re.MULTILINE)
    assert advice == written(ADVICE[code])


def test_the_runbook_has_each_advice_for_an_answer() -> None:
    """In the order in which the monitor looks for it."""
    assert [cells[0] for cells in TABLE] == list(ANSWERS)
    assert [cells[1:] for cells in TABLE] == [[advice.words, written(advice)] for _, advice in BY_DETAIL]


@pytest.mark.parametrize(("cell", "words", "what_to_do"), TABLE)
def test_each_answer_gets_the_advice_of_its_row(cell: str, words: str, what_to_do: str) -> None:
    """404 had one advice in the monitor and another in the runbook."""
    statuses, locations, media_type, has_token = ANSWERS[cell]
    for status, location in product(statuses, locations):
        said = status_advice(status, location, media_type, url=URL, has_token=has_token)
        detail = (
            f"Page 1 of /products could not be read: the product service answered {status}{said.meaning}. "
            f"{said.what_to_do}"
        )
        found = remedies.of("PRODUCT_SERVICE_ERROR", detail)
        assert (found.words, written(found)) == (f"{words} ({status})", what_to_do)


@pytest.mark.parametrize("advice", remedies.STALE.values(), ids=lambda advice: advice.words)
def test_the_runbook_gives_the_monitors_advice_on_stale_catalogs(advice: Advice) -> None:
    """By what became of the latest sync."""
    section = RUNBOOK.partition("\n## ProductGatewayCatalogsStale\n")[2].partition("\n## ")[0]
    assert f"| {advice.words} | {advice.what_to_do} |" in section


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("PRODUCT_SERVICE_ERROR", 500),
        ("PRODUCT_SERVICE_ERROR", 503),
        ("PRODUCT_SERVICE_UNAUTHORIZED", 401),
        ("PRODUCT_SERVICE_UNAUTHORIZED", 403),
        ("PRODUCT_SERVICE_RATE_LIMITED", 429),
    ],
)
def test_other_answers_get_the_advice_of_the_code(code: str, status: int) -> None:
    """They are not in the table."""
    said = status_advice(status, "", "", url=URL, has_token=True)
    found = remedies.of(code, f"the product service answered {status}{said.meaning}. {said.what_to_do}")
    assert written(found) == written(ADVICE[code])
