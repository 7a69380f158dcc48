"""The hand-written OpenAPI documents, in a wheel or in a checkout."""

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
    """Return the file: beside this module in a wheel, in the top-level openapi/ in a checkout."""
    here = Path(__file__).parent
    packaged = here / name
    return packaged if packaged.is_file() else here.parents[2] / "openapi" / name


def text(name: str) -> bytes:
    """Return the document's YAML in UTF-8."""
    return path(name).read_bytes()


@cache
def load(name: str) -> Document:
    """Return the parsed document with unresolved `$ref`s. It is cached: never change it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: Document = yaml.load(text(name), Loader=loader)  # noqa: S506 - both loaders are safe
    return document


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Yield every operation as (path, method in lower case, operation object)."""
    for template, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield template, method, item[method]


def is_secured(document: Document, operation: Document) -> bool:
    """Return whether the operation, or else the document, names a security requirement."""
    return bool(operation.get("security", document.get("security")))


def resolve(document: Document, node: Document) -> Document:
    """Return the node, or the target of its local `$ref` (JSON Pointer, RFC 6901)."""
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def without_responses(document: Document) -> Document:
    """Return the document reduced to what routing and validation need: Connexion loads it several times as fast."""
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
    """Collect the schemas that the node references, directly or indirectly."""
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
    """Return a component schema as JSON Schema (Draft 4), together with all schemas that it may reference."""
    return {
        "$ref": f"#/components/schemas/{name}",
        "components": {"schemas": draft4(document["components"]["schemas"])},
    }


def draft4(node: Any) -> Any:
    """Convert an OpenAPI 3.0 schema to JSON Schema Draft 4: `nullable` becomes the additional type null."""
    if isinstance(node, list):
        return [draft4(each) for each in node]
    if not isinstance(node, dict):
        return node
    plain = {key: draft4(value) for key, value in node.items() if not (key == "nullable" and isinstance(value, bool))}
    if node.get("nullable") is True:
        return {"anyOf": [plain, {"type": "null"}]} if "enum" in plain else {**plain, "type": [plain["type"], "null"]}
    return plain
