"""Failed pulls, webhooks and fetches of keys: nothing of what they read stays in memory, though the collector rests."""

import asyncio
import gc
import gzip
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.responses import Response, StreamingResponse

from product_gateway import settings
from product_gateway.auth.jwks import Jwks
from product_gateway.db import merchants
from product_gateway.db.database import Database
from product_gateway.errors import OutboundError, Unavailable
from product_gateway.http_client.client import MEBIBYTE, HttpClient
from product_gateway.model.syncs import SyncStatus
from product_gateway.settings import Settings
from tests.support.scripted_answers import Merchant, as_bytes, item, page_of
from tests.support.serving import serve
from tests.support.syncing import run

BODY = 2 * MEBIBYTE
ROUNDS = 3
BLANK = b" " * BODY
RECORDS = [item(f"r{number}", description="x" * 100_000) for number in range(20)]


def whole(content: bytes, status: int = 200, **headers: str) -> Callable[[], Response]:
    """An answer that comes whole."""
    return lambda: Response(content, status, {name.replace("_", "-"): value for name, value in headers.items()})


def chunked(content: bytes) -> Callable[[], Response]:
    """An answer whose size is not announced."""

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 2**16):
            yield content[at : at + 2**16]

    return lambda: StreamingResponse(chunks())


def broken_off(content: bytes) -> Callable[[], Response]:
    """An answer whose connection is closed before its end."""

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 2**16):
            yield content[at : at + 2**16]
        raise ConnectionAbortedError

    return lambda: StreamingResponse(chunks())


FAILURES = {
    "too large": chunked(BLANK * 2),
    "too large when decompressed": whole(gzip.compress(BLANK * 2), content_encoding="gzip"),
    "broken off": broken_off(BLANK),
    "not JSON": whole(BLANK + b"{"),
    "not UTF-8": whole(BLANK + b'{"items": [{"id": "a", "title": "caf\xe9"}], "pagination": {"moreResults": false}}'),
    "not a page": whole(orjson.dumps({"items": "x" * BODY, "pagination": {}})),
    "a cursor that was asked for": whole(as_bytes(page_of(*RECORDS, next_cursor="1"))),
    "gzip cut off": whole(gzip.compress(BLANK)[:-8], content_encoding="gzip"),
    "an unknown coding": whole(BLANK, content_encoding="br"),
    "an error in all attempts": whole(BLANK, 503),
    "no access": whole(BLANK, 401),
    "half a surrogate pair": whole(BLANK + b'{"items": [1, "\\ud83d"], "pagination": 5}'),
}


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    """Answers up to one and a half bodies, and little patience."""
    return settings.load(
        data_dir=tmp_path,
        worker_poll_seconds=0.01,
        allow_private_addresses=True,
        request_attempts=2,
        retry_wait_seconds=0.001,
        max_page_bytes=BODY * 3 // 2,
    )


@pytest.fixture
def merchant() -> Iterator[Merchant]:
    """A product service that says what it is told to."""
    merchant = Merchant()
    with serve(merchant) as url:
        merchant.url = url
        yield merchant


async def growth(what: Callable[[], Awaitable[Any]]) -> int:
    """The bytes by which memory grows over the rounds, after one to warm up, without the garbage collector."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        await what()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(ROUNDS):
            await what()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize(
    ("name", "at_page"), [*((each, 1) for each in FAILURES), ("too large", 2), ("not a page", 2), ("broken off", 2)]
)
async def test_a_failed_pull_keeps_none_of_its_bodies(
    database: Database, made: Settings, merchant: Merchant, name: str, at_page: int
) -> None:
    """Or a merchant with large broken pages ends the syncs of all others, for want of memory."""
    await database.write(merchants.update_merchant, "shop", product_service_url=merchant.url)

    async def fail() -> None:
        good = [Response(as_bytes(page_of(*RECORDS, next_cursor="1")))] * (at_page - 1)
        merchant.answers = [*good, *(FAILURES[name]() for _ in range(9))]
        merchant.asked.clear()
        assert (await run(made, database)).status is SyncStatus.FAILED

    assert await growth(fail) < 2 * BODY  # a connection to PostgreSQL may keep what it was sent last


@pytest.mark.parametrize("failing", FAILURES.values(), ids=FAILURES)
async def test_a_message_keeps_nothing_of_its_answer(merchant: Merchant, failing: Callable[[], Response]) -> None:
    """A worker sends thousands of messages."""
    async with HttpClient(allow_private_addresses=True, max_bytes=2**16) as outbound:

        async def send() -> None:
            merchant.answers = [failing()]
            await outbound.send("POST", merchant.url, content=b"{}")

        assert await growth(send) < MEBIBYTE


@pytest.mark.parametrize("failing", FAILURES.values(), ids=FAILURES)
async def test_a_failed_fetch_of_keys_keeps_none_of_its_bodies(
    merchant: Merchant, failing: Callable[[], Response]
) -> None:
    """Any request with an unknown key may cause one."""
    async with HttpClient(allow_private_addresses=True, max_bytes=BODY * 3 // 2) as outbound:

        async def fetch() -> None:
            merchant.answers = [failing()]
            with pytest.raises(Unavailable):
                await Jwks(outbound, f"{merchant.url}/keys").find("one", "ES256")

        assert await growth(fetch) < BODY


async def test_a_cancelled_request_keeps_nothing_of_its_answer(merchant: Merchant) -> None:
    """A sync is cancelled while its page comes in."""

    async def chunks() -> AsyncIterator[bytes]:
        yield BLANK
        await asyncio.sleep(60)

    async with HttpClient(allow_private_addresses=True) as outbound:

        async def cancel() -> None:
            merchant.answers = [StreamingResponse(chunks())]
            with pytest.raises((TimeoutError, OutboundError)):
                await asyncio.wait_for(outbound.get(merchant.url), 0.3)

        assert await growth(cancel) < BODY
