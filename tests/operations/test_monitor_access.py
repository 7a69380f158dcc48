"""Who may use the operations port: hosts, proxies, operator tokens and sessions."""

import asyncio
import base64
import logging
import time
from pathlib import Path

import jwt
import orjson
import pytest
from starlette.types import ASGIApp

from product_gateway.db.database import Database
from product_gateway.errors import SettingsError
from product_gateway.openapi import documents
from product_gateway.operations.monitor import attempts, auth
from tests.support.databases import url_of
from tests.support.monitor_client import LOCAL, REMOTE, TOKEN, WELL, Headers, ask, made, signed_in

PAGES = ("/monitor", "/monitor/syncs/shop/01a20a4b-f514-708c-8b35-b67ebc5d86e0")
DOCUMENT = documents.load(documents.OPERATIONS)
MONITOR = [
    (path.replace("{merchant}", "shop").replace("{syncId}", "01a20a4b-f514-708c-8b35-b67ebc5d86e0"), method)
    for path, method, each in documents.operations(DOCUMENT)
    if each.get("security")
]
CLAIMS = {"jti": "0" * 32, "exp": 9999999999}  # of a forged session


@pytest.mark.parametrize(("path", "method"), MONITOR)
async def test_without_a_token_only_this_machine_is_answered(unprotected: ASGIApp, path: str, method: str) -> None:
    """Pages and API alike, with the reason in plain words."""
    answer = await ask(unprotected, method.upper(), path, client=REMOTE)
    assert answer.status == 403
    assert "OPERATOR_TOKEN_FILE" in answer.body.decode()
    through_a_proxy = await ask(unprotected, method.upper(), path, {"x-forwarded-for": REMOTE})
    assert (through_a_proxy.status, b"proxy" in through_a_proxy.body) == (403, True)
    rebound = await ask(unprotected, method.upper(), path, {"host": "evil.example:8090"})
    assert (rebound.status, b"evil.example" in rebound.body) == (403, True)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8090", "127.0.0.1:8090", "127.8.8.8", "[::1]:8090"])
async def test_this_machine_is_answered_by_any_of_its_own_names(unprotected: ASGIApp, host: str) -> None:
    """And over IPv6."""
    for client in (LOCAL, "::1", "::ffff:127.0.0.1"):
        assert (await ask(unprotected, "DELETE", "/monitor/session", {"host": host}, client)).status == 200


@pytest.mark.parametrize(
    "host", ["localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "localhost@evil.example", ""]
)
async def test_a_foreign_name_that_leads_here_is_refused(unprotected: ASGIApp, host: str) -> None:
    """DNS rebinding: the page of another site would pass for this machine's."""
    assert (await ask(unprotected, "GET", "/monitor/api/overview", {"host": host})).status == 403


@pytest.mark.parametrize(("path", "method"), MONITOR)
async def test_with_a_token_everything_wants_it_from_this_machine_too(
    protected: ASGIApp, path: str, method: str
) -> None:
    """No token, a wrong one, and one in a place where it does not count."""
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"cookie": f"{auth.COOKIE}={TOKEN}"},
        {"cookie": f"{auth.COOKIE}={jwt.encode(CLAIMS, bytes(32))}"},
        {"cookie": f"{auth.COOKIE}={jwt.encode(CLAIMS, '', 'none')}"},
        {"cookie": f"{auth.COOKIE}={base64.urlsafe_b64encode(b'[' * 30_000).decode()}.e30.AA"},
    ):
        # Each path from an address of its own: wrong tokens of one address are throttled.
        address = f"192.0.2.{MONITOR.index((path, method)) + 1}"
        answer = await ask(protected, method.upper(), path, headers, address)
        assert answer.status == 401, headers
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == ("text/html" if path in PAGES else "application/json")


async def test_metrics_and_health_are_as_open_as_they_were(folder: Path) -> None:
    """Prometheus and probes have no token."""
    app = made(f"sqlite:///{folder / 'gateway.db'}", operator_token_file=folder / "operator.token")
    for path in ("/metrics", "/health/live"):
        assert (await ask(app, "GET", path, {}, REMOTE)).status == 200


OWN_NAMES = ["localhost", "localhost:8090", "LOCALHOST.", "127.0.0.1:8091", "[::1]:8090", "127.8.8.8", ""]
ADDRESSES = ["10.0.0.5:8090", "[fd00::5]:8091", "192.0.2.7", "203.0.113.9:80"]
PRIVATE = ["gateway:8090", "product-gateway_1", "gw.shop.svc:8090", "gw.shop.svc.cluster.local", "gw.corp.internal"]
FOREIGN = ["evil.example", "evil.example:8090", "127.0.0.1.nip.io", "localhost.evil.example", "10.0.0.5.evil.example"]
FOREIGN += ["evil.example.", "internal.evil.example", "user@localhost", "localhost:8090@evil.example", "a b"]
OPEN = ("/metrics", "/health/live", "/health/ready", "/nothing")


@pytest.mark.parametrize(
    ("listens", "names", "right", "wrong"),
    [
        ("127.0.0.1", None, OWN_NAMES, [*ADDRESSES, *PRIVATE, *FOREIGN]),
        ("::1", None, OWN_NAMES, [*ADDRESSES, *PRIVATE, *FOREIGN]),
        ("127.0.0.1", "Metrics.Example, gateway", [*OWN_NAMES, "metrics.example:8090", "gateway"], FOREIGN),
        ("0.0.0.0", None, [*OWN_NAMES, *ADDRESSES, *PRIVATE], FOREIGN),
        ("10.0.0.5", None, [*OWN_NAMES, *ADDRESSES, *PRIVATE], FOREIGN),
        ("::", "metrics.example", [*OWN_NAMES, *ADDRESSES, *PRIVATE, "METRICS.example"], FOREIGN),
        ("0.0.0.0", "*", [*ADDRESSES, *PRIVATE, *FOREIGN], []),
    ],
)
async def test_metrics_and_health_are_asked_for_by_a_name_of_their_own(
    folder: Path, listens: str, names: str | None, right: list[str], wrong: list[str]
) -> None:
    """DNS rebinding: a page of another site that leads its name here must not read them."""
    url = f"sqlite:///{folder / 'gateway.db'}"
    app = made(url, operations_host=listens, operations_host_names=names)
    for path in OPEN:
        for host in right:
            assert (await ask(app, "GET", path, {"host": host}, REMOTE)).status in (*WELL, 404), (path, host)
        for host in wrong:
            refused = await ask(app, "GET", path, {"host": host}, REMOTE)
            assert refused.status == 403, (path, host)
            assert "OPERATIONS_HOST_NAMES" in refused.detail


PROXIES = [
    "forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port",
    "x-forwarded-prefix", "x-forwarded-server", "x-forwarded", "x-forwarded-client-cert", "x-real-ip", "x-client-ip",
    "true-client-ip", "cf-connecting-ip", "cf-ray", "fastly-client-ip", "x-cluster-client-ip", "cdn-loop",
    "x-original-forwarded-for", "x-envoy-external-address", "x-amzn-trace-id", "x-azure-clientip", "fly-client-ip",
    "x-original-host", "forwarded-for", "x-appengine-user-ip",
]  # fmt: skip


@pytest.mark.parametrize("header", PROXIES)
async def test_a_monitor_without_a_token_answers_no_proxy(unprotected: ASGIApp, header: str) -> None:
    """The peer address is the proxy's, so the client's address is unknown. The answer says what to do."""
    for path in ("/monitor", "/monitor/api/overview"):
        answer = await ask(unprotected, "GET", path, {header: "203.0.113.7"})
        assert answer.status == 403
        assert header in answer.body.decode()
        assert "an operator token is needed" in answer.body.decode()
    assert (
        await ask(unprotected, "GET", "/monitor/api/overview", {"x-request-id": "a", "x-custom": "b"})
    ).status in WELL


async def test_signing_in_gives_the_browser_a_session_until_it_signs_out(protected: ASGIApp) -> None:
    """A cookie that no script reads and no other site sends; another token's is none."""
    answer = await ask(protected, "POST", "/monitor/session", {"authorization": f"Bearer {TOKEN}"}, REMOTE)
    assert answer.status == 200
    cookie, _, rest = answer.headers["set-cookie"].partition(";")
    assert rest.strip() == "Max-Age=43200; HttpOnly; SameSite=Strict"
    assert TOKEN not in cookie
    mine = {"cookie": f"a=b; {cookie}"}
    assert (await ask(protected, "GET", "/monitor", mine, REMOTE)).status in WELL
    value = cookie.partition("=")[2]
    payload = base64.urlsafe_b64encode(orjson.dumps(CLAIMS)).decode().rstrip("=")
    later = {"cookie": f"{auth.COOKIE}={value.split('.')[0]}.{payload}.{value.split('.')[2]}"}
    assert (await ask(protected, "GET", "/monitor", later)).status == 401
    (out,) = [await ask(protected, "DELETE", "/monitor/session", {**mine, "sec-fetch-site": "same-origin"}, REMOTE)]
    assert (out.status, "Max-Age=0" in out.headers["set-cookie"]) == (200, True)


async def test_signing_out_ends_the_session_on_every_process(database: Database, tmp_path: Path) -> None:
    """Also for a copy of the cookie, after a restart, and not for another session."""
    (tmp_path / "operator.token").write_text(TOKEN)
    here, there = (made(url_of(database), operator_token_file=tmp_path / "operator.token") for _ in range(2))
    mine, other = await signed_in(here), await signed_in(there)
    assert mine != other
    for app in (here, there):
        assert (await ask(app, "GET", "/monitor/api/overview", mine)).status == 200
    assert (await ask(here, "DELETE", "/monitor/session", mine)).status == 200
    assert (await ask(here, "GET", "/monitor/api/overview", mine)).status == 401
    restarted = made(url_of(database), operator_token_file=tmp_path / "operator.token")
    assert (await ask(restarted, "GET", "/monitor/api/overview", mine)).status == 401
    await asyncio.sleep(1.1)
    assert (await ask(there, "GET", "/monitor/api/overview", mine)).status == 401
    for app in (here, there, restarted):
        assert (await ask(app, "GET", "/monitor/api/overview", other)).status == 200
        assert (await ask(app, "DELETE", "/monitor/session", mine)).status == 401


async def test_signing_out_ends_the_stream_of_the_session(database: Database, tmp_path: Path) -> None:
    """A page that stays open elsewhere shows nothing more."""
    (tmp_path / "operator.token").write_text(TOKEN)
    app = made(url_of(database), operator_token_file=tmp_path / "operator.token")
    mine = await signed_in(app)
    client = asyncio.Event()
    stream = asyncio.create_task(ask(app, "GET", "/monitor/api/stream", mine, stays=client))
    await asyncio.sleep(0.5)
    assert not stream.done()
    assert (await ask(app, "DELETE", "/monitor/session", mine)).status == 200
    answer = await asyncio.wait_for(stream, 30)
    assert answer.status == 200
    assert not client.is_set()


@pytest.mark.parametrize(("scheme", "secure"), [("https", True), ("http", False)])
async def test_the_cookie_is_secure_where_the_client_uses_tls(protected: ASGIApp, scheme: str, secure: bool) -> None:
    """The scheme is what a trusted proxy said; tests/http/test_public_path.py has one."""
    answer = await ask(protected, "POST", "/monitor/session", {"authorization": f"Bearer {TOKEN}"}, scheme=scheme)
    assert ("Secure" in answer.headers["set-cookie"].split("; ")) is secure
    mine = {"cookie": answer.headers["set-cookie"].partition(";")[0], "sec-fetch-site": "same-origin"}
    out = await ask(protected, "DELETE", "/monitor/session", mine, scheme=scheme)
    assert ("Secure" in out.headers["set-cookie"].split("; ")) is secure


async def test_wrong_tokens_of_an_address_are_throttled_and_logged_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A rate limit slows down token guessing. It does not affect other addresses or signed-in sessions."""
    app = made(f"sqlite:///{folder / 'gateway.db'}", operator_token_file=folder / "operator.token")
    mine = await signed_in(app)
    with caplog.at_level(logging.WARNING, "product_gateway.operations.monitor.handlers"):
        for number in range(30):
            path, method = MONITOR[number % len(MONITOR)]
            answer = await ask(app, method.upper(), path, {"authorization": f"Bearer wrong-{number}"}, REMOTE)
            assert answer.status == (401 if number < attempts.MOST_OF_AN_ADDRESS else 429), number
        right = await ask(app, "GET", "/monitor/api/overview", {"authorization": f"Bearer {TOKEN}"}, REMOTE)
    assert (right.status, 1 <= int(right.headers["retry-after"]) <= attempts.SECONDS) == (429, True)
    assert "10 wrong operator tokens" in right.detail
    assert [each.__dict__["client"] for each in caplog.records] == [REMOTE, REMOTE]
    assert "wrong-" not in caplog.text
    assert (await ask(app, "GET", "/monitor/api/overview", mine, REMOTE)).status in WELL
    for other in ("192.0.2.8", "2001:db8::1"):
        answer = await ask(app, "GET", "/monitor/api/overview", {"authorization": f"Bearer {TOKEN}"}, other)
        assert answer.status in WELL


async def test_wrong_tokens_of_many_addresses_are_throttled_in_all(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that has shown the right token before is let in all the same; after a minute everybody is."""
    app = made(f"sqlite:///{folder / 'gateway.db'}", operator_token_file=folder / "operator.token")
    await signed_in(app, "198.51.100.1")
    statuses = []
    with caplog.at_level(logging.WARNING, "product_gateway.operations.monitor.handlers"):
        for number in range(attempts.MOST_IN_ALL + 20):
            address = f"2001:db8:{number:x}::1"
            statuses.append(
                (await ask(app, "GET", "/monitor/api/overview", {"authorization": "Bearer no"}, address)).status
            )
    assert statuses == [401] * attempts.MOST_IN_ALL + [429] * 20
    assert len(caplog.records) == attempts.MOST_IN_ALL + 1
    token = {"authorization": f"Bearer {TOKEN}"}
    assert (await ask(app, "GET", "/monitor/api/overview", token, "198.51.100.1")).status in WELL
    assert (await ask(app, "GET", "/monitor/api/overview", token, "198.51.100.2")).status == 429
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + attempts.SECONDS + 1)
    assert (await ask(app, "GET", "/monitor/api/overview", token, "198.51.100.2")).status in WELL


async def test_the_right_token_ends_a_streak(folder: Path) -> None:
    """A slip of the pen now and then is no attack."""
    app = made(f"sqlite:///{folder / 'gateway.db'}", operator_token_file=folder / "operator.token")
    for _ in range(3):
        for _ in range(attempts.MOST_OF_AN_ADDRESS - 1):
            answer = await ask(app, "POST", "/monitor/session", {"authorization": "Bearer wrong"}, REMOTE)
            assert answer.status == 401
        await signed_in(app)


async def test_a_session_ends_with_its_time_and_with_its_token(
    protected: ASGIApp, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of the operator token ends every session."""
    answer = await ask(protected, "POST", "/monitor/session", {"authorization": f"Bearer {TOKEN}"})
    mine = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
    (tmp_path / "new.token").write_text("another-token-of-some-length")
    other = made(f"sqlite:///{folder / 'gateway.db'}", operator_token_file=tmp_path / "new.token")
    assert (await ask(other, "GET", "/monitor", mine)).status == 401
    assert (await ask(protected, "GET", "/monitor", mine)).status in WELL
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + auth.SECONDS_SIGNED_IN + 1)
    assert (await ask(protected, "GET", "/monitor", mine)).status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:9999"}, 403),
        ({"cookie": "a=b"}, 403),
        ({"origin": "http://localhost:8090"}, 404),
        ({"sec-fetch-site": "same-origin", "origin": "http://localhost:8090"}, 404),
        ({}, 404),
    ],
)
async def test_what_acts_must_come_from_a_page_of_ours(unprotected: ASGIApp, headers: Headers, status: int) -> None:
    """CSRF; 404 is what the action itself says here. A program sends none of these headers."""
    path = f"/monitor/api/syncs/shop/{'0' * 8}-0000-0000-0000-{'0' * 12}"
    for action in ("cancel", "run-again", "allow-mass-deletion", "revert", "publish", "discard"):
        assert (await ask(unprotected, "POST", f"{path}/{action}", headers)).status == status


async def test_a_token_that_is_none_stops_the_start(tmp_path: Path) -> None:
    """An empty file would let everybody in who sends nothing."""
    for content in ("", "short", "two words of a token that is long", "é" * 40):
        (tmp_path / "operator.token").write_text(content)
        with pytest.raises(SettingsError, match="OPERATOR_TOKEN_FILE"):
            made("sqlite://", operator_token_file=tmp_path / "operator.token")
