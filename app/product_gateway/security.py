"""From bearer token to who is asking (RFC 6750, RFC 7519)."""

from dataclasses import dataclass
from typing import Any, Protocol

import jwt

from product_gateway.errors import MissingScope, NotAuthenticated
from product_gateway.keys import PublicKey, algorithms_of
from product_gateway.logs import about
from product_gateway.model import MERCHANT_NAME
from product_gateway.settings import Settings
from product_gateway.spec import Document

LONGEST_TOKEN = 8192
REQUIRED_CLAIMS = ["exp", "iss", "aud"]


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


class Tokens:
    """Checks bearer tokens."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self._settings = settings
        self._keys = keys

    async def authenticate(self, token: str, operation: Document) -> Caller:
        """Raises NotAuthenticated, MissingScope or Unavailable."""
        caller = self._caller(await self._claims(token))
        about(merchant=caller.merchant)
        scope = operation.get("x-required-scope")
        if scope is not None and scope not in caller.scopes:
            raise MissingScope(scope)
        return caller

    async def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > LONGEST_TOKEN:
            raise NotAuthenticated(f"The bearer token is longer than {LONGEST_TOKEN} characters.")
        try:
            key = await self._keys.find(jwt.get_unverified_header(token).get("kid"))
            return jwt.decode(
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

    def _caller(self, claims: dict[str, Any]) -> Caller:
        merchant = claims.get(self._settings.jwt_merchant_claim)
        if not isinstance(merchant, str) or not MERCHANT_NAME.fullmatch(merchant):
            raise NotAuthenticated(
                f"The bearer token names no merchant in the claim {self._settings.jwt_merchant_claim}."
            )
        scope = claims.get("scope")
        return Caller(merchant, frozenset(scope.split() if isinstance(scope, str) else ()))
