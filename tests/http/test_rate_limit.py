"""Rate limits of merchants and addresses."""

import re
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import limits
import pytest

from product_gateway import settings
from product_gateway.errors import RateLimited, SettingsError
from product_gateway.http.middleware.rate_limit import BoundedStorage, RateLimiter, SlidingWindows, network
from product_gateway.http.middleware.shared_rate_limit import SharedStorage
from product_gateway.http.shared_counters import SharedCounters
from tests.support.contract import Gateway, error, gateway
from tests.support.deployment import API

LIMITS = {"rate_limit_per_merchant": "3/day", "rate_limit_per_address": "5/day"}


@contextmanager
def limited(template: Path, folder: Path, **more: str) -> Iterator[Gateway]:
    """A gateway with limits; `shop` and `other` may sync."""
    database = folder / "gateway.db"
    database.write_bytes(template.read_bytes())
    with gateway(folder, f"sqlite:///{database}", **more) as served:
        served.add("shop")
        served.add("other")
        yield served


@pytest.fixture
def by_merchant(sqlite_template: Path, tmp_path: Path) -> Iterator[Gateway]:
    """Three requests a day for each merchant."""
    with limited(sqlite_template, tmp_path, rate_limit_per_merchant="3/day") as served:
        yield served


def refused(answer: httpx2.Response, who: str, limit: str) -> None:
    """Check for the 429 of a rate limit: with Retry-After, and without the Link of an active sync."""
    seconds = int(answer.headers["Retry-After"])
    detail = f"This {who} has made more than {limit}. Ask again in {seconds} second{'s' * (seconds > 1)}."
    assert error(answer, 429) == detail
    assert 1 <= seconds <= 3600
    assert "Link" not in answer.headers


def test_a_merchant_over_its_limit_gets_retry_after_and_others_are_unaffected(
    by_merchant: Gateway,
) -> None:
    """One merchant's loop must not become another's outage."""
    with by_merchant.of("shop") as shop, by_merchant.of("other") as other:
        assert [shop.get(f"{API}/products").status_code for _ in range(3)] == [200] * 3
        for method, path in (("GET", "/products"), ("PUT", "/sync/PRODUCT"), ("GET", "/syncs"), ("GET", "/products")):
            refused(shop.request(method, API + path), "merchant", "3 requests in 1 day")
        assert other.get(f"{API}/syncs").json()["data"] == []
        assert shop.get("/health/ready").status_code == 200


def test_a_merchants_limit_is_checked_after_parameters_and_before_the_database(by_merchant: Gateway) -> None:
    """Invalid requests do not use up a merchant's limit, and refused ones do not reach the database."""
    with by_merchant.of("unknown") as unknown, by_merchant.of("unknown", "sync:read") as reader:
        for _ in range(4):
            error(unknown.get(f"{API}/products?nonsense=1"), 400)
            error(reader.get(f"{API}/products"), 403)
        for _ in range(3):
            assert "does not know its merchant" in error(unknown.get(f"{API}/products"), 403)
        refused(unknown.get(f"{API}/products"), "merchant", "3 requests in 1 day")
    with by_merchant.client("nonsense") as anonymous:
        error(anonymous.get(f"{API}/products"), 401)


def test_the_429_of_an_active_sync_still_links_to_it(by_merchant: Gateway) -> None:
    """The Link distinguishes an active sync from a rate limit."""
    with by_merchant.of("shop") as shop:
        sync = shop.put(f"{API}/sync/PRODUCT").json()["data"]
        active = shop.put(f"{API}/sync/PRODUCT")
        assert sync["id"] in error(active, 429)
        assert active.headers["Link"] == f'<{API}/syncs/{sync["id"]}>; rel="monitor"'
        shop.get(f"{API}/products")
        refused(shop.put(f"{API}/sync/PRODUCT"), "merchant", "3 requests in 1 day")


def test_an_address_over_its_limit_is_refused_before_authentication_except_probes(
    sqlite_template: Path, tmp_path: Path
) -> None:
    """Guesses of tokens and paths count. A refused probe would make an orchestrator kill the process."""
    with limited(sqlite_template, tmp_path, rate_limit_per_address="5/day") as served:  # noqa: SIM117
        with served.client(None) as anonymous, served.of("shop") as shop:
            error(anonymous.get("/nowhere"), 404)
            error(anonymous.get(f"{API}/products"), 401)
            assert shop.get(f"{API}/products").status_code == 200
            error(shop.request("PATCH", f"{API}/products"), 405)
            assert anonymous.get("/openapi.yaml").status_code == 200
            for client, path in (
                (anonymous, f"{API}/products"),
                (shop, f"{API}/products"),
                (anonymous, "/openapi.yaml"),
            ):
                refused(client.get(path), "address", "5 requests in 1 day")
            answer = httpx2.get(f"{served.url}/nowhere")
            assert (answer.status_code, "Retry-After" in answer.headers) == (429, True)
            assert [anonymous.get(f"/health/{each}").status_code for each in ("live", "ready") * 6] == [200] * 12


def test_forwarded_addresses_from_untrusted_peers_do_not_evade_the_limit(sqlite_template: Path, tmp_path: Path) -> None:
    """uvicorn's own FORWARDED_ALLOW_IPS must have no effect."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FORWARDED_ALLOW_IPS", "*")
        for proxies in ({}, {"trusted_proxies": "192.0.2.1, 10.0.0.0/8"}):
            folder = tmp_path / str(len(proxies))
            folder.mkdir()
            with limited(sqlite_template, folder, rate_limit_per_address="5/day", **proxies) as served:
                for n in range(5):
                    forged = {"X-Forwarded-For": f"198.51.100.{n}", "Forwarded": f"for=198.51.100.{n}"}
                    assert httpx2.get(f"{served.url}/openapi.yaml", headers=forged).status_code == 200
                last = {"X-Forwarded-For": "198.51.100.9", "X-Real-Ip": "198.51.100.9"}
                refused(httpx2.get(f"{served.url}/openapi.yaml", headers=last), "address", "5 requests in 1 day")


def test_behind_a_trusted_proxy_each_ipv4_address_and_ipv6_64_is_counted(sqlite_template: Path, tmp_path: Path) -> None:
    """The proxy writes the last address of the header; the client may have forged the ones before it."""
    proxies = {"rate_limit_per_address": "2/day", "trusted_proxies": "127.0.0.1, 10.0.0.0/8"}
    with limited(sqlite_template, tmp_path, **proxies) as served, served.client(None) as proxy:

        def ask(forwarded: str) -> int:
            return proxy.get("/openapi.yaml", headers={"X-Forwarded-For": forwarded}).status_code

        assert [ask("198.51.100.1"), ask("198.51.100.1"), ask("198.51.100.1")] == [200, 200, 429]
        assert [ask("198.51.100.2"), ask("1.1.1.1, 198.51.100.2"), ask("8.8.8.8, 198.51.100.2")] == [200, 200, 429]
        assert ask("198.51.100.3, 10.1.2.3") == 200, "the proxy in between is trusted"
        assert [ask("198.51.100.3"), ask("198.51.100.3:4711, 10.9.9.9")] == [200, 429]
        assert [ask("2001:db8::1"), ask("2001:db8::2"), ask("[2001:db8:0:0:ffff::3]:99")] == [200, 200, 429]
        assert ask("2001:db8:0:1::1") == 200
        assert [ask("unknown"), ask("_hidden"), ask("x" * 5000)] == [200, 200, 429], (
            "all invalid addresses share one count"
        )


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unknown", ""),
        ("192.0.2.7/8", ""),
        ("x" * 100_000, ""),
    ],
)
def test_the_key_of_an_address_is_its_ipv4_form_or_ipv6_64(address: str, counted: str) -> None:
    """One subscriber has 2**64 IPv6 addresses, and an IPv4 address has two forms."""
    assert network(address) == counted


def ask(limit: RateLimiter, times: int) -> None:
    """Make `times` requests of one merchant."""
    for _ in range(times):
        limit.hit("shop")


@pytest.mark.parametrize(
    ("notation", "storage"),
    [
        ("3/second", BoundedStorage()),
        ("2/2 seconds", BoundedStorage()),
        ("1/second", BoundedStorage()),
        ("3/2 seconds", SharedStorage(SharedCounters(2), 1)),
    ],
)
def test_a_client_that_honours_retry_after_is_accepted(notation: str, storage: SlidingWindows) -> None:
    """A client that waits for Retry-After must not be refused again, whether or not processes share the counts."""
    limit = RateLimiter(notation, "merchant", storage=storage)
    for _ in range(2):
        with pytest.raises(RateLimited) as refusal:
            ask(limit, 4)
        time.sleep(refusal.value.seconds)
        limit.hit("shop")


def test_refused_requests_are_not_counted() -> None:
    """A client that retries at once is accepted as soon as one that waits."""
    limit = RateLimiter("2/2 seconds", "merchant")
    deadline = time.monotonic() + 20
    accepted = 0
    while accepted < 5:
        assert time.monotonic() < deadline, f"only {accepted} of a client's requests got in within 20 s"
        try:
            limit.hit("shop")
            accepted += 1
        except RateLimited:
            time.sleep(0.01)


def test_memory_of_a_rate_limit_is_bounded() -> None:
    """Addresses cost an attacker nothing. The oldest counts are dropped."""
    limit = RateLimiter("1/day", "address", storage=BoundedStorage(1000))
    sizes = []
    for n in range(100_000):
        if n == 85_000:
            tracemalloc.start()  # slow, so the last ones stand for all
        limit.hit(f"2001:db8:0:{n:x}::/64")
        if n in (90_000, 99_999):
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] - sizes[0] < 100_000, f"10,000 addresses have cost {sizes[1] - sizes[0]} bytes"
    with pytest.raises(RateLimited):
        limit.hit("2001:db8:0:1869f::/64")


def test_expired_counts_are_dropped() -> None:
    """A busy second must not use memory for ever."""
    counts = BoundedStorage()
    limit = RateLimiter("5/second", "address", storage=counts)
    for n in range(1000):
        limit.hit(str(n))
    assert len(counts) == 1000
    time.sleep(2.1)
    limit.hit("another")
    assert len(counts) == 1


def test_the_default_limit_is_6000_requests_a_minute() -> None:
    """This is more than a client needs, and less than what delays others."""
    limit = RateLimiter(settings.load().rate_limit_per_merchant, "merchant")
    for _ in range(6000):
        limit.hit("shop")
    with pytest.raises(RateLimited, match=r"^This merchant has made more than 6000 requests in 1 minute\."):
        limit.hit("shop")
    limit.hit("other")


def test_off_disables_a_limit(sqlite_template: Path, tmp_path: Path) -> None:
    """An empty value stands for the default."""
    with (
        limited(sqlite_template, tmp_path, rate_limit_per_merchant="off", rate_limit_per_address="off") as served,
        served.of("shop") as shop,
    ):
        assert {shop.get(f"{API}/syncs").status_code for _ in range(20)} == {200}


@pytest.mark.parametrize("good", ["100/minute", "1/second", "20/5 seconds", "20/5seconds", "1000/hour", "9999999/days"])
def test_a_valid_limit_setting_is_accepted(good: str) -> None:
    """Each notation that the settings accept is valid for `limits`."""
    assert settings.load(rate_limit_per_merchant=good).rate_limit_per_merchant == good
    parsed = limits.parse(good)
    found = re.fullmatch(r"(\d+)/(\d*) ?(\w+?)s?", good)
    assert found is not None
    assert (parsed.amount, parsed.multiples, parsed.GRANULARITY.name) == (int(found[1]), int(found[2] or 1), found[3])


@pytest.mark.parametrize(
    "bad", ["100", "0/minute", "100/fortnight", "-1/minute", "1.5/minute", "100/minute;1/second", "many/minute", "/day"]
)
@pytest.mark.parametrize("name", ["rate_limit_per_merchant", "rate_limit_per_address"])
def test_an_invalid_limit_setting_stops_the_start(name: str, bad: str) -> None:
    """Otherwise no limit would be in force."""
    with pytest.raises(SettingsError, match=f"^PRODUCT_GATEWAY_{name.upper()}: '{bad}' is no limit; write it like 100"):
        settings.load(**{name: bad})


@pytest.mark.parametrize("bad", ["proxy", "10.0.0.1/8", "10.0.0.1, *", "10.0.0.1 10.0.0.2", "::1/129"])
def test_an_invalid_trusted_proxy_stops_the_start(bad: str) -> None:
    """The peer of a connection is an address, never a name."""
    with pytest.raises(SettingsError, match=r"^PRODUCT_GATEWAY_TRUSTED_PROXIES: .*write addresses and networks like"):
        settings.load(trusted_proxies=bad)
