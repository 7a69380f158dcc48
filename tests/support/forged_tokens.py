"""Forged tokens, malformed tokens, and tokens for another audience.

Each function takes a kind of key, EC or RSA, whose private half this module holds.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.issuer import jwk
from tests.support.token_parts import always, base64url, claims, hmac_by, written

EC, RSA = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
STRANGER = {"EC": ec.generate_private_key(ec.SECP256R1()), "RSA": rsa.generate_private_key(65537, 2048)}
KEYS: dict[str, Any] = {"EC": EC, "RSA": RSA}
ALGORITHM = {"EC": "ES256", "RSA": "RS256"}
NESTED = "[" * 10_000 + "]" * 10_000


def public(private: Any, encoding: Encoding, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> bytes:
    """Return the public key."""
    return bytes(private.public_key().public_bytes(encoding, form))


def by(kind: str, key: Any = None) -> Callable[[bytes], bytes]:
    """Return a signing function for the issuer's key, or for another key."""
    return lambda message: bytes(jwt.get_algorithm_by_name(ALGORITHM[kind]).sign(message, key or KEYS[kind]))


def token(kind: str, header: Any = None, payload: Any = None, **changes: Any) -> str:
    """Return a token of the issuer with other headers, claims or payload."""
    content = claims(scope="catalog:read", **changes) if payload is None else payload
    return written({"alg": ALGORITHM[kind], "typ": "JWT", **(header or {})}, content, by(kind))


def confused(kind: str, algorithm: str = "HS256") -> Iterator[tuple[str, str]]:
    """Generate tokens signed with the public key as an HMAC secret, in every encoding of that key."""
    key = KEYS[kind]
    published = jwk(key)
    forms = {
        "PEM": public(key, Encoding.PEM),
        "PEM without the last newline": public(key, Encoding.PEM).strip(),
        "DER": public(key, Encoding.DER),
        "JWK": json.dumps(published).encode(),
        "JWK in short": json.dumps(published, separators=(",", ":"), sort_keys=True).encode(),
        "a member of the JWK": base64.urlsafe_b64decode(f"{published.get('x') or published['n']}=="),
    }
    if kind == "EC":
        forms["point"] = public(key, Encoding.X962, PublicFormat.UncompressedPoint)
    else:
        forms["PKCS#1"] = public(key, Encoding.PEM, PublicFormat.PKCS1)
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    for name, secret in forms.items():

        def sign(message: bytes, secret: bytes = secret) -> bytes:
            return hmac.digest(secret, message, digest)

        header = {"alg": algorithm, "typ": "JWT"}
        yield f"{algorithm} with the public key as the secret: {name}", written(header, good(), sign)


def good(**changes: Any) -> dict[str, Any]:
    """Return sufficient claims."""
    return claims(scope="catalog:read", **changes)


def forged(kind: str) -> Iterator[tuple[str, str]]:
    """Generate tokens that the issuer has not signed."""
    for name in ("none", "None", "NONE", "nOnE", ""):
        yield f"alg {name!r} without a signature", written({"alg": name}, good(), always(b""))
        yield f"alg {name!r} with a signature", written({"alg": name}, good(), by(kind))
    for algorithm in ("HS256", "HS384", "HS512"):
        yield from confused(kind, algorithm)
    yield "HS256 with an empty secret", written({"alg": "HS256"}, good(), hmac_by(b""))
    stranger = STRANGER[kind]
    yield "another key", written({"alg": ALGORITHM[kind]}, good(), by(kind, stranger))
    for name, value in {
        "jwk": jwk(stranger),
        "jku": "https://evil.example/jwks.json",
        "x5u": "https://evil.example/cert.pem",
        "x5c": [base64.b64encode(public(stranger, Encoding.DER)).decode()],
    }.items():
        yield (
            f"another key that the header brings as {name}",
            written({"alg": ALGORITHM[kind], name: value}, good(), by(kind, stranger)),
        )
    yield (
        "the algorithm of another kind of key",
        written({"alg": {"EC": "RS256", "RSA": "ES256"}[kind]}, good(), by(kind)),
    )
    yield "no signature", written({"alg": ALGORITHM[kind]}, good(), always(b""))
    yield "zeros as the signature", written({"alg": ALGORITHM[kind]}, good(), always(bytes(64)))  # CVE-2022-21449
    yield (
        "another merchant under a good signature",
        ".".join(
            (
                token(kind).split(".")[0],
                base64url(json.dumps(good(merchant="other")).encode()),
                token(kind).split(".")[2],
            )
        ),
    )


def misshapen(kind: str) -> Iterator[tuple[str, str]]:
    """Generate malformed tokens, and tokens of a careless issuer."""
    yield "crit with an unknown extension", token(kind, {"crit": ["exp2"], "exp2": 1})  # RFC 7515 par. 4.1.11
    yield "crit that is empty", token(kind, {"crit": []})
    yield "crit that is no list", token(kind, {"crit": "b64"})
    yield "crit with what is not there", token(kind, {"crit": ["absent"]})
    yield "b64 false", token(kind, {"b64": False})
    yield "b64 false in crit", token(kind, {"b64": False, "crit": ["b64"]})  # RFC 7797
    yield "b64 false without a payload", written({"alg": ALGORITHM[kind], "b64": False, "crit": ["b64"]}, "", by(kind))
    yield (
        "the shape of a JWE",
        ".".join(base64url(each) for each in (b'{"alg":"RSA-OAEP","enc":"A256GCM"}', *[b"x"] * 4)),
    )
    yield "a JWE in the header of a JWS", token(kind, {"enc": "A256GCM", "zip": "DEF"}).replace(".", "..", 1)
    yield "JSON serialisation", json.dumps({"payload": "e30", "signatures": []})
    for name in ("exp", "nbf"):
        yield f"{name} NaN", token(kind, **{name: float("nan")})
        yield f"{name} 1e400", token(kind, payload=replaced(name, "1e400"))
        yield f"{name} with 5,000 digits", token(kind, payload=replaced(name, "9" * 5000))
        yield f"{name} as a list", token(kind, **{name: [9999999999]})
        yield f"{name} as an object", token(kind, **{name: {"a": 1}})
        yield f"{name} as text that is no number", token(kind, **{name: "tomorrow"})
    yield "exp null", token(kind, payload=replaced("exp", "null"))
    yield "exp false", token(kind, payload=replaced("exp", "false"))
    yield "claims 1,000 deep", token(kind, payload=f'{{"x":{"[" * 1000 + "]" * 1000}}}')
    yield "a header 1,000 deep", token(kind, {"x": json.loads("[" * 900 + "]" * 900)})
    yield "claims 10,000 deep", token(kind, payload=f'{{"x":{NESTED}}}')
    yield "a header 10,000 deep", written(f'{{"alg":"{ALGORITHM[kind]}","x":{NESTED}}}', good(), by(kind))
    yield "claims that are not UTF-8", token(kind, payload=b'{"merchant":"\xff\xfe"}')
    yield "claims in UTF-16", token(kind, payload=json.dumps(good(merchant="other")).encode("utf-16-be")[1:])
    yield "half a surrogate as the merchant", token(kind, payload=replaced("merchant", '"\\ud800"'))
    yield "a list as claims", token(kind, payload="[]")
    yield "a word", "garbage"
    yield "dots", "....."
    yield "64 KiB that the issuer has signed", token(kind, note="x" * 48 * 1024)
    yield "64 KiB of nothing", "a" * 65536
    yield "64 KiB of dots", "." * 65536
    yield "64 KiB of header", base64url(b'{"alg":"' + b"E" * 48000 + b'"}') + ".e30.e30"


def replaced(name: str, text: str) -> str:
    """Return valid claims with raw JSON in place of one value, which `json` would not write."""
    return json.dumps(good(**{name: "@@"})).replace('"@@"', text)


def refused_claims(kind: str) -> Iterator[tuple[str, str]]:
    """Generate tokens for another time, audience or merchant, with a part of the error message."""
    now = int(time.time())
    yield token(kind, exp=now - 60), "expired"
    yield token(kind, exp=0), "expired"
    yield token(kind, exp=-(2**63)), "its claim exp must be a number of seconds"
    yield token(kind, iat=now + 3600), "issued in the future (iat)"
    yield token(kind, nbf=now + 3600), "not valid yet"
    yield token(kind, aud="another-service"), "another audience"
    yield token(kind, aud=["product", "gateway"]), "another audience"
    yield token(kind, iss="https://other.example"), "another issuer"
    yield token(kind, iss="product-gateway/"), "another issuer"
    yield token(kind, merchant=None), "names no merchant"
    yield token(kind, merchant=["shop"]), "names no merchant"
    yield token(kind, merchant="shop\0"), "names no merchant"
    yield token(kind, merchant="' OR 1=1 --"), "names no merchant"
    for each in ("exp", "iss", "aud"):
        yield token(kind, **{each: None}), f"lacks the claim {each}"
