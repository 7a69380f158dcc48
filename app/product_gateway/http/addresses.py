"""IP addresses of clients, as text."""

import ipaddress


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address, as IPv4 if it is mapped into IPv6 (RFC 4291 §2.5.5.2). Return None for any other text."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
