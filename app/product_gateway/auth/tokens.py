"""Verification of bearer tokens: signed JWTs (RFC 6750, RFC 7515, RFC 7519)."""

import base64
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.algorithms import OKPAlgorithm

from product_gateway.auth import claims
from product_gateway.auth.claims import Caller, refuse
from product_gateway.auth.public_keys import ALGORITHMS, VerificationKey
from product_gateway.errors import MissingScope, NotAuthenticated
from product_gateway.settings import Settings
from product_gateway.telemetry.logs import bind

logger = logging.getLogger(__name__)

MAX_TOKEN_LENGTH = 8192
CACHE_SIZE = 10_000  # verified tokens, half a kilobyte each

KeySource = Callable[[str | None, str], Awaitable[VerificationKey]]
"""Return the key with this `kid`, for this `alg`. Raise NotAuthenticated or Unavailable."""


def static_key(key: VerificationKey) -> KeySource:
    async def find(key_id: str | None, algorithm: str) -> VerificationKey:
        return key

    return find


@dataclass(frozen=True, slots=True)
class _Verified:
    """A verified token. Until it expires, only its key can change."""

    caller: Caller
    key_id: str | None
    algorithm: str
    key: VerificationKey
    expires: float


class TokenVerifier:
    """Verification of bearer tokens, with a cache: a signature takes longer to verify than the rest of a request.

    A cached token still needs its key at each request, because the issuer may withdraw a key.
    """

    def __init__(
        self,
        settings: Settings,
        find_key: KeySource,
        cache_size: int = CACHE_SIZE,
        now: Callable[[], float] = lambda: time.time(),
    ) -> None:
        self._settings = settings
        self._now = now
        self._find_key = find_key
        self._cache_size = cache_size
        self._cache: dict[bytes, _Verified] = {}  # by a hash, so that no token stays in memory
        self._scope_claims = claims.scope_claims(settings)
        self._jws = jwt.PyJWS()
        for name in ("Ed25519", "Ed448"):  # PyJWT knows only EdDSA, for both
            self._jws.register_algorithm(name, OKPAlgorithm())

    async def authenticate(self, token: str, operation: Mapping[str, Any]) -> Caller:
        """Return the caller. Raise NotAuthenticated, MissingScope or Unavailable."""
        if len(token) > MAX_TOKEN_LENGTH:
            refuse(f"it is longer than {MAX_TOKEN_LENGTH} characters.")
        digest = hashlib.sha256(token.encode()).digest()
        caller = await self._cached(digest) or await self._verify(token, digest)
        bind(merchant=caller.merchant)
        scope = operation.get("x-required-scope")
        if scope is not None and scope not in caller.scopes:
            raise MissingScope(scope, self._scope_claims)
        return caller

    async def _cached(self, digest: bytes) -> Caller | None:
        """Return the caller of a token that was verified before, if its key is still valid."""
        found = self._cache.get(digest)
        if found is None:
            return None
        if self._now() < found.expires and await self._find_key(found.key_id, found.algorithm) is found.key:
            return found.caller
        self._cache.pop(digest, None)  # another request may have removed it meanwhile
        return None

    async def _verify(self, token: str, digest: bytes) -> Caller:
        key_id, algorithm = _read_header(token)
        try:
            key = await self._find_key(key_id, algorithm)
        except NotAuthenticated:
            logger.info("A bearer token was refused: no key for kid %s and alg %s.", ascii(key_id)[:100], algorithm)
            raise
        found = claims.parse(self._verified_payload(token, key, algorithm))
        expires = claims.check_registered(found, self._settings, self._now())
        caller = claims.caller(found, self._settings)
        if len(self._cache) >= self._cache_size:
            self._cache.pop(next(iter(self._cache)))  # the oldest
        self._cache[digest] = _Verified(caller, key_id, algorithm, key, expires)
        return caller

    def _verified_payload(self, token: str, key: VerificationKey, algorithm: str) -> bytes:
        if algorithm not in key.algorithms:
            refuse(f"its alg must be {_one_of(key.algorithms)}, which is what this server's key is for.")
        try:
            return self._jws.decode(token, key.key, algorithms=list(key.algorithms))  # type: ignore[no-any-return]
        except jwt.InvalidSignatureError:
            refuse(self._wrong_signature())
        except (jwt.PyJWTError, ValueError):
            refuse("it is not a JWT: its three parts must be base64url without padding or spaces.")

    def _wrong_signature(self) -> str:
        if self._settings.jwks_url:
            return "it was not signed with the key that its issuer publishes under its kid."
        if self._settings.jwt_public_key_file:
            return "it was not signed with the key of the issuer that this server trusts."
        return (
            "it was not signed with this server's key. For a local token, run `product-gateway token` with the "
            "server's data directory."
        )


def _read_header(token: str) -> tuple[str | None, str]:
    """Return kid and alg of the JOSE header, which is not verified yet. Raise NotAuthenticated."""
    parts = token.split(".")
    if len(parts) == 5:
        refuse("it is encrypted (JWE, five parts). This server reads signed tokens (JWS, three parts).")
    if len(parts) != 3:
        refuse("it is not a JWT, which has three parts with dots between them.")
    try:
        content = base64.b64decode(parts[0] + "=" * (-len(parts[0]) % 4), altchars=b"-_", validate=True)
    except ValueError:
        refuse("it is not a JWT: its header is not base64url.")
    header = claims.parse(content, "it is not a JWT: its header")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not algorithm:
        refuse("its header must have alg, a string.")
    if algorithm.lower() == "none":
        refuse("it is not signed (its alg is none).")
    if algorithm in ("HS256", "HS384", "HS512"):
        refuse(f"its alg {algorithm} needs a shared secret, which this server does not have. Sign with a private key.")
    if algorithm not in ALGORITHMS:
        refuse(f"its alg must be {_one_of(ALGORITHMS)}.")
    if "kid" in header and not isinstance(key_id, str):
        refuse("its header's kid must be a string.")
    if "crit" in header:
        refuse("its header has crit, and this server supports no extensions.")
    if header.get("b64", True) is not True:
        refuse("its header's b64 must be true.")
    return key_id, algorithm


def _one_of(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
