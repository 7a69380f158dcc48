"""What the parts of this server know about one request: a typed object in the ASGI scope."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from product_gateway.http.unsent import UnsentBytes

KEY = "product_gateway.request"


@dataclass(slots=True)
class RequestContext:
    """The state of one request that protocol, middleware and handlers share."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Headers of the response, whichever part makes it."""
    release_slot: Callable[[], None] = lambda: None
    """Gives the request's place in the concurrency limit to another request."""
    status: int = 0
    """Status of the response; 0 until it starts."""
    waited: float = 0.0
    """Seconds of a long poll: the client asked to wait, so they do not count as response time."""
    disconnected: asyncio.Future[bool] | None = None
    """Done when a long poll must end. True: the client is gone. False: it sent EOF, or the server shuts down."""
    unsent: UnsentBytes | None = None
    """The server's bound for large responses."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """The operation's arguments, by parameter name."""
    public_path: str = ""
    """The path prefix under which the client sees this server."""


def request_context(scope: Scope) -> RequestContext:
    """Return the context of the request. Add one where the server has not."""
    found: RequestContext | None = scope.get(KEY)
    if found is None:
        found = scope[KEY] = RequestContext()
    return found
