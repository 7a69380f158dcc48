"""The OpenAPI 3.1 form of the spec has the same meaning as the 3.0.3 source. `make specs` validates it."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import yaml

from product_gateway.openapi import documents, openapi_3_1

SOURCE = documents.load(documents.GATEWAY)
DERIVED = openapi_3_1.converted(SOURCE)
SCHEMAS: dict[str, Any] = SOURCE["components"]["schemas"]
OTHER_VALUES: list[Any] = [None, True, 0, -1, 1.5, "", "x", [], [None], {}, {"id": None}, {"data": None, "meta": {}}]


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a document."""
    if isinstance(node, dict):
        yield node
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(each)


def without_schemas(node: Any) -> Any:
    """Return a document without its schemas."""
    if isinstance(node, list):
        return [without_schemas(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {key: without_schemas(value) for key, value in node.items() if key not in ("schema", "schemas")}


def values(name: str) -> list[Any]:
    """Return the examples of a schema's properties, changed objects of them, and values of every type."""
    properties = SCHEMAS[name].get("properties", {})
    example = {key: value["example"] for key, value in properties.items() if "example" in value}
    nulls = [{**example, key: None} for key in properties]
    return [*OTHER_VALUES, *SCHEMAS[name].get("enum", []), SCHEMAS[name].get("example"), example, *nulls]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_allows_the_same_values_as_its_source(name: str) -> None:
    """Null above all: `nullable` becomes a type of its own."""
    schemas = {each: DERIVED["components"]["schemas"][each] for each in SCHEMAS}
    derived = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
    forms = (documents.json_schema(SOURCE, name), derived)
    validators = [jsonschema_rs.Draft202012Validator(each, validate_formats=True) for each in forms]
    for value in values(name):
        source, result = (each.is_valid(value) for each in validators)
        assert source is result, f"{value!r}: {source} in 3.0.3, {result} in 3.1"


def test_only_schemas_and_webhooks_differ() -> None:
    """No path, parameter, header or example is lost."""
    expected = {key.removeprefix("x-"): value for key, value in SOURCE.items()}
    assert without_schemas(DERIVED) == without_schemas(expected) | {"openapi": "3.1.0"}
    assert set(DERIVED["webhooks"]) == set(SOURCE["x-webhooks"])


def test_nothing_of_3_0_is_left() -> None:
    """OpenAPI 3.1 has no `nullable`, and its schemas have `examples`."""
    assert not [each for each in nodes(DERIVED) if "nullable" in each or isinstance(each.get("exclusiveMinimum"), bool)]
    assert not [each for each in nodes(DERIVED["components"]["schemas"]) if "type" in each and "example" in each]
    nullable = [each for each in nodes(SOURCE) if each.get("nullable") is True]
    types = [each["type"] for each in nodes(DERIVED) if isinstance(each.get("type"), list)]
    assert len(types) == len(nullable) > 10


def test_the_text_is_the_converted_document() -> None:
    """Long texts are blocks, so that a person can read them."""
    text = openapi_3_1.as_yaml(SOURCE)
    assert yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) == DERIVED
    assert b"  description: |\n    The product gateway keeps one" in text
    assert b"&id" not in text
