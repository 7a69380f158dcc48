"""Keys: those that verify and sign tokens, and those that encrypt the merchants' secrets.

A key that no setting names is created in the data directory on first use.
"""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from product_gateway import data_directory
from product_gateway.auth.public_keys import VerificationKey, algorithms_of, from_pem
from product_gateway.data_directory import SECRET_KEY, SIGNING_KEY, read_or_create
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
    """Return the public key that verifies bearer tokens. Raise SettingsError."""
    path = settings.jwt_public_key_file
    if path is None:
        key = _signing_key(settings).public_key()
        return VerificationKey(key, algorithms_of(key))
    return from_pem(path, _read(path), "PRODUCT_GATEWAY_JWT_PUBLIC_KEY_FILE")


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


class Secrets:
    """Encryption of the merchants' secrets in the database (Fernet: AES-128-CBC and HMAC-SHA-256).

    The key file contains one key per line. The first key encrypts. All keys decrypt, so a key can be rotated.
    """

    def __init__(self, settings: Settings) -> None:
        path = settings.secret_key_file or settings.data_dir / SECRET_KEY
        content = _read(path) if settings.secret_key_file else read_or_create(path, Fernet.generate_key())
        lines = [(number, line.strip()) for number, line in enumerate(content.splitlines(), start=1)]
        keys = [(number, line) for number, line in lines if line and not line.startswith(b"#")]
        if not keys:
            raise SettingsError(_no_secret_key(path, "it is empty"))
        self._keys = [_fernet(path, number, line) for number, line in keys]
        self._all = MultiFernet(self._keys)

    def encrypt(self, secret: str) -> str:
        return self._all.encrypt(secret.encode()).decode()

    def decrypt(self, stored: str, option: str = "--product-service-token-file") -> str:
        """Return the secret. Raise SettingsError, which names `option`, if it was encrypted with another key."""
        try:
            return self._all.decrypt(stored).decode()
        except (InvalidToken, ValueError):
            raise SettingsError(
                "It was encrypted with another secret key. Set it again: product-gateway merchant update NAME "
                f"{option} FILE"
            ) from None

    def renewed(self, stored: str) -> str | None:
        """Return the secret encrypted with the first key, None if it already is. Raise SettingsError."""
        try:
            self._keys[0].decrypt(stored)
        except (InvalidToken, ValueError):
            return self.encrypt(self.decrypt(stored))
        return None


def _fernet(path: Path, number: int, line: bytes) -> Fernet:
    try:
        return Fernet(line)
    except ValueError:
        raise SettingsError(_no_secret_key(path, f"line {number} is not a key")) from None


def _no_secret_key(path: Path, reason: str) -> str:
    return (
        f"PRODUCT_GATEWAY_SECRET_KEY_FILE: {path} must contain one key per line ({reason}). A key is 32 bytes in "
        "URL-safe base64. To create one: python -c 'from cryptography.fernet import Fernet; "
        "print(Fernet.generate_key().decode())'"
    )


def make_missing(settings: Settings) -> None:
    """Create the missing keys of the data directory if it is used at all. Raise SettingsError."""
    if settings.database_url is None or data_directory.signs(settings):
        if data_directory.signs(settings):
            _signing_key(settings)
        if settings.secret_key_file is None:
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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
