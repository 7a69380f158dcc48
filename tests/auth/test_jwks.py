"""The key set cache: how often it fetches the keys of an issuer, and what happens when the issuer is away."""

import asyncio
import shutil
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import orjson
import pytest

from product_gateway import settings
from product_gateway.api.app import create_app
from product_gateway.auth import jwks
from product_gateway.auth.jwks import Jwks
from product_gateway.errors import NotAuthenticated, Unavailable
from product_gateway.http_client.client import HttpClient
from tests.support.issuer import NEXT, PRIVATE, Issuer, jwk, signed, verifying
from tests.support.serving import serve


@pytest.fixture
async def outbound() -> AsyncIterator[HttpClient]:
    async with HttpClient(allow_private_addresses=True) as client:
        yield client


@pytest.fixture
async def keys(outbound: HttpClient, published: tuple[Issuer, str]) -> Jwks:
    return Jwks(outbound, published[1])


async def test_a_key_is_found_by_its_id_and_fetched_once(keys: Jwks, issuer: Issuer) -> None:
    """Not every request may cause a fetch."""
    for _ in range(3):
        assert await keys.find("one", "ES256") == verifying(PRIVATE)
    assert issuer.requests == 1


async def test_no_key_is_fetched_before_the_first_request(keys: Jwks, issuer: Issuer) -> None:
    """The gateway must start while its identity provider is down."""
    await asyncio.sleep(0)
    assert issuer.requests == 0


async def test_concurrent_requests_cause_one_fetch(keys: Jwks, issuer: Issuer) -> None:
    """A busy gateway that starts must not hammer the issuer."""
    issuer.seconds = 0.1
    found = await asyncio.gather(*[keys.find("one", "ES256") for _ in range(50)])
    assert found == [verifying(PRIVATE)] * 50
    assert issuer.requests == 1


async def test_a_new_key_is_found_as_soon_as_a_token_names_it(
    outbound: HttpClient, published: tuple[Issuer, str], issuer: Issuer
) -> None:
    """Rotation: the issuer publishes the next key, then signs with it. The old one is gone with the next fetch."""
    keys = Jwks(outbound, published[1], min_interval=0)
    await keys.find("one", "ES256")
    issuer.publish(jwk(NEXT, kid="two"))
    assert await keys.find("two", "ES256") == verifying(NEXT)
    assert issuer.requests == 2
    with pytest.raises(NotAuthenticated, match="does not publish"):
        await keys.find("one", "ES256")


async def test_unknown_key_ids_do_not_cause_more_fetches(keys: Jwks, issuer: Issuer) -> None:
    """Any client can put any `kid` into a token."""
    await keys.find("one", "ES256")
    answers = await asyncio.gather(*[keys.find(f"made-up-{n}", "ES256") for n in range(50)], return_exceptions=True)
    assert [type(each) for each in answers] == [NotAuthenticated] * 50
    assert issuer.requests == 1


async def test_keys_are_fetched_again_after_a_while(
    outbound: HttpClient, published: tuple[Issuer, str], issuer: Issuer
) -> None:
    """A withdrawn key must not stay valid forever."""
    keys = Jwks(outbound, published[1], max_age=0)
    await keys.find("one", "ES256")
    issuer.publish(jwk(NEXT, kid="two"))
    with pytest.raises(NotAuthenticated):
        await keys.find("one", "ES256")


async def test_an_empty_key_set_withdraws_all_keys(
    outbound: HttpClient, published: tuple[Issuer, str], issuer: Issuer
) -> None:
    """An issuer withdraws all its keys this way."""
    keys = Jwks(outbound, published[1], max_age=0)
    await keys.find("one", "ES256")
    issuer.publish()
    with pytest.raises(NotAuthenticated):
        await keys.find("one", "ES256")


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, b'{"keys": []}'),
        (404, b""),
        (302, b""),
        (204, b""),
        (200, b""),
        (200, b"<html>Sign in</html>"),
        (200, b"[]"),
        (200, b"null"),
        (200, b"{}"),
        (200, b'{"keys": null}'),
        (200, b'{"keys": 5}'),
        (200, b'{"keys": {}}'),
        (200, b'{"keys": "AQAB"}'),
        (200, b"\xff"),
        (200, b"[" * 100_000),
        (200, b'{"keys": [], "x": ' + b"[" * 1000 + b"]" * 1000 + b"}"),
        (200, b'{"keys": [], "x": ' + b"[" * 64 + b"]" * 64 + b"}"),
    ],
)
async def test_a_response_without_a_key_set_counts_as_an_outage(
    keys: Jwks, issuer: Issuer, status: int, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A 503 lets the client retry; a 401 would make it get another token. The log has the reason."""
    issuer.status, issuer.content = status, content
    with pytest.raises(Unavailable, match="cannot be fetched at the moment"):
        await keys.find("one", "ES256")
    (said,) = (each.getMessage() for each in caplog.records if each.name == jwks.__name__)
    assert "PRODUCT_GATEWAY_JWKS_URL" in said
    assert (str(status) if status != 200 else "not a JSON Web Key Set") in said


def outgoing() -> HttpClient:
    """Return a client with the gateway's size limit that may call loopback."""
    return HttpClient(allow_private_addresses=True, max_bytes=jwks.MAX_BYTES)


async def test_a_key_set_of_more_than_1_mebibyte_or_100_keys_is_refused(
    published: tuple[Issuer, str], issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    """Real issuers publish a few keys. Exactly the limit is still accepted."""
    many = [jwk(NEXT, kid=str(number)) for number in range(99)]
    async with outgoing() as client:
        issuer.publish(*many, jwk(PRIVATE, kid="one"))
        assert await Jwks(client, published[1]).find("one", "ES256") == verifying(PRIVATE)
        issuer.publish(*many, jwk(PRIVATE, kid="one", note="x" * 8000))
        issuer.content += b" " * (jwks.MAX_BYTES - len(issuer.content))
        keys = Jwks(client, published[1])
        assert await keys.find("one", "ES256") == verifying(PRIVATE)
        for content, reason in (
            (issuer.content + b" ", "larger than 1 MiB"),
            (orjson.dumps({"keys": [*many, many[0], many[1]]}), "it publishes 101 keys, and at most 100 are read"),
        ):
            issuer.content = content
            with pytest.raises(Unavailable):
                await Jwks(client, published[1]).find("one", "ES256")
            assert reason in caplog.records[-1].getMessage()


async def test_a_failed_fetch_is_retried_after_the_retry_interval(
    outbound: HttpClient, published: tuple[Issuer, str], issuer: Issuer
) -> None:
    """An overloaded issuer can recover, and the gateway recovers with it."""
    issuer.status = 500
    for seconds, requests in ((60, 1), (0, 5)):
        issuer.requests = 0
        keys = Jwks(outbound, published[1], retry_interval=seconds)
        for _ in range(5):
            with pytest.raises(Unavailable):
                await keys.find("one", "ES256")
        assert issuer.requests == requests
    issuer.status = 200
    assert await keys.find("one", "ES256") == verifying(PRIVATE)


async def test_a_refused_connection_counts_as_an_outage(outbound: HttpClient, caplog: pytest.LogCaptureFixture) -> None:
    """The log names the host; the response does not."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unavailable) as away:
        await Jwks(outbound, f"http://127.0.0.1:{port}/keys").find("one", "ES256")
    assert "127.0.0.1" not in away.value.detail
    assert "The connection to 127.0.0.1 was refused" in caplog.text


async def test_a_fetch_has_a_timeout(
    outbound: HttpClient, published: tuple[Issuer, str], issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests to the gateway wait for the fetch."""
    keys = Jwks(outbound, published[1], timeout=0.05)
    issuer.seconds = 1
    with pytest.raises(Unavailable):
        async with asyncio.timeout(0.9):
            await keys.find("one", "ES256")
    assert "no answer within 0.05 s" in caplog.text


async def test_cached_keys_stay_valid_while_the_issuer_is_away(
    outbound: HttpClient, published: tuple[Issuer, str], issuer: Issuer
) -> None:
    """An outage of the issuer must not become an outage of the gateway."""
    keys = Jwks(outbound, published[1], max_age=0)
    await keys.find("one", "ES256")
    issuer.status = 500
    assert await keys.find("one", "ES256") == verifying(PRIVATE)
    assert issuer.requests == 2
    assert await keys.find("one", "ES256") == verifying(PRIVATE)
    assert issuer.requests == 2, "a known key must not cause more than one fetch per retry interval"
    with pytest.raises(Unavailable):
        await keys.find("two", "ES256")


async def test_cached_keys_stay_valid_during_a_fetch(
    outbound: HttpClient, published: tuple[Issuer, str], issuer: Issuer
) -> None:
    """Only one request waits for the issuer."""
    keys = Jwks(outbound, published[1], max_age=0)
    await keys.find("one", "ES256")
    issuer.seconds = 0.5
    issuer.asked.clear()
    first = asyncio.create_task(keys.find("one", "ES256"))
    assert await asyncio.to_thread(issuer.asked.wait, 5)
    async with asyncio.timeout(0.4):
        assert await keys.find("one", "ES256") == verifying(PRIVATE)
    assert not first.done()
    assert await first == verifying(PRIVATE)


def test_the_gateway_answers_503_while_the_keys_are_away_and_recovers(
    published: tuple[Issuer, str], issuer: Issuer, tmp_path: Path, sqlite_template: Path
) -> None:
    """The client waits as long as Retry-After says and keeps its token."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    url = f"sqlite:///{shutil.copy(sqlite_template, tmp_path)}"
    theirs = settings.load(data_dir=data_dir, database_url=url, jwks_url=published[1], allow_private_addresses=True)
    issuer.status = 500
    with serve(create_app(theirs)) as gateway:
        path, headers = f"{gateway}/product-gateway/v1/sync/PRODUCT", {"Authorization": f"Bearer {signed(PRIVATE)}"}
        away = httpx2.get(path, headers=headers)
        assert (away.status_code, away.headers["Retry-After"]) == (503, "5")
        issuer.status = 200
        time.sleep(int(away.headers["Retry-After"]))
        back = httpx2.get(path, headers=headers)
        assert back.status_code == 403
        assert "does not know its merchant" in back.json()["error"][0]["detail"]
    assert list(data_dir.iterdir()) == [], "a gateway with an issuer needs no key of its own"
