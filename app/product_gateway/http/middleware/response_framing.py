"""Response framing: a response whose status allows no content gets none (RFC 9110 §6.4.1, §8.6)."""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

CONTENT_HEADERS = frozenset((b"content-length", b"transfer-encoding"))


def allows_content(status: int) -> bool:
    """Return whether a response with this status can have a body: 1xx, 204 and 304 cannot."""
    return status >= 200 and status not in (204, 304)


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
                bare = not allows_content(message["status"])
                message = _without_length(message) if bare else message
            elif bare and message.get("body"):
                logger.error(
                    "A response to %s had a body, which its status does not allow. The body was removed.",
                    scope["method"],
                )
                message = {**message, "body": b""}
            await send(message)

        await self._app(scope, receive, framed)


def _without_length(message: Message) -> Message:
    kept = [(name, value) for name, value in message["headers"] if name.lower() not in CONTENT_HEADERS]
    return {**message, "headers": kept}
