"""The URL under which the client has reached this server."""

import re

from starlette.types import Scope

from product_gateway.http.context import header_values, request_context

RESOURCE_METADATA = "/.well-known/oauth-protected-resource"  # RFC 9728 §3
LONGEST_HOST = 255
# A name or an address, and optionally a port: nothing that could leave a quoted string or a URL's authority.
_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def is_host(text: str) -> bool:
    """Return whether `text` is a host with an optional port (RFC 9110 §7.2), safe in URLs and headers."""
    return len(text) <= LONGEST_HOST and _HOST.fullmatch(text) is not None


def public_url(scope: Scope) -> str | None:
    """Return scheme, host and path prefix, without a slash at the end. Return None without a usable `Host`.

    A trusted proxy's `X-Forwarded-Host` takes precedence over `Host`.
    """
    context = request_context(scope)
    host = context.forwarded_host or ",".join(header_values(scope, b"host")).strip(" \t")
    return f"{scope['scheme']}://{host}{context.public_path}" if is_host(host) else None
