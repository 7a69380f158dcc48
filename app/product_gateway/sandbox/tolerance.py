"""Applies mutations to the sandbox's real responses: `sandbox --tolerance`."""

import collections
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from product_gateway.errors import SettingsError
from product_gateway.openapi import documents
from product_gateway.sandbox.examples import JSON, Operation, by_path
from product_gateway.sandbox.mutation import Exchange, Kind, Mutation
from product_gateway.sandbox.mutations import AFTER_END, CHUNK_BYTES, MUTATIONS

SHARE = 0.25  # of the mutations, which a seed activates
ACTIVE = b"x-sandbox-tolerance"
"""A header that lists the active mutations of a response. A seed activates several, so a report needs it."""
ENTITY_TAG = re.compile(r'"[^"]*"')


class Tolerance:
    """The active mutations of one sandbox, and how many responses each has changed.

    With one mutation, that one is always active. With a seed, the same sequence of requests gets the same mutations.
    """

    def __init__(self, mutations: Iterable[Mutation], seed: int | None = None) -> None:
        self.mutations = tuple(mutations)
        self._seed = seed
        self.changed: collections.Counter[str] = collections.Counter()
        self.aliases: dict[str, str] = {}
        self._requests: collections.Counter[str] = collections.Counter()

    @classmethod
    def of(cls, chosen: str) -> "Tolerance":
        """Return the tolerance of a seed or of a mutation's name. Raises SettingsError."""
        if chosen in MUTATIONS:
            return cls([MUTATIONS[chosen]])
        if chosen.isascii() and chosen.isdigit():
            return cls(MUTATIONS.values(), int(chosen))
        raise SettingsError(f"--tolerance {chosen} is neither a number nor a mutation: {', '.join(MUTATIONS)}.")

    def active(self, request: str) -> list[Mutation]:
        """Return the mutations of the next response to a request, a method with a path.

        Values change in all responses of a run or in none, because a client may compare responses.
        """
        self._requests[request] += 1
        number = f"{request} {self._requests[request]}"
        return [each for each in self.mutations if self._is_chosen(each, "" if each.kind is Kind.VALUE else number)]

    def _is_chosen(self, mutation: Mutation, number: str) -> bool:
        return self._seed is None or _chance(f"{self._seed} {mutation.name} {number}") < SHARE

    def header(self, active: list[Mutation]) -> list[tuple[bytes, bytes]]:
        """Return the header that names the active mutations. One that was chosen by name is known already."""
        return [] if self._seed is None else [(ACTIVE, ", ".join(each.name for each in active).encode() or b"none")]


def _chance(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) / 2**32


@dataclass
class SchemaWalk:
    """Applies mutations of values to a JSON body along its schema."""

    document: documents.Document
    active: list[Mutation]
    tolerance: Tolerance

    def change(self, node: Any, schema: documents.Document, member: str = "") -> Any:
        """Return the changed value. `member` is its name, `Schema.member`, where it is a member of an object."""
        name = schema.get("$ref", "").rpartition("/")[2]
        schema = documents.resolve(self.document, schema)
        if node is None:
            return None
        for part in schema.get("allOf", ()):
            node = self.change(node, part)
        if isinstance(node, list):
            node = [self.change(each, schema["items"]) for each in node]
        elif isinstance(node, dict):
            known = schema.get("properties", {})
            node = {
                key: self.change(value, known[key], f"{name}.{key}") if key in known else value
                for key, value in node.items()
            }
        changed = node
        for mutation in self.active:
            if not mutation.applies_to.isdisjoint((name, member, schema.get("format"))):
                before, changed = changed, mutation.change(changed)
                self.tolerance.changed[mutation.name] += repr(before) != repr(changed)
        if name == "Cursor" and changed != node:
            self.tolerance.aliases[changed] = node
        return changed


class ToleranceMiddleware:
    """ASGI middleware in front of the sandbox that changes requests and JSON responses of the API."""

    def __init__(self, app: ASGIApp, tolerance: Tolerance) -> None:
        self._app = app
        self._tolerance = tolerance
        self._document = documents.load(documents.GATEWAY)
        self._operations = by_path(self._document)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._operations.find(scope["path"]) if scope["type"] == "http" else None
        operation = found and found[0].get("GET" if scope["method"] == "HEAD" else scope["method"])
        if operation is None:
            await self._app(scope, receive, send)
            return
        active = self._tolerance.active(f"{scope['method']} {scope['path']}")
        exchange = Exchange(
            operation.operation_id, scope["query_string"].decode("latin-1"), scope["headers"], self._tolerance.aliases
        )
        self._restore(exchange)
        self._apply(exchange, active, Kind.REQUEST)
        scope = {**scope, "query_string": exchange.query.encode("latin-1"), "headers": exchange.request_headers}
        content = b""

        async def change_and_send(message: Message) -> None:
            nonlocal content
            if message["type"] == "http.response.start":
                exchange.status, exchange.headers = message["status"], list(message["headers"])
                return
            content += message.get("body", b"")
            if not message.get("more_body"):
                for each in self._changed(exchange, operation, active, content):
                    await send(each)

        await self._app(scope, receive, change_and_send)

    def _restore(self, exchange: Exchange) -> None:
        """Replace the texts of changed cursors and ETags in the request by the real ones."""
        aliases = exchange.aliases
        tags = exchange.request_header(b"if-none-match")
        if tags:
            restored = ENTITY_TAG.sub(lambda tag: aliases.get(tag[0], tag[0]), tags)
            exchange.set_request_header(b"if-none-match", restored)
        query = parse_qsl(exchange.query, keep_blank_values=True)
        cursor = dict(query).get("cursor")
        if cursor in aliases:
            real = aliases[cursor]
            exchange.is_after_end = real.startswith(AFTER_END)
            real = real.removeprefix(AFTER_END)
            others = [each for each in query if each[0] != "cursor"]
            exchange.query = urlencode([*others, ("cursor", real)] if real else others)

    def _apply(self, exchange: Exchange, active: list[Mutation], kind: Kind) -> None:
        for mutation in active:
            if mutation.kind is kind:
                before = _state(exchange)
                mutation.change(exchange)
                self._tolerance.changed[mutation.name] += before != _state(exchange)

    def _changed(
        self, exchange: Exchange, operation: Operation, active: list[Mutation], content: bytes
    ) -> Iterable[Message]:
        """Yield the ASGI messages of the changed response."""
        exchange.headers += self._tolerance.header(active)
        if (exchange.header(b"content-type") or b"").decode("latin-1") == JSON and content:
            exchange.body = orjson.loads(content)
            schema = operation.schema(self._document, exchange.status)
            walk = SchemaWalk(self._document, [each for each in active if each.kind is Kind.VALUE], self._tolerance)
            exchange.body = walk.change(exchange.body, schema)
            if exchange.is_after_end and exchange.status == 200:
                exchange.body["data"] = []
                exchange.body["meta"].pop("nextCursor", None)
            self._apply(exchange, active, Kind.RESPONSE)
            content = self._serialized(exchange.body, active)
            exchange.change_header(b"content-length", lambda _: b"%d" % len(content))
        elif not content:  # 304, and responses to HEAD
            self._apply(exchange, active, Kind.RESPONSE)
        yield {"type": "http.response.start", "status": exchange.status, "headers": exchange.headers}
        size = CHUNK_BYTES if exchange.chunked else len(content) or 1
        for start in range(0, len(content), size):
            yield {"type": "http.response.body", "body": content[start : start + size], "more_body": True}
        yield {"type": "http.response.body", "body": b""}

    def _serialized(self, body: Any, active: list[Mutation]) -> bytes:
        for mutation in active:
            if mutation.kind is Kind.BODY and not isinstance(body, bytes):
                body = mutation.change(body)
                self._tolerance.changed[mutation.name] += 1
        return body if isinstance(body, bytes) else orjson.dumps(body)


def _state(exchange: Exchange) -> str:
    """Return everything that a mutation of a request or response may change, as text: names differ by their case."""
    return repr((exchange.query, exchange.request_headers, exchange.headers, exchange.chunked, len(exchange.aliases)))
