"""The hand-written OpenAPI documents: one look-up that finds them in a wheel and in a checkout alike."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

GATEWAY = "product-gateway.yaml"
PRODUCT_SERVICE = "product-service.yaml"
OPERATIONS = "operations.yaml"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

Document = dict[str, Any]


def path(name: str) -> Path:
    """Where the document is: beside the code in a wheel, at the top of the project in a checkout."""
    here = Path(__file__).parent
    packaged = here / name
    return packaged if packaged.is_file() else here.parents[2] / "openapi" / name


def text(name: str) -> bytes:
    """The document as it was written (UTF-8 YAML)."""
    return path(name).read_bytes()


@cache
def load(name: str) -> Document:
    """The document as data, with its `$ref`s as they stand. Shared: never change it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: Document = yaml.load(text(name), Loader=loader)  # noqa: S506 - a safe loader, in C where there is one
    return document


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Every operation as (path, method in lower case, operation object)."""
    for template, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield template, method, item[method]


def is_secured(document: Document, operation: Document) -> bool:
    """Return whether the operation, or else the document, names a security requirement."""
    return bool(operation.get("security", document.get("security")))


def resolve(document: Document, node: Document) -> Document:
    """The node itself, or what its local `$ref` (JSON Pointer, RFC 6901) leads to."""
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def without_responses(document: Document) -> Document:
    """What is needed to route and check requests: what is left out takes most of the time that a start takes."""
    nothing = {"default": {"description": "left out"}}
    paths = {
        template: {key: {**value, "responses": nothing} if key in METHODS else value for key, value in item.items()}
        for template, item in document["paths"].items()
    }
    parameters = {
        name: {key: value for key, value in each.items() if key not in ("example", "examples")}
        for name, each in document.get("components", {}).get("parameters", {}).items()
    }
    wanted: dict[str, Any] = {}
    _collect(document, [parameters, [item.get("parameters") for item in paths.values()], paths], wanted)
    schemes = document.get("components", {}).get("securitySchemes", {})
    components = {"parameters": parameters, "schemas": wanted, "securitySchemes": schemes}
    kept: Document = {key: document[key] for key in ("openapi", "info", "servers", "security") if key in document}
    return {**kept, "paths": paths, "components": components}


def _collect(document: Document, node: Any, wanted: dict[str, Any]) -> None:
    """The schemas that the node names, and those that they name."""
    if isinstance(node, dict):
        name = str(node.get("$ref", "")).partition("#/components/schemas/")[2]
        if name and name not in wanted:
            wanted[name] = document["components"]["schemas"][name]
            _collect(document, wanted[name], wanted)
        for each in node.values():
            _collect(document, each, wanted)
    elif isinstance(node, list):
        for each in node:
            _collect(document, each, wanted)


def json_schema(document: Document, name: str) -> Document:
    """A component schema as JSON Schema (Draft 4), with the `$ref`s that it needs beside it."""
    return {
        "$ref": f"#/components/schemas/{name}",
        "components": {"schemas": draft4(document["components"]["schemas"])},
    }


def draft4(node: Any) -> Any:
    """A schema of OpenAPI 3.0 as JSON Schema Draft 4: `nullable` becomes one more type."""
    if isinstance(node, list):
        return [draft4(each) for each in node]
    if not isinstance(node, dict):
        return node
    plain = {key: draft4(value) for key, value in node.items() if not (key == "nullable" and isinstance(value, bool))}
    if node.get("nullable") is True:
        return {"anyOf": [plain, {"type": "null"}]} if "enum" in plain else {**plain, "type": [plain["type"], "null"]}
    return plain
