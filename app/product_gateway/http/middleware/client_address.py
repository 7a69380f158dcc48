"""The address and scheme of a client behind trusted proxies: `X-Forwarded-For` and `X-Forwarded-Proto`.

`Forwarded` (RFC 7239) is ignored: most proxies pass it on unchanged, so a client could claim any address.
"""

import ipaddress
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from product_gateway.http.middleware.public_path import trusting

LONGEST_ENTRY = 100
SCHEMES = ("http", "https")
# An address and optionally a port (RFC 7239 §6; obfuscated ports begin with _). IPv6 with a port is in brackets.
_BRACKETED = re.compile(r"\[([^\[\]]+)\](?::([0-9]{1,5}|_[A-Za-z0-9._-]+))?")
_IPV4 = re.compile(r"([0-9.]+)(?::([0-9]{1,5}|_[A-Za-z0-9._-]+))?")


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
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if number > 65535 or (entry.startswith("[") and address.version == 4):
        return None
    return str(getattr(address, "ipv4_mapped", None) or address), number


class ClientAddress:
    """Replaces the address and scheme of a trusted proxy by its client's.

    Place it inside middleware that needs the proxy's own address.
    """

    def __init__(self, app: ASGIApp, *, trusted_proxies: Sequence[str]) -> None:
        self._app = app
        self._trusts = trusting(trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("client")
        if scope["type"] == "http" and peer and self._trusts(peer[0]):
            told = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
            scope["client"] = self._client(peer, ",".join(told))
            schemes = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
            scheme = schemes[-1].decode("latin-1").strip().lower() if schemes else ""
            if scheme in SCHEMES:
                scope["scheme"] = scheme
        await self._app(scope, receive, send)

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
