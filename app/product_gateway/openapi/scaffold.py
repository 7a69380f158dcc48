"""The scaffold: source code of the handlers that a spec still lacks, ready to paste."""

import textwrap

from connexion.decorators.parameter import pythonic

from product_gateway.openapi import documents
from product_gateway.openapi.parameters import TYPES

FORMATS = {"uuid": "UUID"}


def skeletons(document: documents.Document, operation_ids: list[str]) -> str:
    """Return the source of one method for each operation: signature, docstring, `raise NotImplementedError`."""
    return "\n".join(
        _skeleton(document, path, operation)
        for path, _, operation in documents.operations(document)
        if operation["operationId"] in operation_ids
    )


def _skeleton(document: documents.Document, path: str, operation: documents.Document) -> str:
    arguments = ["self"]
    if documents.is_secured(document, operation):
        arguments.append("merchant: Merchant")
    for parameter in documents.parameters(document, path, operation):
        optional = not parameter.get("required") and "default" not in documents.resolve(document, parameter["schema"])
        kind = _type(document, parameter["schema"]) + (" | None" if optional else "")
        arguments.append(f"{pythonic(parameter['name'])}: {kind}")
    summary = _in_docstring(operation.get("summary") or operation["operationId"]).rstrip(".") + "."
    description = textwrap.fill(_in_docstring(operation.get("description", "")), 100)
    docstring = f'"""{summary}\n\n{description}\n"""' if description else f'"""{summary}"""'
    name, body = pythonic(operation["operationId"]), _body(document, operation)
    return textwrap.indent(
        f"async def {name}({', '.join(arguments)}) -> Response[{body}]:\n"
        + textwrap.indent(f"{docstring}\nraise NotImplementedError\n", "    "),
        "    ",
    )


def _in_docstring(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace('"""', "'''")


def _type(document: documents.Document, schema: documents.Document) -> str:
    resolved = documents.resolve(document, schema)
    if "enum" in resolved and "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if resolved["type"] == "array":
        return f"list[{_type(document, resolved['items'])}]"
    return FORMATS.get(resolved.get("format", "")) or TYPES[resolved["type"]].__name__


def _body(document: documents.Document, operation: documents.Document) -> str:
    for status, response in operation["responses"].items():
        if str(status).startswith("2"):
            for media in documents.resolve(document, response).get("content", {}).values():
                return str(media.get("schema", {}).get("$ref", "bytes")).rpartition("/")[2] or "bytes"
    return "None"
