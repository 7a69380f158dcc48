"""A token issuer for tests: signs tokens and publishes its keys over HTTP."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import OKPAlgorithm
from starlette.types import Receive, Scope, Send

from product_gateway.auth.public_keys import VerificationKey, algorithms_of

PRIVATE = ec.generate_private_key(ec.SECP256R1())
NEXT = ec.generate_private_key(ec.SECP256R1())

for _name in ("Ed25519", "Ed448"):  # RFC 9864; PyJWT signs with both as EdDSA alone
    jwt.register_algorithm(_name, OKPAlgorithm())


def jwk(private: Any, **members: Any) -> dict[str, Any]:
    """Return the public key as a JWK (RFC 7517)."""
    kinds = {rsa.RSAPrivateKey: "RS256", ed25519.Ed25519PrivateKey: "EdDSA", ed448.Ed448PrivateKey: "EdDSA"}
    name = next((name for kind, name in kinds.items() if isinstance(private, kind)), "ES256")
    document: dict[str, Any] = jwt.get_algorithm_by_name(name).to_jwk(private.public_key(), as_dict=True)
    return {**document, **members}


def verifying(private: Any) -> VerificationKey:
    """Return the public key, with all algorithms that fit it."""
    key = private.public_key()
    return VerificationKey(key, algorithms_of(key))


def signed(private: Any, algorithm: str = "ES256", **headers: Any) -> str:
    """Return a valid token with these headers."""
    claims = {"iss": "product-gateway", "aud": "product-gateway", "merchant": "shop", "scope": "sync:read"}
    end = datetime.now(UTC) + timedelta(minutes=1)
    return jwt.encode({**claims, "exp": end}, private, algorithm, headers)


class Issuer:
    """Publishes keys over HTTP, counts requests, and can be made to fail."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Restore the initial state."""
        self.asked.clear()
        self.requests = 0
        self.status = 200
        self.seconds = 0.0
        self.content = b""
        self.publish(jwk(PRIVATE, kid="one"))

    def publish(self, *keys: Any) -> None:
        """Replace the published keys."""
        self.content = orjson.dumps({"keys": keys})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers every path."""
        if scope["type"] != "http":
            return
        self.requests += 1
        self.asked.set()
        await asyncio.sleep(self.seconds)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": self.content})
