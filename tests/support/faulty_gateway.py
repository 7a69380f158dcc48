"""A gateway with a planted fault: a reverse proxy that changes some responses of a real gateway."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
from starlette.types import Receive, Scope, Send

HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"}


@dataclass
class Exchange:
    """A request, and the response to be changed. Names of headers are in lower case; `body` is parsed JSON or None."""

    method: str
    path: str
    query: str
    status: int
    headers: dict[str, str]
    body: Any


@dataclass
class FaultyGateway:
    """An ASGI application in front of `url`. `fault` changes responses; `changed` counts those that it has changed."""

    url: str
    fault: Callable[[Exchange], None]
    changed: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request without a body, as all requests of the API are."""
        if scope["type"] != "http":
            return
        path, query = scope["raw_path"].decode(), scope["query_string"].decode()
        given = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
        headers = [each for each in given if each[0] not in HOP_BY_HOP]
        async with httpx2.AsyncClient(timeout=60, verify=False) as client:  # reading certificates takes long
            answer = await client.request(scope["method"], f"{self.url}{path}?{query}".rstrip("?"), headers=headers)
        kept = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        body = answer.json() if answer.content else None
        exchange = Exchange(scope["method"], path, query, answer.status_code, kept, body)
        before = json.dumps([exchange.status, exchange.headers, exchange.body])
        self.fault(exchange)
        self.changed += before != json.dumps([exchange.status, exchange.headers, exchange.body])
        content = b"" if exchange.body is None else json.dumps(exchange.body).encode()
        kept = exchange.headers | {"connection": "close"}  # an idle one would be closed while the client reuses it
        fields = [(name.encode(), value.encode("latin-1")) for name, value in kept.items()]
        await send({"type": "http.response.start", "status": exchange.status, "headers": fields})
        await send({"type": "http.response.body", "body": content})
