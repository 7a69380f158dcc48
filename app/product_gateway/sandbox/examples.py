"""Responses from the spec's examples, for any status that an operation documents."""

from dataclasses import dataclass
from typing import Any

from product_gateway.http.responses import Response
from product_gateway.openapi import documents
from product_gateway.openapi.router import PathTrie

JSON = "application/json"
ADDED_HEADERS = ("X-Request-Id", "X-Content-Type-Options", "Cache-Control")  # the middleware adds them
OMITTED_HEADERS = ("Content-Encoding", "Preference-Applied")  # examples are uncompressed, and no preference applied


@dataclass(frozen=True)
class Operation:
    """An operation of the spec, with its documented responses by status."""

    operation_id: str
    responses: dict[int, documents.Document]

    def example(self, document: documents.Document, status: int) -> Response[Any]:
        """Return the first example of a documented status, with an example of each header."""
        response = documents.resolve(document, self.responses[status])
        headers = {}
        for name, reference in response.get("headers", {}).items():
            if name not in ADDED_HEADERS + OMITTED_HEADERS:
                headers[name] = str(_example(documents.resolve(document, reference)))
        for media_type, content in response.get("content", {}).items():
            body = _example(content)
            return Response(body.encode() if isinstance(body, str) else body, status, headers, media_type)
        return Response(b"", status, headers)

    def schema(self, document: documents.Document, status: int) -> documents.Document:
        """Return the schema of a documented status's JSON body."""
        schema: documents.Document = documents.resolve(document, self.responses[status])["content"][JSON]["schema"]
        return schema


def _example(holder: documents.Document) -> Any:
    return next(iter(holder["examples"].values()))["value"] if "examples" in holder else holder["example"]


def by_path(document: documents.Document) -> PathTrie[dict[str, Operation]]:
    """Return the operations of a spec, by path and method."""
    found: PathTrie[dict[str, Operation]] = PathTrie()
    for path, method, each in documents.operations(document):
        responses = {int(status): response for status, response in each["responses"].items()}
        found.setdefault(path, {})[method.upper()] = Operation(each["operationId"], responses)
    return found
