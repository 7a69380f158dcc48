"""Who may look at the monitor and act: holders of the operator token; or, where none is set, this machine alone.

A browser is not to be used against its owner: what acts must come from a page of this server, and where loopback is
all that protects, the request must name this machine (a foreign name may lead here, too: DNS rebinding).
"""

import hashlib
import hmac
import ipaddress
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path

from starlette.types import Scope

from product_gateway.errors import NotAllowed, NotAuthenticated, PageNotFound, SettingsError
from product_gateway.pipeline import bearer_token
from product_gateway.settings import PREFIX, Settings

logger = logging.getLogger(__name__)

COOKIE = "product_gateway_operator"
SECONDS_SIGNED_IN = 12 * 3600
SHORTEST_TOKEN = 16
SAFE = ("GET", "HEAD")
OF_A_PROXY = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip")
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]*)?")
NEEDED = "An operator token is needed: Authorization: Bearer …, or sign in at /monitor."
SETTING = f"{PREFIX}OPERATOR_TOKEN_FILE"
THIS_MACHINE_ALONE = f"No operator token is set, so the monitor answers this machine alone. To open it, set {SETTING}."


@dataclass(frozen=True, slots=True)
class Operator:
    """Who looks or acts."""

    address: str
    signed_in: bool


class Access:
    """Decides about each request. Raises SettingsError for a token that is none."""

    def __init__(self, settings: Settings) -> None:
        path = settings.operator_token_file
        self._digest = None if path is None else _digest(_token_in(path))

    async def guard(self, scope: Scope) -> Operator:
        """Raises NotAuthenticated or NotAllowed."""
        address = scope["client"][0] if scope.get("client") else ""
        authorization = _values(scope, b"authorization")
        if self._digest is None:
            _require_this_machine(scope, address)
        elif authorization:
            self._require_token(bearer_token(authorization), address)
            return Operator(address, signed_in=False)
        elif not self._has_session(scope):
            raise NotAuthenticated(NEEDED, presented=False)
        if scope["method"] not in SAFE:
            _require_page_of_ours(scope)
        return Operator(address, signed_in=self._digest is not None)

    def session(self) -> str:
        """A Set-Cookie that stands for the token. Raises PageNotFound where there is none."""
        if self._digest is None:
            raise PageNotFound
        expires = int(time.time()) + SECONDS_SIGNED_IN
        return _cookie(f"{expires}.{_mark(self._digest, expires)}", SECONDS_SIGNED_IN)

    def no_session(self) -> str:
        """A Set-Cookie that takes it back."""
        return _cookie("", 0)

    def _require_token(self, token: str, address: str) -> None:
        if self._digest is None or not hmac.compare_digest(_digest(token), self._digest):
            logger.warning("Somebody came to the monitor with a wrong operator token.", extra={"client": address})
            raise NotAuthenticated("This is not the operator token.")

    def _has_session(self, scope: Scope) -> bool:
        for value in _values(scope, b"cookie"):
            for each in value.decode("latin-1").split(";"):
                name, _, content = each.strip().partition("=")
                if name == COOKIE and self._holds(content):
                    return True
        return False

    def _holds(self, content: str) -> bool:
        expires, _, mark = content.partition(".")
        if self._digest is None or not re.fullmatch("[0-9]{1,12}", expires) or not mark.isascii():
            return False
        return int(expires) > time.time() and hmac.compare_digest(mark, _mark(self._digest, int(expires)))


def _require_this_machine(scope: Scope, address: str) -> None:
    if not _is_loopback(address):
        raise NotAllowed(THIS_MACHINE_ALONE)
    if any(_values(scope, each) for each in OF_A_PROXY):
        raise NotAllowed(f"The request came through a proxy, whose clients may be anybody. {THIS_MACHINE_ALONE}")
    host = HOST.fullmatch(b"".join(_values(scope, b"host")).decode("latin-1"))
    name = "" if host is None else host[1].strip("[]").lower()
    if name != "localhost" and not _is_loopback(name):
        raise NotAllowed(
            f"The request asks for the host {name[:100]!r}. {THIS_MACHINE_ALONE} Ask for it as localhost or 127.0.0.1."
        )


def _require_page_of_ours(scope: Scope) -> None:
    """CSRF: a browser says for which page it asks; with the one header, or with the other where it is older or the
    connection is not encrypted. A program sends neither of them, and no cookie."""
    site = b"".join(_values(scope, b"sec-fetch-site"))
    origin = b"".join(_values(scope, b"origin")).decode("latin-1")
    if site:
        is_ours = site == b"same-origin"
    elif origin:
        is_ours = origin.partition("://")[2].encode("latin-1") == b"".join(_values(scope, b"host"))
    else:
        is_ours = not _values(scope, b"cookie")
    if not is_ours:
        raise NotAllowed("A browser sent this for a page that is not the monitor's own. Nothing was done.")


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for found, value in scope["headers"] if found == name]


def _token_in(path: Path) -> str:
    try:
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not re.fullmatch(rf"[\x21-\x7e]{{{SHORTEST_TOKEN},}}", token):
        raise SettingsError(
            f"{SETTING}: {path} does not hold an operator token: one line of at least {SHORTEST_TOKEN} ASCII "
            "characters without spaces. One can be made with: openssl rand -hex 32"
        )
    return token


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _mark(digest: bytes, expires: int) -> str:
    """Nobody can make it without the token, and another token makes another."""
    return hmac.new(digest, f"session until {expires}".encode(), hashlib.sha256).hexdigest()


def _cookie(value: str, seconds: int) -> str:
    # Without Path, the browser takes the folder of /monitor/session as it sees it, behind whatever prefix (RFC 6265
    # §5.1.4).
    return f"{COOKIE}={value}; Max-Age={seconds}; HttpOnly; SameSite=Strict"
