"""The path prefix under which a proxy publishes this server.

The proxy removes the prefix from requests. Links in responses need it again. A trusted proxy names it in
`X-Forwarded-Prefix`; otherwise the setting applies.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from product_gateway.http.context import request_context
from product_gateway.settings import LONGEST_PATH_PREFIX, is_path_prefix

LINKS = (b"location", b"link")
_OUR_PATH = re.compile(rb"(\A|<)/(?!/)")


class PublicPath:
    """Stores the prefix in the request context, and adds it to the paths in `Location` and `Link`.

    Place it outside ClientAddress, which replaces the proxy's address.
    """

    def __init__(self, app: ASGIApp, *, base_path: str = "", trusted_proxies: Sequence[str] = ()) -> None:
        self._app = app
        self._base_path = base_path
        self._trusts = trusting(trusted_proxies) if trusted_proxies else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = self._prefix(scope) if scope["type"] == "http" else ""
        if not prefix:
            await self._app(scope, receive, send)
            return
        request_context(scope).public_path = prefix
        front = rb"\1" + prefix.encode() + b"/"

        async def prefixed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    (name, _OUR_PATH.sub(front, value) if name.lower() in LINKS else value)
                    for name, value in message["headers"]
                ]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, prefixed)

    def _prefix(self, scope: Scope) -> str:
        if self._trusts is not None and scope.get("client") and self._trusts(scope["client"][0]):
            values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-prefix"]
            if values:
                found = _joined(values)
                if found is not None:
                    return found
        return self._base_path


def _joined(values: Sequence[str]) -> str | None:
    """Join the prefixes of several proxies, the outermost first. Return None if the result is no valid prefix."""
    parts = [each.strip(" \t").removesuffix("/") for value in values for each in value.split(",")]
    joined = "".join(parts)
    is_valid = len(joined) <= LONGEST_PATH_PREFIX and all(not each or is_path_prefix(each) for each in parts)
    return joined if is_valid else None


def trusting(proxies: Sequence[str]) -> Callable[[str], bool]:
    """Return a predicate: is this address one of the proxies, or in one of the networks?"""
    networks = [ipaddress.ip_network(each) for each in proxies]

    @lru_cache(maxsize=4096)
    def trusts(address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in each for each in networks)

    return trusts
