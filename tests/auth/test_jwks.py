"""jwks: how often an issuer is asked for its keys, and what happens when it does not answer."""

import asyncio
import socket
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
    """May call loopback."""
    async with HttpClient(allow_private_addresses=True) as client:
        yield client


@pytest.fixture
async def keys(outbound: HttpClient, published: tuple[Issuer, str]) -> Jwks:
    """Nothing is fetched yet."""
    return Jwks(outbound, published[1])


async def test_a_key_is_found_by_its_id_and_fetched_once(keys: Jwks, issuer: Issuer) -> None:
    """A request must not cost a request."""
    for _ in range(3):
        assert await keys.find("one", "ES256") == verifying(PRIVATE)
    assert issuer.requests == 1


async def test_nothing_is_fetched_before_somebody_asks(keys: Jwks, issuer: Issuer) -> None:
    """The gateway starts without its identity provider."""
    await asyncio.sleep(0)
    assert issuer.requests == 0


async def test_many_who_ask_at_once_cause_one_fetch(keys: Jwks, issuer: Issuer) -> None:
    """A busy gateway that starts must not hammer the issuer."""
    issuer.seconds = 0.1
    found = await asyncio.gather(*[keys.find("one", "ES256") for _ in range(50)])
    assert found == [verifying(PRIVATE)] * 50
    assert issuer.requests == 1


async def test_a_new_key_is_found_as_soon_as_a_token_names_it(
    keys: Jwks, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotation: the issuer publishes the next key, then signs with it. The old one is gone with the next fetch."""
    monkeypatch.setattr(jwks, "SECONDS_BETWEEN_FETCHES", 0)
    await keys.find("one", "ES256")
    issuer.publish(jwk(NEXT, kid="two"))
    assert await keys.find("two", "ES256") == verifying(NEXT)
    assert issuer.requests == 2
    with pytest.raises(NotAuthenticated, match="does not publish"):
        await keys.find("one", "ES256")


async def test_unknown_keys_cannot_make_us_ask_the_issuer_all_the_time(keys: Jwks, issuer: Issuer) -> None:
    """Anybody can write a `kid` into a token."""
    await keys.find("one", "ES256")
    answers = await asyncio.gather(*[keys.find(f"made-up-{n}", "ES256") for n in range(50)], return_exceptions=True)
    assert [type(each) for each in answers] == [NotAuthenticated] * 50
    assert issuer.requests == 1


async def test_keys_are_fetched_again_after_a_while(
    keys: Jwks, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that the issuer has withdrawn must not be good for ever."""
    monkeypatch.setattr(jwks, "SECONDS_TO_TRUST", 0)
    await keys.find("one", "ES256")
    issuer.publish(jwk(NEXT, kid="two"))
    with pytest.raises(NotAuthenticated):
        await keys.find("one", "ES256")


async def test_an_issuer_that_publishes_no_key_any_more_is_believed(
    keys: Jwks, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is how all keys are withdrawn at once."""
    monkeypatch.setattr(jwks, "SECONDS_TO_TRUST", 0)
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
        (200, b"\xff"),
        (200, b"[" * 100_000),
        (200, b'{"keys": [], "x": ' + b"[" * 1000 + b"]" * 1000 + b"}"),
        (200, b'{"keys": [], "x": ' + b"[" * 64 + b"]" * 64 + b"}"),
    ],
)
async def test_an_issuer_that_answers_anything_but_keys_counts_as_away(
    keys: Jwks, issuer: Issuer, status: int, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A 503 that passes, not a 401 that sends the client off for another token; and the log says why."""
    issuer.status, issuer.content = status, content
    with pytest.raises(Unavailable, match="cannot be fetched at the moment"):
        await keys.find("one", "ES256")
    (said,) = (each.getMessage() for each in caplog.records if each.name == jwks.__name__)
    assert "PRODUCT_GATEWAY_JWKS_URL" in said
    assert (str(status) if status != 200 else "not a JSON Web Key Set") in said


def outgoing() -> HttpClient:
    """As the gateway makes it for its issuer, but for the private address."""
    return HttpClient(allow_private_addresses=True, max_bytes=jwks.MAX_BYTES)


async def test_a_key_set_of_more_than_1_mebibyte_or_100_keys_counts_as_none(
    published: tuple[Issuer, str], issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    """An issuer has a handful. As many as are allowed are read, and known keys serve on."""
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


async def test_an_issuer_that_is_away_is_tried_again_after_a_while_and_not_before(
    outbound: HttpClient, published: tuple[Issuer, str], issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets air to recover, and the gateway recovers with it."""
    issuer.status = 500
    for seconds, requests in ((60, 1), (0, 5)):
        issuer.requests = 0
        monkeypatch.setattr(jwks, "SECONDS_BETWEEN_TRIES", seconds)
        keys = Jwks(outbound, published[1])
        for _ in range(5):
            with pytest.raises(Unavailable):
                await keys.find("one", "ES256")
        assert issuer.requests == requests
    issuer.status = 200
    assert await keys.find("one", "ES256") == verifying(PRIVATE)


async def test_an_issuer_that_cannot_be_connected_to_counts_as_away(
    outbound: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the host, the answer does not."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(Unavailable) as away:
        await Jwks(outbound, f"http://127.0.0.1:{port}/keys").find("one", "ES256")
    assert "127.0.0.1" not in away.value.detail
    assert "The connection to 127.0.0.1 was refused" in caplog.text


async def test_an_issuer_that_does_not_answer_holds_nobody_up_for_long(
    keys: Jwks, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests to the gateway wait for it, so the wait has an end."""
    monkeypatch.setattr(jwks, "SECONDS_TO_ANSWER", 0.05)
    issuer.seconds = 1
    with pytest.raises(Unavailable):
        async with asyncio.timeout(0.9):
            await keys.find("one", "ES256")
    assert "no answer within 0.05 s" in caplog.text


async def test_known_keys_serve_on_while_the_issuer_is_away(
    keys: Jwks, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outage is not ours."""
    monkeypatch.setattr(jwks, "SECONDS_TO_TRUST", 0)
    await keys.find("one", "ES256")
    issuer.status = 500
    assert await keys.find("one", "ES256") == verifying(PRIVATE)
    assert issuer.requests == 2
    assert await keys.find("one", "ES256") == verifying(PRIVATE)
    assert issuer.requests == 2, "a known key must not cause more tries than SECONDS_BETWEEN_TRIES allows"
    with pytest.raises(Unavailable):
        await keys.find("two", "ES256")


async def test_known_keys_serve_on_while_they_are_fetched_again(
    keys: Jwks, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request waits for the issuer, not all."""
    monkeypatch.setattr(jwks, "SECONDS_TO_TRUST", 0)
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
    published: tuple[Issuer, str],
    issuer: Issuer,
    tmp_path: Path,
    sqlite_template: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of it together: the client waits a little, as Retry-After says, and keeps its token."""
    monkeypatch.setattr(jwks, "SECONDS_BETWEEN_TRIES", 0)
    theirs = settings.load(
        data_dir=tmp_path,
        database_url=f"sqlite:///{sqlite_template}",
        jwks_url=published[1],
        allow_private_addresses=True,
    )
    issuer.status = 500
    with serve(create_app(theirs)) as gateway:
        path, headers = f"{gateway}/product-gateway/v1/sync/PRODUCT", {"Authorization": f"Bearer {signed(PRIVATE)}"}
        away = httpx2.get(path, headers=headers)
        assert (away.status_code, away.headers["Retry-After"]) == (503, "5")
        issuer.status = 200
        back = httpx2.get(path, headers=headers)
        assert back.status_code == 403
        assert "does not know its merchant" in back.json()["error"][0]["detail"]
    assert list(tmp_path.iterdir()) == [], "a gateway with an issuer needs no key of its own"
