"""The hand-written OpenAPI documents, in a wheel or in a checkout."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

GATEWAY = "product-gateway.yaml"
PRODUCT_SERVICE = "product-service.yaml"
OPERATIONS = "operations.yaml"
WORKFLOWS = "workflows.arazzo.yaml"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

Document = dict[str, Any]


def path(name: str) -> Path:
    """Return the file: beside this module in a wheel, in the top-level openapi/ in a checkout."""
    here = Path(__file__).parent
    packaged = here / name
    return packaged if packaged.is_file() else here.parents[2] / "openapi" / name


@cache
def load(name: str) -> Document:
    """Return the parsed document with unresolved `$ref`s. It is cached: never change it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: Document = yaml.load(path(name).read_bytes(), Loader=loader)  # noqa: S506 - both loaders are safe
    return document


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Yield every operation as (path, method in lower case, operation object)."""
    for template, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield template, method, item[method]


def parameters(document: Document, path: str, operation: Document) -> list[Document]:
    """Return the parameters of the path and of the operation, resolved."""
    found = [*document["paths"][path].get("parameters", []), *operation.get("parameters", [])]
    return [resolve(document, each) for each in found]


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
    """Return what routing and validation need, without `$ref`s: Connexion loads it several times as fast."""
    nothing = {"default": {"description": "left out"}}
    paths = {
        template: {key: {**value, "responses": nothing} if key in METHODS else value for key, value in item.items()}
        for template, item in document["paths"].items()
    }
    kept: Document = {key: document[key] for key in ("openapi", "info", "servers", "security") if key in document}
    schemes = document.get("components", {}).get("securitySchemes", {})
    return {**kept, "paths": _inlined(document, paths), "components": {"securitySchemes": schemes}}


def _inlined(document: Document, node: Any) -> Any:
    if isinstance(node, list):
        return [_inlined(document, each) for each in node]
    if not isinstance(node, dict):
        return node
    return {key: _inlined(document, value) for key, value in resolve(document, node).items()}


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
