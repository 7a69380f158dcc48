"""The gateway and the token of a client command: from its options, the environment, or a saved context."""

import re
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from product_gateway import data_directory, settings
from product_gateway.errors import NoToken, SettingsError
from product_gateway.settings import PREFIX, is_http_address

DEFAULT_URL = "http://127.0.0.1:8080"
STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Context:
    """The gateway that a command talks to. `options` repeats the options that chose it."""

    url: str
    token: str = field(repr=False)
    token_source: str
    options: tuple[str, ...] = ()


class _Saved(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: str
    token: str = Field(repr=False)


def checked_url(url: str, source: str = "") -> str:
    """Return the URL if it can be a gateway's. Raises SettingsError that names the source."""
    if not is_http_address(url, " \\?#@"):
        raise SettingsError(
            f"{source and f'{source}: '}{url[:200]!r} is not the address of a gateway. Write http:// or https://, a "
            f"host and perhaps a path, such as {DEFAULT_URL}."
        )
    return url.rstrip("/")


def resolve(url: str | None, token_file: str | None) -> Context:
    """Return the context: options come before the environment, the saved context and the default URL.

    The saved token goes only to the saved URL. Raises SettingsError.
    """
    environment = settings.ClientSettings()
    # An unreadable saved context is no obstacle where it is not needed.
    saved = None if (url or environment.url) and (token_file or environment.token) else _saved()
    options = () if url is None else ("--url", url)
    if url is not None:
        url = checked_url(url)
    elif environment.url is not None:
        url = checked_url(environment.url, f"{PREFIX}URL")
    else:
        url = saved.url if saved else DEFAULT_URL
    if token_file is not None:
        source = "standard input" if token_file == STANDARD_INPUT else f"the file {token_file}"
        return Context(url, _checked(token_in(token_file), source), source, (*options, "--token-file", token_file))
    if environment.token is not None:
        return Context(url, _checked(environment.token, f"{PREFIX}TOKEN"), f"{PREFIX}TOKEN", options)
    if saved is None:
        raise NoToken(
            "There is no bearer token. Give --token-file FILE (- is standard input), set PRODUCT_GATEWAY_TOKEN, or "
            "save one with `product-gateway login`. `make run` writes a token to var/demo.token, and "
            "`product-gateway token MERCHANT` prints one."
        )
    if saved.url != url:
        raise SettingsError(
            f"The saved token is for {saved.url}, and is not sent to {url}. Give --token-file or set {PREFIX}TOKEN."
        )
    return Context(url, saved.token, f"the saved context {settings.context_file()}", options)


def token_in(token_file: str) -> str:
    """Return the text of the file, or the first line of standard input; "" if it cannot be read."""
    try:
        text = sys.stdin.readline() if token_file == STANDARD_INPUT else Path(token_file).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    return text.strip()


def save(context: Context) -> Path:
    """Save the URL and the token for later commands, readable by this user only. Raises SettingsError."""
    path = settings.context_file()
    body = _Saved(url=context.url, token=context.token)
    try:
        data_directory.write_private(path, body.model_dump_json().encode() + b"\n")
    except SettingsError as error:
        raise SettingsError(error.detail.replace(f"{PREFIX}DATA_DIR", "XDG_CONFIG_HOME")) from None
    return path


def forget() -> bool:
    """Delete the saved context; return whether there was one. Raises SettingsError."""
    path = settings.context_file()
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SettingsError(f"{path} cannot be deleted: {error.strerror}.") from None
    return True


def _saved() -> _Saved | None:
    path = settings.context_file()
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SettingsError(f"Other users may access the saved context {path}. Run: chmod 600 {path}")
        found = _Saved.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(f"The saved context {path} cannot be read: {error.strerror}.") from None
    except ValidationError:
        raise SettingsError(f"{path} is not a saved context. Run: product-gateway login") from None
    return _Saved(url=checked_url(found.url, str(path)), token=_checked(found.token, f"The saved context {path}"))


def _checked(token: str, source: str) -> str:
    if not re.fullmatch("[!-~]+", token):
        raise SettingsError(
            f"{source[0].upper()}{source[1:]} does not hold a bearer token: one line of ASCII without spaces."
        )
    return token
