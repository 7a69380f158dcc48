"""What trusted proxies say about a request: `X-Forwarded-For`, `-Proto`, `-Host` and `-Prefix`.

`Forwarded` (RFC 7239) is ignored: most proxies pass it on unchanged, so a client could claim any address.
"""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from product_gateway.http.addresses import parse_address
from product_gateway.http.context import header_values, request_context
from product_gateway.http.public_url import RESOURCE_METADATA, is_host
from product_gateway.settings import LONGEST_PATH_PREFIX, is_path_prefix

LONGEST_ENTRY = 100
SCHEMES = ("http", "https")
LINKS = (b"location", b"link")
# An address and optionally a port (RFC 7239 §6; obfuscated ports begin with _). IPv6 with a port is in brackets.
_BRACKETED = re.compile(r"\[([^\[\]]+)\](?::([0-9]{1,5}|_[A-Za-z0-9._-]+))?")
_IPV4 = re.compile(r"([0-9.]+)(?::([0-9]{1,5}|_[A-Za-z0-9._-]+))?")
_OUR_PATH = re.compile(rb"(\A|<)/(?!/)")


class TrustedProxies:
    """Replaces the address and scheme of a trusted proxy by its client's, and publishes paths under a prefix.

    The proxy removes the prefix from requests, and names it; otherwise it is `base_path`. The request context gets it,
    and the paths in `Location` and `Link`. Metadata is also found where the prefix comes after its well-known path (RFC
    9728 §3.1). Place it outside middleware that needs the client's address.
    """

    def __init__(self, app: ASGIApp, *, trusted_proxies: Sequence[str] = (), base_path: str = "") -> None:
        self._app = app
        self._networks = [ipaddress.ip_network(each) for each in trusted_proxies]
        self._trusts = lru_cache(maxsize=4096)(self._is_trusted)
        self._base_path = base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        prefix = self._base_path
        peer = scope.get("client")
        if self._networks and peer and self._trusts(peer[0]):
            scope["client"] = self._client(peer, ",".join(header_values(scope, b"x-forwarded-for")))
            scheme = "".join(header_values(scope, b"x-forwarded-proto")[-1:]).strip().lower()
            if scheme in SCHEMES:
                scope["scheme"] = scheme
            host = ",".join(header_values(scope, b"x-forwarded-host")).partition(",")[0].strip(" \t")
            if is_host(host):
                request_context(scope).forwarded_host = host
            prefix = _joined(header_values(scope, b"x-forwarded-prefix"), prefix)
        if prefix:
            request_context(scope).public_path = prefix
            if scope["path"] == RESOURCE_METADATA + prefix:
                scope["path"] = RESOURCE_METADATA
            send = _prefixing(send, rb"\1" + prefix.encode() + b"/")
        await self._app(scope, receive, send)

    def _is_trusted(self, address: str) -> bool:
        found = parse_address(address)
        return found is not None and any(found in each for each in self._networks)

    def _client(self, peer: tuple[str, int], told: str) -> tuple[str, int]:
        """Return the first address from the right that is not a trusted proxy: each proxy appends its client.

        Stop at an invalid entry: everything before it may be forged.
        """
        found = peer
        for text in reversed(told.split(",")):
            if not text.strip(" \t"):
                continue  # an empty element of a list (RFC 9110 §5.6.1)
            entry = parse_entry(text)
            if entry is None:
                break
            found = entry
            if not self._trusts(entry[0]):
                break
        return found


def parse_entry(text: str) -> tuple[str, int] | None:
    """Return address and port (0: not given) of an entry. Return None for `unknown` and for any other non-address."""
    entry = text.strip(" \t")
    if len(entry) >= 2 and entry[0] == entry[-1] == '"':
        entry = entry[1:-1]
    if len(entry) > LONGEST_ENTRY:
        return None
    match = _BRACKETED.fullmatch(entry) or _IPV4.fullmatch(entry)
    host, port = match.groups() if match else (entry, None)
    number = int(port) if port and port.isdigit() else 0
    address = parse_address(host.partition("%")[0])
    if address is None or number > 65535 or (entry.startswith("[") and ":" not in host):
        return None
    return str(address), number


def _joined(values: Sequence[str], default: str) -> str:
    """Join the prefixes of several proxies, the outermost first. Return `default` for none, or an invalid result."""
    parts = [each.strip(" \t").removesuffix("/") for value in values for each in value.split(",")]
    joined = "".join(parts)
    is_valid = values and len(joined) <= LONGEST_PATH_PREFIX and all(not each or is_path_prefix(each) for each in parts)
    return joined if is_valid else default


def _prefixing(send: Send, front: bytes) -> Send:
    async def prefixed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [
                (name, _OUR_PATH.sub(front, value) if name.lower() in LINKS else value)
                for name, value in message["headers"]
            ]
            message = {**message, "headers": headers}
        await send(message)

    return prefixed
