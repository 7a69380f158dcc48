"""The data directory: keys, the embedded database and the demo's token. Other users must not read or replace them.

`prepare` is for the commands that may make one: serve, demo, migrate and merchant add. All others call `require`: a
wrong PRODUCT_GATEWAY_DATA_DIR must not lead to a new key or an empty database.
"""

import os
import shlex
import stat
from pathlib import Path

from product_gateway.errors import SettingsError
from product_gateway.settings import Settings

UMASK = 0o077
SIGNING_KEY = "signing-key.pem"
SECRET_KEY = "secret.key"  # noqa: S105 - the name of a file
DATABASE = "gateway.db"
MAKERS = "`serve`, `demo`, `migrate` and `merchant add`"


def prepare(settings: Settings, *, secrets: bool = False) -> None:
    """Make the directory if this process needs it; `secrets`: it also uses the merchants' secrets.

    Without an embedded database and with all keys in files of their own, nothing is kept in it. Raise SettingsError.
    """
    make_files_private()
    if settings.database_url is None or signs(settings) or _has_secret_key(settings, secrets):
        make(settings.data_dir)


def require(settings: Settings, *, secrets: bool = False) -> None:
    """Raise SettingsError if the directory is needed, as by `prepare`, and not there; or the embedded database."""
    if settings.database_url is None or _has_secret_key(settings, secrets):
        _require_directory(settings.data_dir)
    if settings.database_url is None and not (settings.data_dir / DATABASE).exists():
        raise SettingsError(
            f"There is no database in {settings.data_dir.absolute()}. Set PRODUCT_GATEWAY_DATA_DIR to the server's "
            f"data directory, or PRODUCT_GATEWAY_DATABASE_URL. A database is made by {MAKERS}."
        )


def require_key(settings: Settings, name: str) -> None:
    """Raise SettingsError if the key is not in the directory."""
    _require_directory(settings.data_dir)
    if not (settings.data_dir / name).exists():
        raise SettingsError(
            f"There is no {name} in {settings.data_dir.absolute()}. Set PRODUCT_GATEWAY_DATA_DIR to the server's data "
            "directory. The key is made by `serve`, `demo` and `merchant add`."
        )


def make_files_private() -> None:
    """From now on, files that this process makes are its user's alone."""
    os.umask(UMASK)


def _has_secret_key(settings: Settings, secrets: bool) -> bool:
    return secrets and settings.secret_key_file is None


def _require_directory(path: Path) -> None:
    if path.is_dir():
        check(path)
    elif path.is_symlink() or path.exists():
        raise SettingsError(f"PRODUCT_GATEWAY_DATA_DIR: {path} is not a directory: {_reason(path)}.")
    else:
        raise SettingsError(
            f"There is no data directory at {path.absolute()}. Set PRODUCT_GATEWAY_DATA_DIR to the server's data "
            f"directory. A data directory is made by {MAKERS}."
        )


def signs(settings: Settings) -> bool:
    """Return whether tokens are signed with a key in the directory."""
    return settings.jwt_public_key_file is None and settings.jwks_url is None


def make(path: Path) -> None:
    """Make the directory for its owner alone, or check the one that is there. Raise SettingsError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"PRODUCT_GATEWAY_DATA_DIR: {path} cannot be made: {_reason(path, error)}.") from None
    check(path)


def check(path: Path) -> None:
    """Raise SettingsError if every user may write to the directory."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise SettingsError(f"PRODUCT_GATEWAY_DATA_DIR: {path} cannot be used: {error.strerror}.") from None
    if mode & stat.S_IWOTH:
        raise SettingsError(
            f"PRODUCT_GATEWAY_DATA_DIR: every user may write to {path} (mode {mode:04o}) and could replace its keys. "
            f"Run: chmod 700 {shlex.quote(str(path))}. Or name a directory in it that is not there yet."
        )


def warning(settings: Settings) -> str | None:
    """Return what an operator should change, though the gateway works with it."""
    path = settings.data_dir
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
    if mode & (stat.S_IROTH | stat.S_IXOTH):
        return (
            f"Every user may read the data directory {path} (mode {mode:04o}). Run: chmod 700 {shlex.quote(str(path))}"
        )
    return None


def read_key(path: Path) -> bytes:
    """Return the content of a key file in the directory. Raise SettingsError, also if every user may use the file.

    Its group may: volumes of Kubernetes with an fsGroup give files to it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    if mode & stat.S_IRWXO:
        raise SettingsError(
            f"PRODUCT_GATEWAY_DATA_DIR: every user may use the key {path} (mode {mode:04o}). "
            f"Run: chmod 600 {shlex.quote(str(path))}. If others may have read it, replace it."
        )
    return content


def _reason(path: Path, error: OSError | None = None) -> str:
    if path.is_symlink() and not path.exists():
        return f"it is a symbolic link to {path.readlink()}, which is not there"
    if path.exists():
        return "it is a file"
    return (error.strerror if error else None) or "it is not there"
