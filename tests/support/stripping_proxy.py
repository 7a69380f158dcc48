"""A reverse proxy for tests that publishes a server under a path prefix, which it removes from requests."""

from dataclasses import dataclass, field

import httpx2
from starlette.types import Receive, Scope, Send

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass
class StrippingProxy:
    """An ASGI application in front of `target`; it adds `headers` to each request, and records what it was asked."""

    target: str
    prefix: str
    headers: dict[str, str] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request without the prefix; answer 404 for other paths."""
        if scope["type"] != "http":
            return
        path = scope["raw_path"].decode()
        if not path.startswith(f"{self.prefix}/"):
            self.outside.append(path)
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
            return
        query = scope["query_string"].decode()
        url = self.target + path.removeprefix(self.prefix) + (f"?{query}" if query else "")
        own = {name.lower() for name in self.headers} | {"host"}
        given = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
        headers = [(name, value) for name, value in given if name not in own] + list(self.headers.items())
        host = next(value for name, value in given if name == "host")
        async with httpx2.AsyncClient(timeout=30) as client:
            answer = await client.request(scope["method"], url, headers=[("host", host), *headers])
        kept = [(name, value) for name, value in answer.headers.raw if name.decode().lower() not in HOP_BY_HOP]
        kept = [(name.lower(), value) for name, value in kept if name.lower() != b"content-encoding"]
        kept.append((b"content-length", b"%d" % len(answer.content)))
        await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.content})
