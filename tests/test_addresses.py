"""addresses: what is on the public internet."""

import pytest

from product_gateway.addresses import is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("64:ff9b::5db8:d822", True),
        ("::ffff:93.184.216.34", True),
        ("2002:5db8:d822::1", True),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("198.18.0.1", False),
        ("192.0.2.1", False),
        ("::", False),
        ("::7f00:1", False),
        ("fec0::1", False),
        ("2001:db8::1", False),
        ("2001::1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b:1::a00:1", False),
        ("fe80::1%1", False),
    ],
)
def test_only_global_unicast_addresses_are_public(address: str, public: bool) -> None:
    """An IPv6 address that carries an IPv4 address is as public as what it carries."""
    assert is_public(address) is public
