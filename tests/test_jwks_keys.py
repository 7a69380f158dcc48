"""jwks: which of an issuer's keys count, and for which tokens."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.utils import base64url_encode

from issuer import NEXT, PRIVATE, Issuer, jwk, signed
from product_gateway import settings
from product_gateway.errors import NotAuthenticated
from product_gateway.jwks import Jwks
from product_gateway.outbound import Outbound
from product_gateway.security import Tokens


@pytest.fixture
async def keys(published: tuple[Issuer, str]) -> AsyncIterator[Jwks]:
    """Nothing is fetched yet."""
    async with Outbound(allow_private_addresses=True) as outbound:
        yield Jwks(outbound, published[1])


@pytest.mark.parametrize("members", [{"kid": "one"}, {}])
async def test_a_token_without_a_key_id_means_the_only_key(keys: Jwks, issuer: Issuer, members: dict[str, str]) -> None:
    """RFC 7515 §4.1.4: `kid` is optional."""
    issuer.publish(jwk(PRIVATE, **members))
    assert await keys.find(None) == PRIVATE.public_key()


async def test_with_several_keys_nobody_guesses(keys: Jwks, issuer: Issuer) -> None:
    """Trying them all would be as good as having no ids."""
    issuer.publish(jwk(PRIVATE, kid="one"), jwk(NEXT, kid="two"))
    with pytest.raises(NotAuthenticated):
        await keys.find(None)
    assert await keys.find("two") == NEXT.public_key()


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (rsa.generate_private_key(65537, 2048), "PS256"),
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
)
async def test_the_kinds_of_keys_that_issuers_use_are_understood(
    keys: Jwks, issuer: Issuer, private: Any, algorithm: str
) -> None:
    """With what they publish beside it."""
    issuer.publish(jwk(PRIVATE, kid="one"), jwk(private, kid="two", use="sig", alg=algorithm, x5t="abc"))
    caller = await Tokens(settings.load(), keys).authenticate(signed(private, algorithm, kid="two"), {})
    assert caller.merchant == "shop"


SECRET = b"0123456789abcdef0123456789abcdef"
UNUSABLE: dict[str, Any] = {
    "a shared secret": {"kty": "oct", "k": base64url_encode(SECRET).decode(), "kid": "bad"},
    "a shared secret for HS256": {"kty": "oct", "k": base64url_encode(SECRET).decode(), "alg": "HS256", "kid": "bad"},
    "a key for encryption": jwk(NEXT, kid="bad", use="enc"),
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
async def test_a_key_that_makes_no_sense_is_passed_over(keys: Jwks, issuer: Issuer, bad: Any) -> None:
    """Issuers publish keys of the future, too; those beside them must keep working."""
    issuer.publish(bad, jwk(PRIVATE, kid="one"))
    assert await keys.find("one") == await keys.find(None) == PRIVATE.public_key()
    with pytest.raises(NotAuthenticated):
        await keys.find("bad")


@pytest.mark.parametrize("beside", [[], [jwk(PRIVATE, kid="one")]])
@pytest.mark.parametrize("headers", [{"kid": "bad"}, {"kid": "one"}, {}])
async def test_a_published_secret_does_not_make_tokens_valid(
    keys: Jwks, issuer: Issuer, beside: list[Any], headers: dict[str, str]
) -> None:
    """Everybody could sign with it."""
    issuer.publish(UNUSABLE["a shared secret for HS256"], *beside)
    with pytest.raises(NotAuthenticated):
        await Tokens(settings.load(), keys).authenticate(signed(SECRET, "HS256", **headers), {})
