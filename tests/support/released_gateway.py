"""Today's sandbox reduced to a released spec, as mutations of its requests and responses."""

from typing import Any
from urllib.parse import parse_qsl, urlencode

from product_gateway.openapi import documents
from product_gateway.sandbox.mutation import Exchange, Kind, Mutation

Operations = dict[str, tuple[documents.Document, set[tuple[str, str]]]]
NO_OPERATION = {"error": [{"status": "404", "title": "Not Found", "detail": "This version has no such operation."}]}


def operations(document: documents.Document) -> Operations:
    """Return each operation with its parameters, as (location, name in lower case), by operationId."""
    found: Operations = {}
    for path, _, operation in documents.operations(document):
        listed = documents.parameters(document, path, operation)
        found[operation["operationId"]] = operation, {(each["in"], each["name"].lower()) for each in listed}
    return found


class Reduction:
    """Removes from requests and responses what today's spec has and a released spec lacks.

    An operation that the released spec lacks is answered with 404. `missing` collects the ids of these operations.
    """

    def __init__(self, released: documents.Document) -> None:
        self._released = released
        self._today = documents.load(documents.GATEWAY)
        self._old, self._new = operations(released), operations(self._today)
        self.missing: set[str] = set()

    @property
    def mutations(self) -> tuple[Mutation, ...]:
        """Return the mutations for a sandbox."""
        return (
            Mutation("released-request", "Ignore new parameters.", Kind.REQUEST, frozenset(), self._reduce_request),
            Mutation("released-response", "Send old responses.", Kind.RESPONSE, frozenset(), self._reduce_response),
        )

    def has(self, operation_id: str) -> bool:
        """Return whether the released spec has this operation."""
        return operation_id in self._old

    def _reduce_request(self, exchange: Exchange) -> None:
        if exchange.operation_id not in self._old:
            return
        added = self._new[exchange.operation_id][1] - self._old[exchange.operation_id][1]
        query = parse_qsl(exchange.query, keep_blank_values=True)
        exchange.query = urlencode([each for each in query if ("query", each[0].lower()) not in added])
        kept = [each for each in exchange.request_headers if ("header", each[0].decode().lower()) not in added]
        exchange.request_headers = kept

    def _reduce_response(self, exchange: Exchange) -> None:
        if exchange.operation_id not in self._old:
            self.missing.add(exchange.operation_id)
            exchange.status, exchange.body = 404, NO_OPERATION
        elif (old := self._response(self._released, self._old, exchange)) is not None:
            new = self._response(self._today, self._new, exchange) or {}
            names = [{name.lower() for name in each.get("headers", {})} for each in (new, old)]
            kept = [each for each in exchange.headers if each[0].decode().lower() not in names[0] - names[1]]
            exchange.headers = kept
            content = old.get("content", {}).get("application/json")
            if content and exchange.body is not None:
                exchange.body = self.reduce(exchange.body, content["schema"])

    @staticmethod
    def _response(document: documents.Document, among: Operations, exchange: Exchange) -> documents.Document | None:
        response = among[exchange.operation_id][0]["responses"].get(str(exchange.status))
        return documents.resolve(document, response) if response else None

    def reduce(self, node: Any, schema: documents.Document) -> Any:
        """Return the value with the members that the released schema names."""
        schema = documents.resolve(self._released, schema)
        for part in schema.get("allOf", ()):
            schema = {**schema, **documents.resolve(self._released, part)}
        if isinstance(node, list):
            return [self.reduce(each, schema["items"]) for each in node]
        if isinstance(node, dict) and "properties" in schema:
            known = schema["properties"]
            return {name: self.reduce(value, known[name]) for name, value in node.items() if name in known}
        return node
