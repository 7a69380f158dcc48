"""A gateway of a later version: a proxy that adds members and headers to real responses."""

from typing import Any

import httpx2
import orjson
from starlette.types import Receive, Scope, Send

ADDED = {"addedLater": {"since": "1.99.0"}}
OF_THE_CONNECTION = {b"host", b"content-length", b"connection", b"transfer-encoding", b"upgrade", b"http2-settings"}


class LaterGateway:
    """An ASGI proxy that adds what the spec allows: members of `data` and `meta`, and headers."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An answer, and more than that."""
        if scope["type"] != "http":
            return
        target = scope["raw_path"].decode() + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
        async with httpx2.AsyncClient(timeout=60) as client:
            answer = await client.request(scope["method"], self._url + target, headers=_passed_on(scope["headers"]))
        headers = [*_passed_on(answer.headers.raw), (b"added-later", b"1")]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        body = answer.json()
        for name in {"data", "meta"} & set(body):
            body[name] = _grown(body[name])
        await send({"type": "http.response.body", "body": orjson.dumps(body)})


def _passed_on(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() not in OF_THE_CONNECTION]


def _grown(node: Any) -> Any:
    """Return the value with an extra member in every object."""
    if isinstance(node, list):
        return [_grown(each) for each in node]
    if isinstance(node, dict):
        return {name: _grown(value) for name, value in node.items()} | ADDED
    return node
