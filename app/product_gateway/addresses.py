"""Which addresses are on the public internet, and whether all of a host's are."""

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from aiohttp.abc import AbstractResolver, ResolveResult

from product_gateway.errors import Unreachable
from product_gateway.name_lookups import LookupFailed, NameLookups

ADDRESSES_TRIED = 4

_IPV6_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether it is a global unicast address; one that carries an IPv4 address must carry a public one."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return ip.is_global and not ip.is_multicast
    carried = _carried_ipv4(ip)
    if carried is not None:
        return is_public(str(carried))
    return ip in _IPV6_UNICAST and ip.is_global


def _carried_ipv4(ip: IPv6Address) -> IPv4Address | None:
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour


class CheckedNames(AbstractResolver):
    """Looks a host name up and checks every address that it has: `check(host, address)` raises AddressNotAllowed."""

    def __init__(self, check: Callable[[str, str], None], lookups: NameLookups) -> None:
        self._check = check
        self._lookups = lookups

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Some of its addresses. Raises AddressNotAllowed where one of all is not allowed, and Unreachable."""
        try:
            addresses = list(dict.fromkeys(await self._lookups.addresses(host)))
        except LookupFailed as failed:
            raise Unreachable(f"The host name {host} {failed}.") from failed
        for address in addresses:
            self._check(host, address)
        if not addresses:
            raise Unreachable(f"The host name {host} has no address.")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses[:ADDRESSES_TRIED]
        ]

    async def close(self) -> None:
        """There is nothing to let go of."""
