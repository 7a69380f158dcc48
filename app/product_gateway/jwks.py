"""The keys of a token issuer, from where it publishes them (RFC 7517), with a cache that can't be made to hammer it."""

import asyncio
import logging
import time
from typing import Any

import jwt
import orjson

from product_gateway.errors import GatewayError, NotAuthenticated, Unavailable
from product_gateway.keys import PublicKey, algorithms_of
from product_gateway.outbound import Outbound

logger = logging.getLogger(__name__)

SECONDS_TO_ANSWER = 5
SECONDS_TO_TRUST = 300
SECONDS_BETWEEN_FETCHES = 60
SECONDS_BETWEEN_TRIES = 5


class Jwks:
    """The keys by their `kid`. Old ones serve on while the issuer cannot be reached."""

    def __init__(self, outbound: Outbound, url: str) -> None:
        self._outbound = outbound
        self._url = url
        self._keys: dict[str | None, PublicKey] = {}
        self._stale_at = self._may_fetch_at = time.monotonic()
        self._reachable = False
        self._fetching = asyncio.Lock()

    async def find(self, key_id: str | None) -> PublicKey:
        """Raises NotAuthenticated for a key that the issuer does not have, Unavailable where it cannot be asked."""
        known = self._keys.get(key_id)
        if known is not None and (time.monotonic() < self._stale_at or self._fetching.locked()):
            return known
        async with self._fetching:
            if time.monotonic() >= (self._may_fetch_at if key_id not in self._keys else self._stale_at):
                await self._fetch()
        if key_id in self._keys:
            return self._keys[key_id]
        if not self._reachable:
            raise Unavailable("The keys that tokens are checked with cannot be fetched at the moment.")
        raise NotAuthenticated("The bearer token is signed with a key that its issuer does not publish.")

    async def _fetch(self) -> None:
        fetched = await self._key_set()
        now = time.monotonic()
        self._reachable = fetched is not None
        self._may_fetch_at = now + (SECONDS_BETWEEN_TRIES if fetched is None else SECONDS_BETWEEN_FETCHES)
        self._stale_at = now + (SECONDS_BETWEEN_TRIES if fetched is None else SECONDS_TO_TRUST)
        if fetched is not None:
            self._keys = fetched

    async def _key_set(self) -> dict[str | None, PublicKey] | None:
        try:
            async with asyncio.timeout(SECONDS_TO_ANSWER):
                reply = await self._outbound.get(self._url)
            if reply.status == 200:
                return _usable(orjson.loads(reply.content)["keys"])
            reason = f"the answer was {reply.status} instead of 200."
        except TimeoutError:
            reason = f"there was no answer within {SECONDS_TO_ANSWER} s."
        except GatewayError as error:
            reason = error.detail
        except (orjson.JSONDecodeError, LookupError, TypeError):
            reason = "the answer was not a JSON Web Key Set."
        logger.warning("The keys of the token issuer (PRODUCT_GATEWAY_JWKS_URL) could not be fetched: %s", reason)
        return None


def _usable(keys: list[Any]) -> dict[str | None, PublicKey]:
    """The public keys for signatures; others, and those that make no sense, are in nobody's way. Raises TypeError."""
    usable: dict[str | None, PublicKey] = {}
    for each in keys:
        try:
            key = jwt.PyJWK(each)
        except (jwt.PyJWTError, AttributeError, TypeError):
            continue
        meant = isinstance(key.key_id, str | None) and key.public_key_use in (None, "sig")
        if meant and isinstance(key.key, PublicKey) and algorithms_of(key.key):
            usable[key.key_id] = key.key
    if len(usable) == 1:
        usable[None] = next(iter(usable.values()))  # a token without `kid` can only mean this one
    return usable
