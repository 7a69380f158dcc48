"""Response framing: a response whose status allows no content gets none (RFC 9110 §6.4.1, §8.6)."""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

CONTENT_HEADERS = frozenset((b"content-length", b"transfer-encoding"))


class Framed:
    """The outermost middleware: removes and logs a body that the status does not allow, and removes its length.

    Otherwise uvicorn closes the connection, or the client reads the body as the next response. uvicorn itself drops
    the body of a HEAD response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        bare = False

        async def framed(message: Message) -> None:
            nonlocal bare
            if message["type"] == "http.response.start":
                bare = message["status"] < 200 or message["status"] in (204, 304)
                if bare:
                    headers = [each for each in message["headers"] if each[0].lower() not in CONTENT_HEADERS]
                    message = {**message, "headers": headers}
            elif bare and message.get("body"):
                logger.error(
                    "A response to %s had a body, which its status does not allow. The body was removed.",
                    scope["method"],
                )
                message = {**message, "body": b""}
            await send(message)

        await self._app(scope, receive, framed)
