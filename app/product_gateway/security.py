"""From bearer token to who is asking (RFC 6750, RFC 7519)."""

import hashlib
import time
from dataclasses import dataclass
from typing import Any, Protocol

from product_gateway.errors import MissingScope, NotAuthenticated
from product_gateway.keys import PublicKey, algorithms_of
from product_gateway.logs import about
from product_gateway.model import MERCHANT_NAME
from product_gateway.settings import Settings
from product_gateway.spec import Document

# isort: split
import jwt  # after keys, which leaves out what none of us uses of it

LONGEST_TOKEN = 8192
REQUIRED_CLAIMS = ["exp", "iss", "aud"]
MOST_REMEMBERED = 10_000  # tokens, of half a kilobyte each


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a token speaks for, and what it may do."""

    merchant: str
    scopes: frozenset[str]


class Keys(Protocol):
    """Where the key for a token comes from."""

    async def find(self, key_id: str | None) -> PublicKey:
        """The key with this `kid`. Raises NotAuthenticated or Unavailable."""


class OneKey:
    """The same key for every token."""

    def __init__(self, key: PublicKey) -> None:
        self._key = key

    async def find(self, key_id: str | None) -> PublicKey:
        """Whatever the token says."""
        return self._key


@dataclass(frozen=True, slots=True)
class _Checked:
    """What a signature was good for: nothing of it changes before the token expires, but for the key."""

    caller: Caller
    key_id: str | None
    key: PublicKey
    expires: int


class Tokens:
    """Checks bearer tokens; a signature once for all requests that bring it, which takes longer than all the rest.

    What it speaks for is looked at each time: the merchant may be disabled and the key be gone meanwhile.
    """

    def __init__(self, settings: Settings, keys: Keys, most_remembered: int = MOST_REMEMBERED) -> None:
        self._settings = settings
        self._keys = keys
        self._most_remembered = most_remembered
        self._remembered: dict[bytes, _Checked] = {}  # by a hash: no token stays in memory

    async def authenticate(self, token: str, operation: Document) -> Caller:
        """Raises NotAuthenticated, MissingScope or Unavailable."""
        if len(token) > LONGEST_TOKEN:
            raise NotAuthenticated(f"The bearer token is longer than {LONGEST_TOKEN} characters.")
        digest = hashlib.sha256(token.encode()).digest()
        caller = await self._known(digest) or await self._check(token, digest)
        about(merchant=caller.merchant)
        scope = operation.get("x-required-scope")
        if scope is not None and scope not in caller.scopes:
            raise MissingScope(scope)
        return caller

    async def _known(self, digest: bytes) -> Caller | None:
        """Who it speaks for, if it was checked before, with a key that is still in use."""
        found = self._remembered.get(digest)
        if found is None:
            return None
        if time.time() < found.expires and await self._keys.find(found.key_id) is found.key:
            return found.caller
        self._remembered.pop(digest, None)  # somebody else may have been quicker
        return None

    async def _check(self, token: str, digest: bytes) -> Caller:
        claims, key_id, key = await self._claims(token)
        caller = self._caller(claims)
        if len(self._remembered) >= self._most_remembered:
            self._remembered.pop(next(iter(self._remembered)))  # the oldest
        self._remembered[digest] = _Checked(caller, key_id, key, int(claims["exp"]))
        return caller

    async def _claims(self, token: str) -> tuple[dict[str, Any], str | None, PublicKey]:
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = await self._keys.find(key_id)
            claims = jwt.decode(
                token,
                key,
                algorithms=algorithms_of(key),
                issuer=self._settings.jwt_issuer,
                audience=self._settings.jwt_audience,
                options={"require": REQUIRED_CLAIMS, "verify_iat": False},
            )
        except jwt.ExpiredSignatureError:
            raise NotAuthenticated("The bearer token has expired.") from None
        except jwt.ImmatureSignatureError:
            raise NotAuthenticated("The bearer token is not valid yet.") from None
        except jwt.InvalidAudienceError:
            raise NotAuthenticated("The bearer token is meant for another audience.") from None
        except jwt.InvalidIssuerError:
            raise NotAuthenticated("The bearer token comes from another issuer.") from None
        except jwt.MissingRequiredClaimError as error:
            raise NotAuthenticated(f"The bearer token lacks the claim {error.claim}.") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise NotAuthenticated("The bearer token is not a valid JWT of the key that this server expects.") from None
        return claims, key_id, key

    def _caller(self, claims: dict[str, Any]) -> Caller:
        merchant = claims.get(self._settings.jwt_merchant_claim)
        if not isinstance(merchant, str) or not MERCHANT_NAME.fullmatch(merchant):
            raise NotAuthenticated(
                f"The bearer token names no merchant in the claim {self._settings.jwt_merchant_claim}."
            )
        scope = claims.get("scope")
        return Caller(merchant, frozenset(scope.split() if isinstance(scope, str) else ()))
