"""The hand-written specs agree with the code, and their examples are valid.

`make specs` (Redocly) checks the documents themselves.
"""

import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from product_gateway.openapi import documents

TOP = Path(__file__).parents[2]
PACKAGE = TOP / "app" / "product_gateway"
DOCUMENTS = {
    name: documents.load(name) for name in (documents.GATEWAY, documents.OPERATIONS, documents.PRODUCT_SERVICE)
}
GATEWAY = DOCUMENTS[documents.GATEWAY]
DESCRIPTION: str = GATEWAY["info"]["description"]
OPERATIONS = [(name, *each) for name, document in DOCUMENTS.items() for each in documents.operations(document)]
NAMES = [f"{name} {method.upper()} {path}" for name, path, method, _ in OPERATIONS]
CHECKED_BY_THE_SERVER = {"400", "405", "408", "413", "431", "500"}
NO_FAILURES = {"IN_PROGRESS", "HANDED_BACK"}  # what else is written in capitals where failures are

each_document = pytest.mark.parametrize("name", DOCUMENTS)
each_operation = pytest.mark.parametrize(("name", "path", "method", "operation"), OPERATIONS, ids=NAMES)


@pytest.mark.parametrize(
    ("path", "operation"),
    [(path, operation) for path, _, operation in documents.operations(GATEWAY)],
    ids=[operation["operationId"] for _, _, operation in documents.operations(GATEWAY)],
)
def test_an_operation_documents_every_status_that_the_server_can_send(path: str, operation: Any) -> None:
    """Middleware can refuse any operation, so each one documents these statuses."""
    wanted = set(CHECKED_BY_THE_SERVER)
    if operation.get("security", GATEWAY["security"]):
        wanted |= {"401", "403"}
    if not operation.get("x-never-refused"):
        wanted |= {"429", "503"}
    if "Id}" in path or "{name}" in path:
        wanted |= {"404"}
    lacking = wanted - set(operation["responses"])
    assert not lacking, f"{operation['operationId']} does not say {sorted(lacking)}"


@each_operation
def test_every_example_is_valid(name: str, path: str, method: str, operation: documents.Document) -> None:
    """Readers copy examples and mocks answer with them, so every parameter and response has one."""
    document = DOCUMENTS[name]
    parameters = [*document["paths"][path].get("parameters", []), *operation.get("parameters", [])]
    for each in (documents.resolve(document, parameter) for parameter in parameters):
        _holds(document, each["schema"], each, f"{method} {path}, parameter {each['name']}")
    for status, found in operation["responses"].items():
        response = documents.resolve(document, found)
        for media_type, content in response.get("content", {}).items():
            _holds(document, content["schema"], content, f"{method} {path} {status} {media_type}")
        for header, definition in response.get("headers", {}).items():
            each = documents.resolve(document, definition)
            _holds(document, each["schema"], each, f"{method} {path} {status}, header {header}")


def _holds(document: documents.Document, schema: documents.Document, carrier: documents.Document, where: str) -> None:
    examples = [carrier["example"]] if "example" in carrier else []
    examples += [each["value"] for each in carrier.get("examples", {}).values()]
    assert examples, f"{where} has no example"
    components = {"schemas": documents.draft4(document["components"]["schemas"])}
    whole = {"allOf": [documents.draft4(schema)], "components": components}
    validator = jsonschema_rs.Draft4Validator(whole, validate_formats=True)
    for example in examples:
        faults = [fault.message for fault in validator.iter_errors(example)]
        assert not faults, f"{where}: the example does not hold: {faults}"


@each_operation
def test_the_status_in_an_error_example_is_that_of_its_response(
    name: str, path: str, method: str, operation: documents.Document
) -> None:
    """A wrong one would mislead the authors of clients."""
    for status, found in operation["responses"].items():
        for content in documents.resolve(DOCUMENTS[name], found).get("content", {}).values():
            errors = content.get("example", {}).get("error", []) if isinstance(content.get("example"), dict) else []
            assert {each["status"] for each in errors} <= {status}, f"{method} {path}: {errors} under {status}"


@each_document
def test_every_version_has_its_entry_in_the_changelog(name: str) -> None:
    """CHANGELOG.md has a section for each document."""
    changelog = (TOP / "CHANGELOG.md").read_text()
    section = re.search(rf"^## [^\n]*openapi/{re.escape(name)}\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    assert section is not None, f"CHANGELOG.md has no section for openapi/{name}"
    version = DOCUMENTS[name]["info"]["version"]
    entry = re.search(rf"^### {re.escape(version)}\n+\S", section[1], re.MULTILINE)
    assert entry is not None, f"CHANGELOG.md does not say what is new in {version} of openapi/{name}"


def test_the_error_table_has_every_status_of_the_spec() -> None:
    """And no other status."""
    table = set(re.findall(r"^\| (\d{3})", DESCRIPTION, re.MULTILINE))
    sent = {status for _, _, each in documents.operations(GATEWAY) for status in each["responses"] if status >= "400"}
    assert table == sent


def test_the_failure_table_has_every_failure_code() -> None:
    """An unexplained code causes a support call."""
    sources = "".join(
        (PACKAGE / name).read_text() for name in ("sync/worker.py", "sync/pull.py", "sync/product_service.py")
    )
    codes = set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', sources)) - NO_FAILURES
    explained = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", DESCRIPTION.partition("**Why a sync failed**")[2]))
    assert len(codes) > 10
    assert codes <= explained, f"not explained: {codes - explained}"
    everything = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    gone = {code for code in explained if f'"{code}"' not in everything}
    assert not gone, f"explained, but no longer a code: {gone}"


def test_the_description_names_every_scope_and_every_state() -> None:
    """The diagram shows the same states."""
    scopes = {each["x-required-scope"] for _, _, each in documents.operations(GATEWAY) if "x-required-scope" in each}
    assert set(re.findall(r"^\| `([a-z]+:[a-z]+)`", DESCRIPTION, re.MULTILINE)) == scopes
    states = set(GATEWAY["components"]["schemas"]["SyncStatus"]["enum"])
    before_waiting = DESCRIPTION.partition("# Waiting for a sync")[0]
    assert set(re.findall(r"^\| ([A-Z_]+) \|", before_waiting, re.MULTILINE)) == states
    picture = (PACKAGE / "docs_pages" / "assets" / "sync-states.svg").read_text()
    assert set(re.findall(r">([A-Z_]{6,})</text>", picture)) - {"DELETE"} == states
