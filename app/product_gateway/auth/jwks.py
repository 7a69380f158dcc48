"""The key set of a token issuer (JWKS, RFC 7517): a cache that limits how often it is fetched."""

import asyncio
import logging
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import jwt
import orjson

from product_gateway.auth.claims import refuse
from product_gateway.auth.public_keys import PublicKey, VerificationKey, algorithms_of
from product_gateway.errors import GatewayError, Unavailable
from product_gateway.http_client.client import HttpClient
from product_gateway.json_tools.depth import is_deeper

logger = logging.getLogger(__name__)

MAX_BYTES = 1024 * 1024
MAX_KEYS = 100
MAX_DEPTH = 64
MAX_MEMBER_LENGTH = 8192  # of a key: the modulus of the largest RSA key has 2,731 characters
EC_BY_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}

KeySet = dict[str | None, list[VerificationKey]]
"""Usable keys by `kid`, which is None for keys without one."""


@dataclass(eq=False)
class Jwks:
    """A key source that fetches a JWKS. Cached keys stay valid while the issuer is unreachable. Times in seconds."""

    client: HttpClient
    url: str
    timeout: float = 5
    max_age: float = 300
    min_interval: float = 60  # between two fetches
    retry_interval: float = 5  # after a failed fetch
    _keys: KeySet = field(default_factory=dict, init=False)
    _stale_at: float = field(default=0.0, init=False)
    _may_fetch_at: float = field(default=0.0, init=False)
    _reachable: bool = field(default=False, init=False)
    _fetching: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey:
        """Return the key with this `kid` for `algorithm`. Without `kid`, return the only key for it.

        Raise NotAuthenticated if the issuer does not publish the key, Unavailable if the issuer is unreachable.
        """
        if not self._has(key_id) or not (time.monotonic() < self._stale_at or self._fetching.locked()):
            async with self._fetching:
                if time.monotonic() >= (self._stale_at if self._has(key_id) else self._may_fetch_at):
                    await self._fetch()
        if not self._has(key_id) and not self._reachable:
            raise Unavailable("The keys that verify tokens cannot be fetched at the moment.")
        return _chosen(self._keys, key_id, algorithm)

    def _has(self, key_id: str | None) -> bool:
        return key_id in self._keys or (key_id is None and bool(self._keys))

    async def _fetch(self) -> None:
        fetched = await self._key_set()
        now = time.monotonic()
        self._reachable = fetched is not None
        self._may_fetch_at = now + (self.retry_interval if fetched is None else self.min_interval)
        self._stale_at = now + (self.retry_interval if fetched is None else self.max_age)
        if fetched is not None:
            self._keys = fetched

    async def _key_set(self) -> KeySet | None:
        try:
            async with asyncio.timeout(self.timeout):
                reply = await self.client.get(self.url)
            if reply.status == 200:
                if is_deeper(reply.content, MAX_DEPTH):
                    raise ValueError
                keys = orjson.loads(reply.content)["keys"]
                if not isinstance(keys, list):
                    raise TypeError
                if len(keys) <= MAX_KEYS:
                    return _usable(keys)
                reason = f"it publishes {len(keys)} keys, and at most {MAX_KEYS} are read."
            else:
                reason = f"the answer was {reply.status} instead of 200."
        except TimeoutError:
            reason = f"there was no answer within {self.timeout} s."
        except GatewayError as error:
            reason = error.detail
        except (ValueError, LookupError, TypeError):  # ValueError: not JSON, or nested too deep
            reason = "the answer was not a JSON Web Key Set."
        logger.warning("The keys of the token issuer (PRODUCT_GATEWAY_JWKS_URL) could not be fetched: %s", reason)
        return None


def _chosen(keys: KeySet, key_id: str | None, algorithm: str) -> VerificationKey:
    """Return the one key that fits. Raise NotAuthenticated if several do: keys are never tried one by one."""
    candidates = keys.get(key_id, [])
    if key_id is None:
        candidates = candidates or [key for each in keys.values() for key in each]
    elif not candidates:
        refuse("its issuer does not publish a key with its kid.")
    fitting = [each for each in candidates if algorithm in each.algorithms]
    if not fitting:
        which = "with its kid" if key_id is not None else "and its header has no kid"
        refuse(f"its issuer publishes no key for its alg {algorithm} {which}.")
    if any(each.key != fitting[0].key for each in fitting):
        if key_id is None:
            refuse("its header has no kid, and its issuer publishes several keys.")
        refuse(f"its issuer publishes {len(fitting)} different keys with its kid.")
    return fitting[0]


def _usable(keys: list[Any]) -> KeySet:
    """Return the public keys for signatures. Ignore other and invalid keys."""
    usable: defaultdict[str | None, list[VerificationKey]] = defaultdict(list)
    ignored: list[str] = []
    for number, each in enumerate(keys, start=1):
        try:
            key_id, key = _key(each)
        except (jwt.PyJWTError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            reason = str(error) if type(error) is ValueError else "it is not a valid JWK"
            ignored.append(f"key {number}: {reason}")
        else:
            if key not in usable[key_id]:  # a key may be published twice
                usable[key_id].append(key)
    if not usable:
        why = "; ".join(ignored[:5]) or "the list is empty"
        logger.warning("The token issuer (PRODUCT_GATEWAY_JWKS_URL) publishes no usable key: %s.", why)
    return dict(usable)


def _key(document: Any) -> tuple[str | None, VerificationKey]:
    """Return `kid` and key of a JWK. Raise ValueError with the reason, or the parser's error."""
    if not isinstance(document, dict):
        raise ValueError("it is not an object")
    if any(isinstance(value, str) and len(value) > MAX_MEMBER_LENGTH for value in document.values()):
        raise ValueError(f"a member is longer than {MAX_MEMBER_LENGTH} characters")
    key_id, use, operations, algorithm = (document.get(name) for name in ("kid", "use", "key_ops", "alg"))
    if not isinstance(key_id, str | None):
        raise ValueError("its kid is not a string")
    if use is not None and use != "sig":
        raise ValueError("its use is not sig")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        raise ValueError("its key_ops do not include verify")
    if "d" in document:
        raise ValueError("it is a private key, which must never be published")
    kind = document.get("kty")
    reader = {"RSA": "RS256", "EC": EC_BY_CURVE.get(str(document.get("crv"))), "OKP": "EdDSA"}.get(str(kind))
    if reader is None:
        raise ValueError("its kty or crv is not supported")
    key = jwt.PyJWK(document, reader).key
    if not isinstance(key, PublicKey):
        raise ValueError("it is not a public key")
    algorithms = algorithms_of(key)
    if algorithm is not None:
        algorithms = tuple(each for each in algorithms if each == algorithm)
    if not algorithms:
        raise ValueError("it is too short, or its alg does not fit it")
    return key_id, VerificationKey(key, algorithms)
