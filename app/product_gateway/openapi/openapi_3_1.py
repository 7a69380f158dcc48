"""A converter from OpenAPI 3.0.3 to 3.1: schemas become JSON Schema 2020-12, and `x-webhooks` becomes `webhooks`."""

from typing import Any

import yaml

from product_gateway.openapi.documents import Document


def converted(document: Document) -> Document:
    """Return a 3.0.3 document as OpenAPI 3.1.0, with the same meaning."""
    renamed = {"webhooks" if key == "x-webhooks" else key: _object(value) for key, value in document.items()}
    return {**renamed, "openapi": "3.1.0"}


def _object(node: Any) -> Any:
    """Convert the schemas below a node that is not a schema. Examples are values, so they stay."""
    if isinstance(node, list):
        return [_object(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {key: _member(key, value) for key, value in node.items()}


def _member(key: str, value: Any) -> Any:
    if key in ("example", "examples"):
        return value
    if key == "schema":
        return _schema(value)
    return {name: _schema(each) for name, each in value.items()} if key == "schemas" else _object(value)


def _schema(schema: Document) -> Document:
    """Replace `nullable` by the type null, and `example` by `examples` (OpenAPI 3.1.0 §4.8.24)."""
    found = {key: _keyword(key, value) for key, value in schema.items() if key not in ("nullable", "example")}
    if "example" in schema:
        found["examples"] = [schema["example"]]
    if schema.get("nullable"):
        found["type"] = [schema["type"], "null"]
        if None not in schema.get("enum", [None]):
            found["enum"] = [*schema["enum"], None]
    return found


def _keyword(key: str, value: Any) -> Any:
    if key == "properties":
        return {name: _schema(each) for name, each in value.items()}
    if key in ("allOf", "anyOf", "oneOf"):
        return [_schema(each) for each in value]
    return _schema(value) if key in ("items", "not", "additionalProperties") and isinstance(value, dict) else value


# A dumper that repeats shared parts, instead of naming them by aliases. libyaml's is four times as fast.
_Dumper: type[yaml.SafeDumper] = type(
    "_Dumper", (getattr(yaml, "CSafeDumper", yaml.SafeDumper),), {"ignore_aliases": lambda *_: True}
)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Write a text of several lines as a block."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def as_yaml(document: Document) -> bytes:
    """Return a 3.0.3 document as OpenAPI 3.1.0 in YAML."""
    text: str = yaml.dump(converted(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text.encode()
