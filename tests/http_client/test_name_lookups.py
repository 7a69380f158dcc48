"""Name lookups: a DNS server that does not answer delays neither other names nor the end of the process."""

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from product_gateway.errors import Unreachable
from product_gateway.http_client.client import HttpClient
from product_gateway.http_client.name_lookups import NameLookups, system_lookup
from tests.support.serving import serve


class Servers:
    """DNS servers: names that begin with `slow` are answered when `let_go` is set, all others at once."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let_go = threading.Event()

    def lookup(self, host: str) -> list[str]:
        """Loopback, for every name."""
        self.asked.append(host)
        if host.startswith("slow"):
            self.let_go.wait(60)
        if host.startswith("unknown"):
            raise OSError
        return ["127.0.0.1"]


def lookups_under_way() -> list[threading.Thread]:
    """The threads of lookups."""
    return [each for each in threading.enumerate() if each.name.startswith("lookup of ")]


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Let go at the end, so that no thread is left behind."""
    servers = Servers()
    yield servers
    servers.let_go.set()
    for each in lookups_under_way():
        each.join(20)


async def ok(_: Request) -> Response:
    """An answer."""
    return JSONResponse({})


async def test_a_slow_dns_server_delays_its_own_merchant_only(servers: Servers) -> None:
    """Four pulls from a merchant whose name is not answered, and one from another merchant."""
    with serve(Starlette(routes=[Route("/", ok)])) as url:
        port = url.rpartition(":")[2]
        async with HttpClient(
            allow_private_addresses=True, connect_timeout=3, lookup=servers.lookup, total_timeout=30
        ) as outbound:
            slow = [asyncio.create_task(outbound.get(f"http://slow.example:{port}/")) for _ in range(4)]
            await asyncio.sleep(0.1)
            began = time.monotonic()
            for number in range(4):
                assert (await outbound.get(f"http://shop{number}.example:{port}/")).status == 200
            assert time.monotonic() - began < 2
            assert len(lookups_under_way()) == 1
            for each in await asyncio.gather(*slow, return_exceptions=True):
                assert isinstance(each, Unreachable)
                assert each.detail == "The host name slow.example could not be looked up in time (3 s)."
            assert servers.asked.count("slow.example") == 1
            servers.let_go.set()
            assert (await outbound.get(f"http://slow.example:{port}/")).status == 200


async def test_lookups_of_one_name_share_a_thread_though_they_time_out(servers: Servers) -> None:
    """A lookup cannot be cancelled: with one for each attempt, the threads would pile up."""
    lookups = NameLookups(servers.lookup, 0.05)
    for _ in range(5):
        with pytest.raises(Unreachable, match="in time"):
            await lookups.addresses("slow.example")
    assert len(lookups_under_way()) == 1
    servers.let_go.set()
    assert await lookups.addresses("slow.example") == ["127.0.0.1"]


async def test_a_cancelled_waiter_does_not_cancel_the_shared_lookup(servers: Servers) -> None:
    """A sync is cancelled while another one of the same merchant waits for the same name."""
    lookups = NameLookups(servers.lookup, 30)
    first, second = (asyncio.create_task(lookups.addresses("slow.example")) for _ in range(2))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    servers.let_go.set()
    assert await second == ["127.0.0.1"]


async def test_names_that_hang_are_bounded(servers: Servers) -> None:
    """Further lookups are refused at once, until running ones end."""
    lookups = NameLookups(servers.lookup, 0.05, at_once=2)
    for name in ("slow1.example", "slow2.example"):
        with pytest.raises(Unreachable, match="in time"):
            await lookups.addresses(name)
    with pytest.raises(Unreachable, match="2 lookups of other names are not answered yet"):
        await lookups.addresses("shop.example")
    assert len(lookups_under_way()) == 2
    servers.let_go.set()
    async with asyncio.timeout(20):
        while True:
            try:
                assert await lookups.addresses("shop.example") == ["127.0.0.1"]
                break
            except Unreachable:
                await asyncio.sleep(0.01)


async def test_a_name_without_an_address_is_told_as_such(servers: Servers) -> None:
    """The next call looks the name up again."""
    lookups = NameLookups(servers.lookup, 20)
    for _ in range(2):
        with pytest.raises(Unreachable, match="could not be found"):
            await lookups.addresses("unknown.example")
    assert servers.asked == ["unknown.example"] * 2


async def test_the_systems_own_names_are_known() -> None:
    """/etc/hosts counts, as for every other program."""
    assert set(await NameLookups(system_lookup, 20).addresses("localhost")) & {"127.0.0.1", "::1"}


def test_a_process_ends_while_a_lookup_hangs() -> None:
    """A worker stops within seconds, although a DNS server does not answer."""
    code = """
        import asyncio, time
        from product_gateway.errors import Unreachable
        from product_gateway.http_client.client import HttpClient

        def lookup(host):
            time.sleep(60)

        async def main():
            async with HttpClient(allow_private_addresses=True, connect_timeout=0.1, lookup=lookup) as one:
                try:
                    await one.get("http://slow.example/")
                except Unreachable as error:
                    print(error.detail)

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=40, check=True
    )
    assert done.stdout == "The host name slow.example could not be looked up in time (0.1 s).\n"
    assert done.stderr == ""
