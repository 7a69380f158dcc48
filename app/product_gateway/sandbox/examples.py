"""Answers made of the spec's examples: any status that an operation documents, without anything behind it."""

import re
from dataclasses import dataclass
from typing import Any

from product_gateway.http.responses import Response
from product_gateway.openapi import documents

STAMPED = ("X-Request-Id", "X-Content-Type-Options", "Cache-Control")  # which every answer gets anyway
NOT_SO = ("Content-Encoding", "Preference-Applied")  # the body is sent as it stands in the spec, and nobody waited


@dataclass(frozen=True)
class Operation:
    """An operation of the spec, and the answers that it documents."""

    operation_id: str
    responses: dict[int, documents.Document]

    def example(self, document: documents.Document, status: int) -> Response[Any]:
        """The first example of a documented status, with an example of each of its headers."""
        response = documents.resolve(document, self.responses[status])
        headers = {}
        for name, reference in response.get("headers", {}).items():
            if name not in STAMPED + NOT_SO:
                headers[name] = str(_example(documents.resolve(document, reference)))
        for media_type, content in response.get("content", {}).items():
            body = _example(content)
            return Response(body.encode() if isinstance(body, str) else body, status, headers, media_type)
        return Response(b"", status, headers)


def _example(holder: documents.Document) -> Any:
    if "examples" in holder:
        return next(iter(holder["examples"].values()))["value"]
    return holder["example"]


class Operations:
    """Finds the operation of a request."""

    def __init__(self, document: documents.Document) -> None:
        self._by_path: list[tuple[re.Pattern[str], dict[str, Operation]]] = []
        known: dict[str, dict[str, Operation]] = {}
        for path, method, each in documents.operations(document):
            if path not in known:
                known[path] = {}
                self._by_path.append((re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), known[path]))
            responses = {int(status): response for status, response in each["responses"].items()}
            known[path][method.upper()] = Operation(each["operationId"], responses)

    def find(self, method: str, path: str) -> Operation | None:
        """None where the spec has none: then the gateway says so."""
        for pattern, methods in self._by_path:
            if pattern.fullmatch(path):
                return methods.get("GET" if method == "HEAD" else method)
        return None
