"""Key sets: which keys of an issuer are used, and for which tokens."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.utils import base64url_encode

from product_gateway import settings
from product_gateway.auth.jwks import Jwks
from product_gateway.auth.tokens import TokenVerifier
from product_gateway.errors import NotAuthenticated
from product_gateway.http_client.client import HttpClient
from tests.support.issuer import NEXT, PRIVATE, Issuer, jwk, signed, verifying


@pytest.fixture
async def keys(published: tuple[Issuer, str]) -> AsyncIterator[Jwks]:
    async with HttpClient(allow_private_addresses=True) as outbound:
        yield Jwks(outbound, published[1])


@pytest.mark.parametrize("members", [{"kid": "one"}, {}])
async def test_a_token_without_a_key_id_means_the_only_key(keys: Jwks, issuer: Issuer, members: dict[str, str]) -> None:
    """RFC 7515 §4.1.4: `kid` is optional."""
    issuer.publish(jwk(PRIVATE, **members))
    assert await keys.find(None, "ES256") == verifying(PRIVATE)


async def test_a_token_without_a_key_id_is_refused_if_several_keys_fit(keys: Jwks, issuer: Issuer) -> None:
    """Trying all keys would make key ids pointless."""
    issuer.publish(jwk(PRIVATE, kid="one"), jwk(NEXT, kid="two"))
    with pytest.raises(NotAuthenticated):
        await keys.find(None, "ES256")
    assert await keys.find("two", "ES256") == verifying(NEXT)


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (rsa.generate_private_key(65537, 2048), "PS256"),
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
        (ed448.Ed448PrivateKey.generate(), "EdDSA"),
        (ed448.Ed448PrivateKey.generate(), "Ed448"),
    ],
)
async def test_all_common_types_of_keys_are_supported(keys: Jwks, issuer: Issuer, private: Any, algorithm: str) -> None:
    """With the members that issuers publish besides."""
    issuer.publish(jwk(PRIVATE, kid="one"), jwk(private, kid="two", use="sig", alg=algorithm, x5t="abc"))
    caller = await TokenVerifier(settings.load(), keys.find).authenticate(signed(private, algorithm, kid="two"), {})
    assert caller.merchant == "shop"


SECRET = b"0123456789abcdef0123456789abcdef"
UNUSABLE: dict[str, Any] = {
    "a shared secret": {"kty": "oct", "k": base64url_encode(SECRET).decode(), "kid": "bad"},
    "a shared secret for HS256": {"kty": "oct", "k": base64url_encode(SECRET).decode(), "alg": "HS256", "kid": "bad"},
    "a key for encryption": jwk(NEXT, kid="bad", use="enc"),
    "a use that is no text": jwk(NEXT, kid="bad", use=["sig"]),
    "a key to sign with": jwk(NEXT, kid="bad", key_ops=["sign"]),
    "a key for nothing": jwk(NEXT, kid="bad", key_ops=[]),
    "operations that are no list": jwk(NEXT, kid="bad", key_ops="verify"),
    "the algorithm of another curve": jwk(NEXT, kid="bad", alg="ES384"),
    "the algorithm of another kind": jwk(NEXT, kid="bad", alg="RS256"),
    "an algorithm of tomorrow": jwk(NEXT, kid="bad", alg="ML-DSA-44"),
    "a private key": {**jwk(NEXT, kid="bad"), "d": "AAAA"},
    "an RSA private key": {"kty": "RSA", "kid": "bad", "n": "w" * 342, "e": "AQAB", "d": "AQAB"},
    "a certificate alone": {"kty": "EC", "kid": "bad", "x5c": ["MIIB"]},
    "an RSA certificate alone": {"kty": "RSA", "kid": "bad", "x5c": ["MIIB"], "x5t": "abc"},
    "RSA with an even exponent": {"kty": "RSA", "kid": "bad", "n": "w" * 342, "e": "AQAA"},
    "RSA of 60,000 bits": {"kty": "RSA", "kid": "bad", "n": "w" * 10_000, "e": "AQAB"},
    "RSA of 20,000 bits": {"kty": "RSA", "kid": "bad", "n": "w" * 3399 + "9", "e": "AQAB"},
    "coordinates of 1,000 digits": {**jwk(NEXT, kid="bad"), "y": "w" * 1000},
    "an algorithm for encryption": jwk(NEXT, kid="bad", alg="ECDH-ES"),
    "an algorithm that is no text": jwk(NEXT, kid="bad", alg=["ES256"]),
    "RSA of 1024 bits": jwk(rsa.generate_private_key(65537, 1024), kid="bad"),
    "a curve without an algorithm": {**jwk(NEXT, kid="bad"), "crv": "secp256k1"},
    "a point off the curve": {**jwk(NEXT, kid="bad"), "x": jwk(PRIVATE)["x"]},
    "coordinates that are no text": {**jwk(NEXT, kid="bad"), "x": 5},
    "no coordinates": {"kty": "EC", "crv": "P-256", "kid": "bad"},
    "an unknown kind": {"kty": "AKP", "kid": "bad"},
    "no kind": {"kid": "bad"},
    "an id that is no text": jwk(NEXT, kid=["bad"]),
    "a word": "bad",
    "nothing": None,
}


@pytest.mark.parametrize("bad", UNUSABLE.values(), ids=UNUSABLE)
async def test_an_unusable_key_is_ignored(keys: Jwks, issuer: Issuer, bad: Any) -> None:
    """Issuers publish keys of future types; the other keys must keep working."""
    issuer.publish(bad, jwk(PRIVATE, kid="one"))
    assert await keys.find("one", "ES256") == await keys.find(None, "ES256") == verifying(PRIVATE)
    with pytest.raises(NotAuthenticated):
        await keys.find("bad", "ES256")


@pytest.mark.parametrize("beside", [[], [jwk(PRIVATE, kid="one")]])
@pytest.mark.parametrize("headers", [{"kid": "bad"}, {"kid": "one"}, {}])
async def test_a_published_secret_does_not_make_tokens_valid(
    keys: Jwks, issuer: Issuer, beside: list[Any], headers: dict[str, str]
) -> None:
    """Anyone could sign with it."""
    issuer.publish(UNUSABLE["a shared secret for HS256"], *beside)
    with pytest.raises(NotAuthenticated):
        await TokenVerifier(settings.load(), keys.find).authenticate(signed(SECRET, "HS256", **headers), {})


@pytest.mark.parametrize(
    "members", [{"use": "sig"}, {"key_ops": ["verify"]}, {"key_ops": ["sign", "verify"], "use": "sig", "alg": "ES256"}]
)
async def test_use_and_key_ops_for_signatures_are_accepted(keys: Jwks, issuer: Issuer, members: dict[str, Any]) -> None:
    """RFC 7517 §4.2 to §4.4."""
    issuer.publish(jwk(PRIVATE, kid="one", **members))
    assert await keys.find("one", "ES256") == verifying(PRIVATE)


async def test_a_key_with_an_algorithm_is_used_for_this_algorithm_only(keys: Jwks, issuer: Issuer) -> None:
    """An RSA key alone would fit six."""
    private = rsa.generate_private_key(65537, 2048)
    issuer.publish(jwk(private, kid="one", alg="RS256"))
    tokens = TokenVerifier(settings.load(), keys.find)
    assert (await tokens.authenticate(signed(private, "RS256", kid="one"), {})).merchant == "shop"
    for algorithm in ("PS256", "RS512"):
        with pytest.raises(NotAuthenticated, match=f"no key for its alg {algorithm} with its kid"):
            await tokens.authenticate(signed(private, algorithm, kid="one"), {})


async def test_of_keys_with_the_same_id_the_algorithm_decides(keys: Jwks, issuer: Issuer) -> None:
    """RFC 7517 §4.5 allows one kid for keys of several types."""
    private = rsa.generate_private_key(65537, 2048)
    issuer.publish(jwk(PRIVATE, kid="one"), jwk(private, kid="one"), jwk(PRIVATE, kid="one", use="sig", alg="ES256"))
    tokens = TokenVerifier(settings.load(), keys.find)
    for key, algorithm in ((PRIVATE, "ES256"), (private, "RS256")):
        assert (await tokens.authenticate(signed(key, algorithm, kid="one"), {})).merchant == "shop"
    assert (await tokens.authenticate(signed(private, "PS256"), {})).merchant == "shop", "the only one that fits"


async def test_two_different_keys_with_the_same_id_are_refused(keys: Jwks, issuer: Issuer) -> None:
    """The refusal names the issuer's mistake."""
    issuer.publish(jwk(PRIVATE, kid="one"), jwk(NEXT, kid="one"), jwk(NEXT, kid="two"))
    with pytest.raises(NotAuthenticated, match="publishes 2 different keys with its kid"):
        await keys.find("one", "ES256")
    assert await keys.find("two", "ES256") == verifying(NEXT)


async def test_the_refusal_names_what_is_wrong_with_the_key_id(keys: Jwks, issuer: Issuer) -> None:
    """Missing, unknown, or of a key for another algorithm."""
    issuer.publish(jwk(PRIVATE, kid="one"), jwk(NEXT, kid="two"))
    for key_id, algorithm, reason in (
        (None, "ES256", "its header has no kid, and its issuer publishes several keys"),
        ("three", "ES256", "its issuer does not publish a key with its kid"),
        ("one", "RS256", "publishes no key for its alg RS256 with its kid"),
        (None, "RS256", "publishes no key for its alg RS256 and its header has no kid"),
    ):
        with pytest.raises(NotAuthenticated, match=f"Invalid token: .*{reason}"):
            await keys.find(key_id, algorithm)


async def test_an_issuer_without_a_usable_key_is_in_the_log_with_the_reasons(
    keys: Jwks, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    """Every token is refused, and the operator has to know why."""
    issuer.publish(jwk(PRIVATE, use="enc"), {**jwk(NEXT, kid="two"), "d": "c2VjcmV0"})
    with pytest.raises(NotAuthenticated):
        await keys.find("two", "ES256")
    (said,) = (each.getMessage() for each in caplog.records)
    assert "publishes no usable key: key 1: its use is not sig; key 2: it is a private key" in said
    assert "c2VjcmV0" not in said
