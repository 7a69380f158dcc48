"""The keys that sign and verify tokens. The signing key is created in the data directory on first use."""

import re
from datetime import UTC, datetime, timedelta

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from product_gateway import data_directory
from product_gateway.auth.encryption import Secrets
from product_gateway.auth.public_keys import VerificationKey, algorithms_of, from_pem
from product_gateway.data_directory import SIGNING_KEY, read_or_create
from product_gateway.errors import SettingsError
from product_gateway.model.merchants import MERCHANT_NAME
from product_gateway.settings import Settings

SCOPES = ("sync:write", "sync:read", "catalog:read")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def merchant_name(text: str) -> str:
    """Return the text if it is a valid merchant name. Raise SettingsError."""
    if not MERCHANT_NAME.fullmatch(text):
        raise SettingsError(
            f"{text[:200]!r} cannot be a merchant's name: up to 128 letters, digits and _.:@|~+- are allowed, "
            "a letter, digit or _ first."
        )
    return text


def verification_key(settings: Settings) -> VerificationKey:
    if settings.jwt_public_key_file is not None:
        return from_pem(settings.jwt_public_key_file, "PRODUCT_GATEWAY_JWT_PUBLIC_KEY_FILE")
    key = _signing_key(settings).public_key()
    return VerificationKey(key, algorithms_of(key))


def issue_token(settings: Settings, merchant: str, scopes: list[str], lifetime: timedelta) -> str:
    """Return a bearer token, signed with the key of the data directory. Raise SettingsError."""
    if settings.jwt_public_key_file or settings.jwks_url:
        raise SettingsError(
            "This gateway trusts the tokens of another issuer (PRODUCT_GATEWAY_JWT_PUBLIC_KEY_FILE or "
            "PRODUCT_GATEWAY_JWKS_URL): get the token from there."
        )
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise SettingsError(f"There is no scope {', '.join(unknown)}. Use: {', '.join(SCOPES)}.")
    now = datetime.now(UTC)
    claims = {
        settings.jwt_merchant_claim: merchant_name(merchant),
        "scope": " ".join(scopes),
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "iat": now,
        "exp": now + lifetime,
    }
    return jwt.encode(claims, _signing_key(settings), algorithm="ES256")


def lifetime(text: str) -> timedelta:
    """Parse a duration like `90s`, `30m`, `1h` or `7d`. Raise SettingsError."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if match is None or int(match[1]) == 0:
        raise SettingsError(f"{text!r} is not a length of time; write it like 90s, 30m, 1h or 7d.")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def make_missing(settings: Settings) -> None:
    """Create the missing keys of the data directory if it is used at all. Raise SettingsError."""
    signs = data_directory.signs(settings)
    if signs:
        _signing_key(settings)
    if settings.secret_key_file is None and (signs or settings.database_url is None):
        Secrets(settings)


def _signing_key(settings: Settings) -> EllipticCurvePrivateKey:
    path = settings.data_dir / SIGNING_KEY
    new = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        key = load_pem_private_key(read_or_create(path, new), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it needs a password
        key = None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise SettingsError(
            f"PRODUCT_GATEWAY_DATA_DIR: {path} is not a P-256 private key in PEM. Restore it, or remove it: then a "
            "new key is created, and tokens signed with the old key are refused."
        )
    return key
