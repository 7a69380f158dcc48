"""Encryption of the merchants' secrets in the database."""

from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from product_gateway.auth.public_keys import read_file
from product_gateway.data_directory import SECRET_KEY, read_or_create
from product_gateway.errors import SettingsError
from product_gateway.settings import Settings


class Secrets:
    """A symmetric cipher (Fernet: AES-128-CBC and HMAC-SHA-256), whose key is created on first use.

    The key file contains one key per line. The first key encrypts. All keys decrypt, so a key can be rotated.
    """

    def __init__(self, settings: Settings) -> None:
        path = settings.secret_key_file or settings.data_dir / SECRET_KEY
        content = read_file(path) if settings.secret_key_file else read_or_create(path, Fernet.generate_key())
        self._keys: list[Fernet] = []
        for number, line in enumerate(content.splitlines(), start=1):
            if (key := line.strip()) and not key.startswith(b"#"):
                try:
                    self._keys.append(Fernet(key))
                except ValueError:
                    raise _invalid(path, f"line {number} is not a key") from None
        if not self._keys:
            raise _invalid(path, "it is empty")
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


def _invalid(path: Path, reason: str) -> SettingsError:
    return SettingsError(
        f"PRODUCT_GATEWAY_SECRET_KEY_FILE: {path} must contain one key per line ({reason}). A key is 32 bytes in "
        "URL-safe base64. To create one: python -c 'from cryptography.fernet import Fernet; "
        "print(Fernet.generate_key().decode())'"
    )
