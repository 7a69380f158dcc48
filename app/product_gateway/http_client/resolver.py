"""A resolver that refuses hosts with addresses that are not on the public internet."""

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Network, ip_address, ip_network

from aiohttp.abc import AbstractResolver, ResolveResult

from product_gateway.errors import Unreachable
from product_gateway.http_client.name_lookups import NameLookups

ADDRESSES_TRIED = 4

# IANA's special-purpose registries (RFC 6890), whole blocks. Python's list differs between its versions.
_NOT_PUBLIC = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared, with Alibaba Cloud's metadata at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host: metadata, DNS, agents
        "169.254.0.0/16",  # link-local, with most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, with Oracle Cloud's metadata at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # automatic multicast tunneling
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarking, anycast
        "2001:db8::/32",  # documentation
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # 6bone, returned
        "3fff::/20",  # documentation
    )
)
_IPV6_UNICAST = IPv6Network("2000::/3")  # excludes loopback, unique local, link-local, site-local, multicast
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052; a network's own NAT64 prefix cannot be recognised
_ISATAP, _ISATAP_MASK = 0x0000_5EFE, 0xFCFF_FFFF  # bits 64 to 95 under any prefix (RFC 5214 §6.1)


def is_public(address: str) -> bool:
    """Return whether this is a global unicast address. An embedded IPv4 address must be public too."""
    ip = ip_address(address)
    if any(ip in each for each in _NOT_PUBLIC):
        return False
    if isinstance(ip, IPv4Address):
        return True
    is_isatap = (int(ip) >> 32) & _ISATAP_MASK == _ISATAP
    last = IPv4Address(int(ip) & 0xFFFF_FFFF) if is_isatap or ip in _NAT64 else None
    if not all(each is None or is_public(str(each)) for each in (ip.ipv4_mapped, ip.sixtofour, last)):
        return False
    return ip.ipv4_mapped is not None or ip in _NAT64 or ip in _IPV6_UNICAST


class PublicOnlyResolver(AbstractResolver):
    """A resolver that checks every address of a host: `check(host, address)` raises AddressNotAllowed."""

    def __init__(self, check: Callable[[str, str], None], lookups: NameLookups) -> None:
        self._check = check
        self._lookups = lookups

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the first addresses. Raises AddressNotAllowed if one of all is not allowed, or Unreachable."""
        addresses = list(dict.fromkeys(await self._lookups.addresses(host)))
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
        """Do nothing: aiohttp requires this method."""
