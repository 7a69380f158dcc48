"""What the parts of this server know about one request: a typed object in the ASGI scope."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from product_gateway.http.limits import UnsentBytes

KEY = "product_gateway.request"


@dataclass(slots=True)
class RequestContext:
    """The state of one request that protocol, middleware and handlers share."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)  # of the response, whichever part makes it
    release_slot: Callable[[], None] = lambda: None  # gives its place in the concurrency limit to another request
    status: int = 0  # of the response; 0 until it starts
    waited: float = 0.0  # seconds of a long poll: the client asked to wait, so they do not count as response time
    # Done when a long poll must end. True: the client is gone. False: it sent EOF, or the server shuts down.
    disconnected: asyncio.Future[bool] | None = None
    unsent: UnsentBytes | None = None  # the server's bound for large responses
    arguments: dict[str, Any] = field(default_factory=dict)  # of the operation, by parameter name
    public_path: str = ""  # the path prefix under which the client sees this server
    forwarded_host: str = ""  # the host that the client asked, if a trusted proxy says so


def request_context(scope: Scope) -> RequestContext:
    """Return the context of the request. Add one where the server has not."""
    found: RequestContext | None = scope.get(KEY)
    if found is None:
        found = scope[KEY] = RequestContext()
    return found


def header_values(scope: Scope, name: bytes) -> list[str]:
    """Return the values of a header of the request, one for each line. `name` is in lower case."""
    return [value.decode("latin-1") for found, value in scope["headers"] if found == name]
