"""Validation of the claims of a verified token (RFC 7519 §4.1): time, issuer, audience, merchant and scopes.

Other claims are ignored. A refusal names the invalid claim. Expected values appear only in the log, because a 401 must
not reveal this server's configuration.
"""

import json
import logging
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from product_gateway.errors import NotAuthenticated
from product_gateway.json_tools.depth import is_deeper
from product_gateway.model.merchants import MERCHANT_NAME
from product_gateway.settings import Settings, environment_name

logger = logging.getLogger(__name__)

MAX_DEPTH = 64
MAX_TIME = 253_402_300_799  # the last second of the year 9999
MAX_DIGITS = 400
MAX_MERCHANT_LENGTH = 128
SCOPE_CLAIMS = ("scope", "scp", "permissions")  # RFC 8693 §4.2; Entra ID and Okta; Auth0


@dataclass(frozen=True, slots=True)
class Caller:
    merchant: str
    scopes: frozenset[str]


def refuse(reason: str) -> NoReturn:
    raise NotAuthenticated(f"Invalid token: {reason}")


def parse(content: bytes, part: str = "its payload") -> dict[str, Any]:
    """Return the claims, or the header. Raise NotAuthenticated if the part is not a JSON object in UTF-8."""
    if is_deeper(content, MAX_DEPTH):
        refuse(f"{part} is nested more than {MAX_DEPTH} levels deep.")
    try:
        found = json.loads(content.decode(), parse_int=_integer)
    except ValueError:
        refuse(f"{part} is not JSON in UTF-8.")
    if not isinstance(found, dict):
        refuse(f"{part} is not a JSON object.")
    return found


def _integer(digits: str) -> int | float:
    """Return the number, infinity for a long one: Python refuses to parse integers of more than 4,300 digits."""
    return int(digits) if len(digits) <= MAX_DIGITS else math.inf


def check_registered(claims: dict[str, Any], settings: Settings, now: float) -> float:
    """Check exp, nbf, iat, iss and aud, with `now` in seconds since 1970. Return exp. Raise NotAuthenticated.

    The leeway for clock skew applies to nbf and iat, so that a new token is not refused. It does not apply to exp: a
    client renews an expired token after a 401.
    """
    for name in ("exp", "iss", "aud"):
        if claims.get(name) is None:
            refuse(f"it lacks the claim {name}.")
    expires = _seconds(claims, "exp")
    if expires <= now:
        refuse("it has expired (exp).")
    for name, reason in (
        ("nbf", "it is not valid yet (nbf)"),
        ("iat", "it is not valid yet: it was issued in the future (iat)"),
    ):
        if name in claims and _seconds(claims, name) > now + settings.jwt_leeway_seconds:
            refuse(f"{reason}. The clock of its issuer may be fast.")
    issuer, audience = claims["iss"], claims["aud"]
    if not isinstance(issuer, str):
        refuse("its claim iss must be a string.")
    if issuer != settings.jwt_issuer:
        _log_difference("iss", issuer, "jwt_issuer", settings.jwt_issuer)
        refuse("it comes from another issuer (iss).")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
        refuse("its claim aud must be a string or a list of strings.")
    if settings.jwt_audience not in audiences:
        _log_difference("aud", audience, "jwt_audience", settings.jwt_audience)
        refuse("it is meant for another audience (aud).")
    return expires


def _seconds(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME:
        refuse(f"its claim {name} must be a number of seconds from 0 to {MAX_TIME} (RFC 7519, NumericDate).")
    return float(value)


def _log_difference(name: str, found: object, setting: str, expected: str) -> None:
    values = name, ascii(found)[:200], environment_name(setting), expected
    logger.info("A bearer token was refused: its claim %s is %s, and %s is %r.", *values)


def caller(claims: dict[str, Any], settings: Settings) -> Caller:
    """Return the merchant and the scopes. Raise NotAuthenticated if the token names no merchant."""
    found = _scopes(claims, scope_claims(settings))
    of_audience = f"{settings.jwt_audience}/"  # Cognito puts the resource server's name before each scope
    scopes = frozenset(each.removeprefix(of_audience) for each in found)
    return Caller(_merchant(claims, settings.jwt_merchant_claim), scopes)


def _merchant(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if value is None:
        refuse(f"it names no merchant: it lacks the claim {name}.")
    claim = f"it names no merchant: its claim {name}"
    if not isinstance(value, str):
        refuse(f"{claim} must be a string.")
    if not value:
        refuse(f"{claim} is empty.")
    if len(value) > MAX_MERCHANT_LENGTH:
        refuse(f"{claim} is longer than {MAX_MERCHANT_LENGTH} characters.")
    if not MERCHANT_NAME.fullmatch(value):
        refuse(f"{claim} must consist of letters, digits and _.:@|~+- and start with a letter, a digit or _.")
    return value


def scope_claims(settings: Settings) -> tuple[str, ...]:
    return (settings.jwt_scope_claim,) if settings.jwt_scope_claim else SCOPE_CLAIMS


def _scopes(claims: dict[str, Any], names: tuple[str, ...]) -> frozenset[str]:
    """Return the scopes of all these claims. Each claim is a string separated by spaces, or a list."""
    found: set[str] = set()
    for name in names:
        value = claims.get(name)
        if isinstance(value, str):
            found.update(value.split())
        elif isinstance(value, list):
            found.update(each for each in value if isinstance(each, str))
    return frozenset(found)
