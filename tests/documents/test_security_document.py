"""docs/security.md: every OWASP risk has a row, and every test that it names exists."""

import ast
import re
from pathlib import Path

import pytest

from product_gateway.openapi import documents
from product_gateway.settings import Settings

TESTS = Path(__file__).parents[1]
GUIDE = (TESTS.parent / "docs" / "security.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in GUIDE.splitlines() if line.startswith("| API")]
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", GUIDE)


def test_every_risk_has_its_row_in_order() -> None:
    """The list of 2023; each row has the protection and at least two tests."""
    assert [row[0].split()[0] for row in ROWS] == [f"API{number}" for number in range(1, 11)]
    for risk, done, proof in ROWS:
        assert len(done) > 60, risk
        assert len(re.findall(r"`[\w/]+\.py::test_\w+`", proof)) >= 2, risk
        assert re.sub(r"`[\w/]+\.py::test_\w+`", "", proof).strip() == "", risk


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_every_named_test_exists(file: str) -> None:
    """A renamed test breaks the proof."""
    tree = ast.parse((TESTS / file).read_text())
    there = {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert {name for where, name in NAMED if where == file} <= there


def test_the_listed_public_paths_are_those_of_the_spec() -> None:
    """An unlisted public path would escape a review."""
    document = documents.load(documents.GATEWAY)
    public = {path for path, _, each in documents.operations(document) if each.get("security") == []}
    said = set(re.findall(r"`(/[^`]*)`", GUIDE.partition("**What is public.**")[2].partition("\n\n")[0]))
    assert said == {path for path in public if not path.startswith("/docs/assets/")}


def test_settings_and_links_exist() -> None:
    """A reader can follow every one."""
    for setting in set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+|DOCS)(?:=\w+)?`", GUIDE)):
        assert setting.lower() in Settings.model_fields, setting
    for link in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert (TESTS.parent / "docs" / link).exists(), link
