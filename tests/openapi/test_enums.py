"""A refused value of an enum: the message has the value and lists all allowed ones."""

from typing import Any

import pytest

from product_gateway import settings
from product_gateway.errors import InvalidRequest, SettingsError
from product_gateway.openapi import documents
from product_gateway.openapi.parameters import Parameter

SPECS = (documents.GATEWAY, documents.OPERATIONS, documents.PRODUCT_SERVICE)
WRONG = "MADE_UP"


def parameters(spec: str) -> list[documents.Document]:
    """Return the enum parameters of a spec's operations, with their schemas resolved."""
    document = documents.load(spec)
    found = []
    for path, _, operation in documents.operations(document):
        for each in [*document["paths"][path].get("parameters", []), *operation.get("parameters", [])]:
            parameter = documents.resolve(document, each)
            schema = documents.resolve(document, parameter["schema"])
            if "enum" in schema:
                found.append({**parameter, "schema": schema})
    return found


ENUMS = [each for spec in SPECS for each in parameters(spec)]


def bodies(node: Any) -> list[Any]:
    """Return the enums anywhere below a request body."""
    if isinstance(node, list):
        return [each for item in node for each in bodies(item)]
    if not isinstance(node, dict):
        return []
    return ([node["enum"]] if "enum" in node else []) + bodies(list(node.values()))


@pytest.mark.parametrize("definition", ENUMS, ids=lambda each: f"{each['in']}-{each['name']}")
def test_an_error_about_an_enum_parameter_lists_all_its_values(definition: documents.Document) -> None:
    """A client corrects the request without the reference."""
    with pytest.raises(InvalidRequest) as refused:
        Parameter(definition).parse(WRONG)
    detail = refused.value.detail
    assert f"{definition['name']}: '{WRONG}'" in detail
    assert [value for value in definition["schema"]["enum"] if f"'{value}'" not in detail] == []


def test_the_specs_have_enum_parameters_and_no_enums_in_request_bodies() -> None:
    """Otherwise the test above misses a kind of enum."""
    assert {each["name"] for each in ENUMS} == {"entityType", "status", "entity_type", "publish"}
    for spec in SPECS:
        for path, _, operation in documents.operations(documents.load(spec)):
            assert bodies(operation.get("requestBody")) == [], path


@pytest.mark.parametrize(
    ("name", "values"), [("LOG_FORMAT", ["text", "json"]), ("LOG_LEVEL", ["DEBUG", "INFO", "WARNING", "ERROR"])]
)
def test_an_error_about_a_setting_lists_all_its_values(
    name: str, values: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A regular expression is not a list."""
    monkeypatch.setenv(f"PRODUCT_GATEWAY_{name}", WRONG)
    with pytest.raises(SettingsError) as refused:
        settings.load()
    detail = refused.value.detail
    assert detail.startswith(f"PRODUCT_GATEWAY_{name}: '{WRONG}' should be ")
    assert [value for value in values if f"'{value}'" not in detail] == []
