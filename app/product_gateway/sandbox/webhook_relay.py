"""The relay between the sandbox's dispatcher and the client's webhook, which applies mutations to messages."""

from dataclasses import dataclass, field
from http import HTTPStatus

import orjson
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.errors import OutboundError
from product_gateway.http.responses import Response
from product_gateway.http_client.client import HttpClient, retry_after
from product_gateway.openapi import documents
from product_gateway.sandbox.mutation import Kind, Message
from product_gateway.sandbox.tolerance import SchemaWalk, Tolerance
from product_gateway.webhooks.signing import signature_headers

MOST_HELD = 3  # attempts that a message waits for another to overtake it
OLD_SECRET = "whsec_" + "b2xk" * 8
EVENT_SCHEMAS = {"catalog.stale": "CatalogStaleEvent", "webhook.test": "TestEvent"}


@dataclass
class WebhookRelay:
    """ASGI middleware: at `path`, a relay between the dispatcher and the client's webhook, at `url`.

    It changes messages and signs them again.
    """

    app: ASGIApp
    path: str
    url: str
    secret: str
    tolerance: Tolerance
    _held: dict[str, int] = field(default_factory=dict)  # the refused attempts of the message that waits, by its id
    _released: set[str] = field(default_factory=set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self.path:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        active, event = self.tolerance.active("POST webhook"), orjson.loads(await request.body())
        schema = {"$ref": f"#/components/schemas/{EVENT_SCHEMAS.get(event['type'], 'SyncEvent')}"}
        walk = SchemaWalk(
            documents.load(documents.GATEWAY), [each for each in active if each.kind is Kind.VALUE], self.tolerance
        )
        message = Message(request.headers["webhook-id"], orjson.dumps(walk.change(event, schema)))
        for mutation in active:
            if mutation.kind is Kind.MESSAGE:
                mutation.change(message)
                self.tolerance.changed[mutation.name] += 1
        try:
            response = await self._deliver(message)
        except OutboundError as error:
            response = Response(error.detail.encode(), HTTPStatus.BAD_GATEWAY)
        await response.send(scope, send)

    async def _deliver(self, message: Message) -> Response[bytes]:
        """Send the message, and return the receiver's response for the dispatcher: 503 for a message that is held."""
        if message.is_held and self._holds(message.id):
            return Response(b"", HTTPStatus.SERVICE_UNAVAILABLE)
        secrets = [OLD_SECRET, self.secret] if message.has_old_secret else [self.secret]
        async with HttpClient(allow_private_addresses=True) as client:
            for message_id, body in (*message.before, *[(message.id, message.body)] * message.repeats):
                headers = {**message.headers, **signature_headers(message_id, secrets, body)}
                answer = await client.send("POST", self.url, headers=headers, content=body)
        asked = retry_after(answer)
        return Response(b"", answer.status, {} if asked is None else {"Retry-After": f"{asked:.0f}"})

    def _holds(self, message_id: str) -> bool:
        """Whether a message waits: until another one has overtaken it, or for MOST_HELD attempts."""
        if message_id in self._released:
            return False
        if not self._held.keys() <= {message_id}:  # this one overtakes
            self._released |= {*self._held, message_id}
            self._held.clear()
            return False
        self._held[message_id] = self._held.get(message_id, 0) + 1
        if self._held[message_id] > MOST_HELD:
            self._released.add(message_id)
            self._held.clear()
            return False
        return True
