"""The keys: those that tokens are checked and signed with, and the one that merchants' tokens are encrypted with.

What no setting names is made in the data directory on first use, by whichever process comes first.
"""

import os
import re
import tempfile
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from product_gateway.model import MERCHANT_NAME, SettingsError
from product_gateway.settings import Settings

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

SCOPES = ("sync:write", "sync:read", "catalog:read")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def verification_key(settings: Settings) -> PublicKey:
    """The public key that bearer tokens are checked with. Raises SettingsError."""
    if settings.jwt_public_key_file is None:
        private = load_pem_private_key(_signing_key(settings), password=None)
        return private.public_key()  # type: ignore[return-value]  # made below: an elliptic curve
    try:
        key = load_pem_public_key(settings.jwt_public_key_file.read_bytes())
    except ValueError:
        key = None
    if not isinstance(key, PublicKey):
        raise SettingsError(
            f"PRODUCT_GATEWAY_JWT_PUBLIC_KEY_FILE: {settings.jwt_public_key_file} is not a PEM public key "
            "(RSA, elliptic curve or Ed25519)."
        )
    return key


def algorithms_of(key: PublicKey) -> list[str]:
    """The algorithms (RFC 7518 §3.1) that fit the key: what a token says of itself is not asked."""
    if isinstance(key, RSAPublicKey):
        return ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
    if isinstance(key, EllipticCurvePublicKey):
        return {256: ["ES256"], 384: ["ES384"], 521: ["ES512"]}.get(key.key_size, [])
    return ["EdDSA"]


def issue_token(settings: Settings, merchant: str, scopes: list[str], lifetime: timedelta) -> str:
    """A bearer token signed with the data directory's own key. Raises SettingsError."""
    if settings.jwt_public_key_file or settings.jwks_url:
        raise SettingsError(
            "This gateway checks tokens with a key of somebody else (PRODUCT_GATEWAY_JWT_PUBLIC_KEY_FILE or "
            "PRODUCT_GATEWAY_JWKS_URL): get the token from there."
        )
    if not MERCHANT_NAME.fullmatch(merchant):
        raise SettingsError(f"{merchant!r} cannot be a merchant's name.")
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise SettingsError(f"There is no scope {', '.join(unknown)}. There are: {', '.join(SCOPES)}.")
    now = datetime.now(UTC)
    claims = {
        settings.jwt_merchant_claim: merchant,
        "scope": " ".join(scopes),
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "iat": now,
        "exp": now + lifetime,
    }
    return jwt.encode(claims, _signing_key(settings), algorithm="ES256")


def lifetime(text: str) -> timedelta:
    """`90s`, `30m`, `1h` or `7d`. Raises SettingsError."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if match is None:
        raise SettingsError(f"{text!r} is not a length of time; write it like 90s, 30m, 1h or 7d.")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


class Secrets:
    """Encrypts what the database keeps of other people's secrets (Fernet: AES-128-CBC and HMAC-SHA-256)."""

    def __init__(self, settings: Settings) -> None:
        path = settings.secret_key_file
        key = path.read_bytes() if path else _made_once(settings.data_dir / "secret.key", Fernet.generate_key())
        try:
            self._fernet = Fernet(key.strip())
        except ValueError:
            raise SettingsError(
                f"PRODUCT_GATEWAY_SECRET_KEY_FILE: {path or settings.data_dir / 'secret.key'} does not hold a key: 32 "
                "bytes in URL-safe base64. This makes one: python -c 'from cryptography.fernet import Fernet; "
                "print(Fernet.generate_key().decode())'"
            ) from None

    def encrypt(self, secret: str) -> str:
        """As it may be stored."""
        return self._fernet.encrypt(secret.encode()).decode()

    def decrypt(self, stored: str) -> str:
        """As it was. Raises SettingsError where it was encrypted with another key."""
        try:
            return self._fernet.decrypt(stored).decode()
        except InvalidToken:
            raise SettingsError(
                "The merchant's token was encrypted with another secret key. Set it again: product-gateway merchant "
                "update NAME --product-service-token-file FILE"
            ) from None


def _signing_key(settings: Settings) -> bytes:
    path = settings.data_dir / "signing-key.pem"
    if path.is_file():
        return path.read_bytes()
    key = generate_private_key(SECP256R1())
    return _made_once(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def write_private(path: Path, content: bytes) -> None:
    """Replaces the file as a whole; only its owner may read it. Raises SettingsError."""
    _draft(path, content).replace(path)


def _made_once(path: Path, content: bytes) -> bytes:
    """The file's content: `content` if nobody was quicker. Whole or not at all."""
    if not path.is_file():
        draft = _draft(path, content)
        with suppress(FileExistsError):  # somebody was quicker: theirs counts
            os.link(draft, path)
        draft.unlink()
    return path.read_bytes()


def _draft(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=path.parent)
    except OSError as error:
        raise SettingsError(
            f"PRODUCT_GATEWAY_DATA_DIR: {path.parent} cannot be written to: {error.strerror}."
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Path(draft)
