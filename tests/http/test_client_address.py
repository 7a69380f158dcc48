"""The client's address behind proxies."""

from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from product_gateway.http.middleware.trusted_proxies import TrustedProxies, parse_entry
from tests.support.deployment import Deployment
from tests.support.log_lines import serving

PROXIES = ("127.0.0.1", "10.0.0.0/8", "fd00::/8")
ENTRIES: list[tuple[str, tuple[str, int] | None]] = [
    ("203.0.113.7", ("203.0.113.7", 0)),
    (" 203.0.113.7\t", ("203.0.113.7", 0)),
    ("203.0.113.7:4711", ("203.0.113.7", 4711)),
    ('"203.0.113.7:4711"', ("203.0.113.7", 4711)),
    ('"203.0.113.7"', ("203.0.113.7", 0)),
    ("203.0.113.7:_port", ("203.0.113.7", 0)),
    ("2001:db8::1", ("2001:db8::1", 0)),
    ("2001:DB8:0:0::1", ("2001:db8::1", 0)),
    ("[2001:db8::1]", ("2001:db8::1", 0)),
    ("[2001:db8::1]:443", ("2001:db8::1", 443)),
    ('"[2001:db8::1]:443"', ("2001:db8::1", 443)),
    ("fe80::1%eth0", ("fe80::1", 0)),
    ("[fe80::1%25eth0]:80", ("fe80::1", 80)),
    ("::ffff:203.0.113.7", ("203.0.113.7", 0)),
    ("[::ffff:203.0.113.7]:80", ("203.0.113.7", 80)),
    *((text, None) for text in (
        "", '"', '""', "unknown", "Unknown", "_hidden", "_gazonk:80", "localhost", "example.com:80", "203.0.113",
        "203.0.113.7.8", "203.0.113.256", "203.0.113.07", "203.0.113.7:", "203.0.113.7:99999", "203.0.113.7:x",
        "203.0.113.7:1:2", "203.0.113.7/24", "[203.0.113.7]:80", "[2001:db8::1", "2001:db8::1]", "[2001:db8::1]443",
        "[2001:db8::1]:", "[[::1]]", "[]", "2001:db8::g", "3405803783", "0x7f.1", "for=203.0.113.7", "\u0663.1.1.1",
        "203.0.113.7 198.51.100.1", "x" * 5000, "[" * 5000, "1" * 5000, "203.0.113.7\n",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), ENTRIES)
def test_an_entry_is_an_address_with_or_without_a_port(text: str, expected: tuple[str, int] | None) -> None:
    """All forms that load balancers write are accepted, and no other."""
    assert parse_entry(text) == expected


async def client_of(headers: Sequence[tuple[str, str]], peer: str = "127.0.0.1") -> tuple[str, str]:
    """Return the client's address and the scheme that the application sees."""
    seen: dict[str, Any] = {}

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update(scope)

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nothing is received or sent")

    sent = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "scheme": "http", "client": (peer, 1), "headers": sent}
    await TrustedProxies(application, trusted_proxies=PROXIES)(scope, nothing, nothing)
    return seen["client"][0], seen["scheme"]


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ((), "127.0.0.1"),
        (("",), "127.0.0.1"),
        (("203.0.113.7",), "203.0.113.7"),
        (("203.0.113.7:4711",), "203.0.113.7"),
        (("198.51.100.1, 203.0.113.7:4711",), "203.0.113.7"),
        (("198.51.100.1", "203.0.113.7"), "203.0.113.7"),
        (("203.0.113.7, 10.1.2.3:80",), "203.0.113.7"),
        (("203.0.113.7, [fd00::1]:443, 10.1.2.3",), "203.0.113.7"),
        (("203.0.113.7, ::ffff:10.1.2.3",), "203.0.113.7"),
        (("203.0.113.7, ,",), "203.0.113.7"),
        (("10.9.9.9, 10.1.2.3",), "10.9.9.9"),
        (("unknown",), "127.0.0.1"),
        (("_hidden, 10.1.2.3",), "10.1.2.3"),
        (("203.0.113.7, unknown",), "127.0.0.1"),
        (("203.0.113.7, unknown, 10.1.2.3",), "10.1.2.3"),
        (("203.0.113.7, x y z",), "127.0.0.1"),
    ],
)
async def test_the_client_is_the_last_address_from_a_trusted_proxy(forwarded: Sequence[str], client: str) -> None:
    """Entries before it, or before an invalid entry, may be forged."""
    assert (await client_of([("X-Forwarded-For", each) for each in forwarded]))[0] == client


async def test_forwarded_addresses_from_untrusted_peers_are_ignored() -> None:
    """Even a trusted proxy's Forwarded is ignored: proxies often pass on their client's."""
    told = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https")]
    assert await client_of(told, peer="198.51.100.9") == ("198.51.100.9", "http")
    assert await client_of(told, peer="not an address") == ("not an address", "http")
    others = [("Forwarded", "for=203.0.113.7;proto=https"), ("X-Real-IP", "203.0.113.7")]
    assert await client_of(others) == ("127.0.0.1", "http")


@pytest.mark.parametrize(
    ("told", "scheme"),
    [("https", "https"), ("HTTPS ", "https"), ("http", "http"), ("ftp", "http"), ("https, http", "http")],
)
async def test_the_scheme_comes_from_the_trusted_proxy(told: str, scheme: str) -> None:
    """Only http and https are accepted."""
    assert (await client_of([("X-Forwarded-Proto", told)]))[1] == scheme


def test_the_log_has_the_address_without_its_port(sqlite_deployment: Deployment) -> None:
    """An invalid address is not logged."""
    sqlite_deployment.environment["PRODUCT_GATEWAY_TRUSTED_PROXIES"] = "127.0.0.1"
    sent = ["203.0.113.7:4711", '"[2001:db8::1]:443"', "unknown", "evil client=1.2.3.4"]
    with serving(sqlite_deployment, "json") as (url, log):
        for each in sent:
            httpx2.get(f"{url}/x", headers={"X-Forwarded-For": each})
        lines = log.requests(len(sent))
    assert [each["client"] for each in lines] == ["203.0.113.7", "2001:db8::1", "127.0.0.1", "127.0.0.1"]
