"""Requests to the application of the operations port, from any address."""

import asyncio
from typing import Any

import orjson
from starlette.types import ASGIApp, Message

from product_gateway import settings
from product_gateway.operations.app import create_operations_app
from product_gateway.telemetry.metrics import Metrics

TOKEN = "an-operators-token-of-some-length"
REMOTE = "192.0.2.7"
LOCAL = "127.0.0.1"
WELL = (200, 503)  # let in; on a machine that is very busy, the database may be too late
Headers = dict[str, str]


class Answered:
    """What came back."""

    def __init__(self, messages: list[Message]) -> None:
        self.status: int = messages[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        self.body = b"".join(each.get("body", b"") for each in messages[1:])

    @property
    def detail(self) -> str:
        """Of the error."""
        return str(orjson.loads(self.body)["error"][0]["detail"])


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    headers: Headers | None = None,
    client: str = LOCAL,
    *,
    scheme: str = "http",
    stays: asyncio.Event | None = None,
) -> Answered:
    """A request from any address; its client goes soon, or when `stays` is set."""
    path, _, query = path.partition("?")
    given = {"host": "localhost:8090", **(headers or {})}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": (client, 1234),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        if stays is not None:
            await stays.wait()
        await asyncio.sleep(0.05)  # long enough for a stream to begin
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return Answered(sent)


def made(url: str, **more: Any) -> ASGIApp:
    """The operations port's application, which checks its own answers."""
    app, _ = create_operations_app(settings.load(database_url=url, validate_responses=True, **more), Metrics())
    return app


async def signed_in(app: ASGIApp, client: str = REMOTE) -> Headers:
    """The headers of a browser that has signed in."""
    answer = await ask(app, "POST", "/monitor/session", {"authorization": f"Bearer {TOKEN}"}, client)
    assert answer.status == 200
    return {"cookie": answer.headers["set-cookie"].partition(";")[0], "sec-fetch-site": "same-origin"}
