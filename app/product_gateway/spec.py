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
    packaged = here / "openapi" / name
    return packaged if packaged.is_file() else here.parents[1] / "openapi" / name


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


def resolve(document: Document, node: Document) -> Document:
    """The node itself, or what its local `$ref` (JSON Pointer, RFC 6901) leads to."""
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


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
