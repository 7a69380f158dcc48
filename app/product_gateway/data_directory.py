"""The data directory: keys, the embedded database and the demo's token. Other users must not read or replace them.

Commands that may create it call `prepare`: serve, demo, migrate and merchant add. All others call `require`, because a
wrong PRODUCT_GATEWAY_DATA_DIR must not lead to a new key or an empty database.
"""

import os
import shlex
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from product_gateway.errors import SettingsError
from product_gateway.settings import Settings, status_fault

SIGNING_KEY = "signing-key.pem"
SECRET_KEY = "secret.key"  # noqa: S105 - the name of a file
DATABASE = "gateway.db"
MAKERS = "`serve`, `demo`, `migrate` and `merchant add`"


def prepare(settings: Settings, *, secrets: bool = False) -> None:
    """Create the directory if this process needs it. `secrets`: the process uses the merchants' secrets.

    A process with a database URL and with settings for all keys does not need it. Raise SettingsError.
    """
    make_files_private()
    if settings.database_url is None or signs(settings) or (secrets and settings.secret_key_file is None):
        make(settings.data_dir)


def require(settings: Settings, *, secrets: bool = False) -> None:
    """Raise SettingsError if this process needs the directory or the embedded database and it does not exist."""
    if settings.database_url is None or (secrets and settings.secret_key_file is None):
        _require_directory(settings.data_dir)
    if settings.database_url is None and not _exists(settings.data_dir / DATABASE):
        raise SettingsError(
            f"There is no database in {_absolute(settings.data_dir)}. Set PRODUCT_GATEWAY_DATA_DIR to the server's "
            f"data directory, or PRODUCT_GATEWAY_DATABASE_URL. {MAKERS} create a database."
        )


def require_key(settings: Settings, name: str) -> None:
    """Raise SettingsError if the directory does not contain the key."""
    _require_directory(settings.data_dir)
    if not _exists(settings.data_dir / name):
        raise SettingsError(
            f"There is no {name} in {_absolute(settings.data_dir)}. Set PRODUCT_GATEWAY_DATA_DIR to the server's data "
            "directory. `serve`, `demo` and `merchant add` create the key."
        )


def make_files_private() -> None:
    os.umask(0o077)


def _require_directory(path: Path) -> None:
    if _exists(path) and path.is_dir():
        check(path)
    elif path.is_symlink() or path.exists():
        raise SettingsError(f"PRODUCT_GATEWAY_DATA_DIR: {path} is not a directory: {_reason(path)}.")
    else:
        raise SettingsError(
            f"There is no data directory at {_absolute(path)}. Set PRODUCT_GATEWAY_DATA_DIR to the server's data "
            f"directory. {MAKERS} create one."
        )


def signs(settings: Settings) -> bool:
    """Return whether tokens are signed with the key in the directory."""
    return settings.jwt_public_key_file is None and settings.jwks_url is None


def make(path: Path) -> None:
    """Create the directory for its owner alone, or check an existing one. Raise SettingsError."""
    _exists(path)  # a text that cannot be a path may be a secret, and mkdir's error would show it
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"PRODUCT_GATEWAY_DATA_DIR: {path} cannot be created: {_reason(path, error)}.") from None
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
            f"Run: chmod 700 {shlex.quote(str(path))}. Or name a new directory inside it."
        )


def warning(settings: Settings) -> str | None:
    """Return a warning for the operator if every user may read the directory."""
    path = settings.data_dir
    with suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & (stat.S_IROTH | stat.S_IXOTH):
            remedy = f"Run: chmod 700 {shlex.quote(str(path))}"
            return f"Every user may read the data directory {path} (mode {mode:04o}). {remedy}"
    return None


def read_or_create(path: Path, content: bytes) -> bytes:
    """Return the content of a key file. Create it with `content` unless it exists. Raise SettingsError.

    The file's group may access it: Kubernetes volumes with an fsGroup need that. Other users may not.
    """
    if not _exists(path):
        with _draft(path, content) as draft, suppress(FileExistsError):  # another process was faster: its key counts
            os.link(draft, path)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    if mode & stat.S_IRWXO:
        raise SettingsError(
            f"PRODUCT_GATEWAY_DATA_DIR: every user may access the key {path} (mode {mode:04o}). "
            f"Run: chmod 600 {shlex.quote(str(path))}. If other users may have read it, replace it."
        )
    return content


def write_private(path: Path, content: bytes) -> None:
    """Replace the file atomically; only its owner may read it. Raise SettingsError."""
    with _draft(path, content) as draft:
        draft.replace(path)


@contextmanager
def _draft(path: Path, content: bytes) -> Iterator[Path]:
    """Write the content to a temporary file beside `path` and remove it afterwards. Raise SettingsError."""
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


def _exists(path: Path) -> bool:
    """Return whether something is at the path. Raise SettingsError where the system does not say."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise SettingsError(f"PRODUCT_GATEWAY_DATA_DIR: {status_fault(path, error)}.") from None
    return True


def _absolute(path: Path) -> Path:
    try:
        return path.absolute()
    except FileNotFoundError:  # the working directory was removed
        return path


def _reason(path: Path, error: OSError | None = None) -> str:
    if path.is_symlink() and not path.exists():
        return f"it is a symbolic link to {path.readlink()}, which does not exist"
    if path.exists():
        return "it is a file"
    return (error.strerror if error else None) or "it does not exist"
