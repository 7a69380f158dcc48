"""The check for addresses on the public internet."""

import pytest

from product_gateway.http_client.resolver import is_public

PUBLIC = [
    "93.184.216.34", "8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "168.63.129.15",
    "168.63.129.17", "192.0.1.1", "192.88.98.1", "192.88.100.1", "198.17.255.255", "198.20.0.1", "223.255.255.254",
    "2606:4700::1111", "2a00:1450:4001:81b::200e", "2001:200::1", "2001:4860:4860::8888", "2620:4f:8001::1", "3ffd::1",
    "3fff:1000::1",
    "64:ff9b::5db8:d822", "::ffff:93.184.216.34", "2002:5db8:d822::1", "2606:4700::5efe:5db8:d822",
    "2606:4700::200:5efe:5db8:d822", "2606:4700::5eff:a00:1", "2606:4700::a00:1",
]  # fmt: skip
NOT_PUBLIC = [
    # IPv4
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.0.1",
    "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.0.9", "192.0.0.170", "192.0.2.1", "192.31.196.1",
    "192.52.193.1", "192.88.99.1", "192.88.99.2", "192.168.0.1", "192.175.48.1", "198.18.0.1", "198.19.255.255",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    # metadata of clouds
    "169.254.169.254", "169.254.170.2", "169.254.0.23", "100.100.100.200", "192.0.0.192", "168.63.129.16",
    "fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fe80::a9fe:a9fe",
    # IPv6
    "::", "::1", "fe80::1", "fe80::1%1", "febf::1", "fc00::1", "fdff::1", "fec0::1", "ff02::1", "ff0e::1", "100::1",
    "100:0:0:1::1", "2001::1", "2001:1::1", "2001:1::2", "2001:2::1", "2001:3::1", "2001:4:112::1", "2001:10::1",
    "2001:20::1", "2001:30::1", "2001:1ff::1", "2001:db8::1", "2620:4f:8000::1", "3ffe::1", "3fff::1", "3fff:fff::1",
    "5f00::1", "4000::1", "1::1", "e000::1",
    # IPv4 in IPv6: mapped, compatible, translated, NAT64, its local prefix, 6to4, Teredo, ISATAP
    "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:168.63.129.16", "::ffff:192.88.99.1", "::7f00:1",
    "::5db8:d822", "::ffff:0:a00:1", "::ffff:0:5db8:d822", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::a83f:8110",
    "64:ff9b:1::5db8:d822", "64:ff9b:1:ffff::a00:1", "64:ff9b:0:1::5db8:d822", "2002:a00:1::1", "2002:7f00:1::",
    "2002:a9fe:a9fe::1", "2002:c058:6301::1", "2001:0:5db8:d822:8000:63bf:f5ff:fffe",
    "2606:4700::5efe:a00:1", "2606:4700::200:5efe:10.0.0.1", "2606:4700::100:5efe:7f00:1",
    "2606:4700:1:2:300:5efe:169.254.169.254", "fe80::5efe:5db8:d822", "2002:5db8:d822::5efe:a00:1",
    "2002:a00:1::5efe:5db8:d822",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_global_unicast_addresses_are_public(address: str) -> None:
    """Also beside the blocks that are not; and those that carry a public IPv4 address."""
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_special_purpose_addresses_are_not_public(address: str) -> None:
    """IANA's registries, clouds' metadata services, and each way to write an IPv4 address into an IPv6 one."""
    assert not is_public(address)
