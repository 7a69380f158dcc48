"""The keys: those that tokens are checked and signed with, and the one that merchants' tokens are encrypted with.

What no setting names is made in the data directory on first use, by whichever process comes first.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

# Nobody gives us keys in certificates, and to fetch them we have a client.
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
from product_gateway.data_directory import SECRET_KEY, SIGNING_KEY
from product_gateway.errors import SettingsError
from product_gateway.model.merchants import MERCHANT_NAME
from product_gateway.settings import Settings

SCOPES = ("sync:write", "sync:read", "catalog:read")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def merchant_name(text: str) -> str:
    """The text, where a merchant may be called so. Raises SettingsError."""
    if not MERCHANT_NAME.fullmatch(text):
        raise SettingsError(
            f"{text[:200]!r} cannot be a merchant's name: up to 128 letters, digits and _.:@|~+- are possible, "
            "a letter, digit or _ first."
        )
    return text


def verification_key(settings: Settings) -> VerificationKey:
    """Return the public key that bearer tokens are checked with. Raise SettingsError."""
    path = settings.jwt_public_key_file
    if path is None:
        key = _signing_key(settings).public_key()
        return VerificationKey(key, algorithms_of(key))
    return from_pem(path, _read(path), "PRODUCT_GATEWAY_JWT_PUBLIC_KEY_FILE")


def issue_token(settings: Settings, merchant: str, scopes: list[str], lifetime: timedelta) -> str:
    """A bearer token signed with the data directory's own key. Raises SettingsError."""
    if settings.jwt_public_key_file or settings.jwks_url:
        raise SettingsError(
            "This gateway checks tokens with a key of somebody else (PRODUCT_GATEWAY_JWT_PUBLIC_KEY_FILE or "
            "PRODUCT_GATEWAY_JWKS_URL): get the token from there."
        )
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise SettingsError(f"There is no scope {', '.join(unknown)}. There are: {', '.join(SCOPES)}.")
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
    """`90s`, `30m`, `1h` or `7d`. Raises SettingsError."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if match is None or int(match[1]) == 0:
        raise SettingsError(f"{text!r} is not a length of time; write it like 90s, 30m, 1h or 7d.")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


class Secrets:
    """Encrypts what the database keeps of other people's secrets (Fernet: AES-128-CBC and HMAC-SHA-256).

    The key file holds one key a line. The first one encrypts, all of them decrypt: so a key can be replaced.
    """

    def __init__(self, settings: Settings) -> None:
        path = settings.secret_key_file or settings.data_dir / SECRET_KEY
        content = _read(path) if settings.secret_key_file else _made_once(path, Fernet.generate_key())
        lines = [(number, line.strip()) for number, line in enumerate(content.splitlines(), start=1)]
        keys = [(number, line) for number, line in lines if line and not line.startswith(b"#")]
        if not keys:
            raise SettingsError(_no_secret_key(path, "it is empty"))
        self._keys = [_fernet(path, number, line) for number, line in keys]
        self._all = MultiFernet(self._keys)

    def encrypt(self, secret: str) -> str:
        """As it may be stored."""
        return self._all.encrypt(secret.encode()).decode()

    def decrypt(self, stored: str, option: str = "--product-service-token-file") -> str:
        """As it was. Raises SettingsError where it was encrypted with another key."""
        try:
            return self._all.decrypt(stored).decode()
        except (InvalidToken, ValueError):
            raise SettingsError(
                "It was encrypted with another secret key. Set it again: product-gateway merchant "
                f"update NAME {option} FILE"
            ) from None

    def renewed(self, stored: str) -> str | None:
        """Return it encrypted with the first key, None if it already is. Raise SettingsError as `decrypt` does."""
        try:
            self._keys[0].decrypt(stored)
        except (InvalidToken, ValueError):
            return self.encrypt(self.decrypt(stored))
        return None


def _fernet(path: Path, number: int, line: bytes) -> Fernet:
    try:
        return Fernet(line)
    except ValueError:
        raise SettingsError(_no_secret_key(path, f"line {number} is none")) from None


def _no_secret_key(path: Path, reason: str) -> str:
    return (
        f"PRODUCT_GATEWAY_SECRET_KEY_FILE: {path} does not hold keys, one a line ({reason}). A key is 32 bytes in "
        "URL-safe base64. This makes one: python -c 'from cryptography.fernet import Fernet; "
        "print(Fernet.generate_key().decode())'"
    )


def make_missing(settings: Settings) -> None:
    """Make the keys that belong into the data directory, where it is used at all. Raise SettingsError."""
    if settings.database_url is None or data_directory.signs(settings):
        if data_directory.signs(settings):
            _signing_key(settings)
        if settings.secret_key_file is None:
            Secrets(settings)


def _signing_key(settings: Settings) -> EllipticCurvePrivateKey:
    path = settings.data_dir / SIGNING_KEY
    new = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        key = load_pem_private_key(_made_once(path, new), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it wants a password
        key = None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise SettingsError(
            f"PRODUCT_GATEWAY_DATA_DIR: {path} does not hold a private key of P-256 in PEM. Put it back as it was, or "
            "remove it: then a new one is made, and tokens signed with the old one are not accepted any more."
        )
    return key


def write_private(path: Path, content: bytes) -> None:
    """Replaces the file as a whole; only its owner may read it. Raises SettingsError."""
    with _draft(path, content) as draft:
        draft.replace(path)


def _made_once(path: Path, content: bytes) -> bytes:
    """The file's content: `content` if nobody was quicker. Whole or not at all."""
    if not path.exists():
        with _draft(path, content) as draft, suppress(FileExistsError):  # somebody was quicker: theirs counts
            os.link(draft, path)
    return data_directory.read_key(path)


@contextmanager
def _draft(path: Path, content: bytes) -> Iterator[Path]:
    """A file beside `path` with the content; gone at the end if it was not moved. Raises SettingsError."""
    draft = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent)
        draft = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    except OSError as error:
        raise SettingsError(
            f"PRODUCT_GATEWAY_DATA_DIR: {path.parent} cannot be written to: {error.strerror}."
        ) from None
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
