"""Who may use the operations port. The monitor: holders of the operator token; or, where none is set, this machine.

A browser is not to be used against its owner: what acts must come from a page of this server, and where loopback is
all that protects, the request must name this machine (a foreign name may lead here, too: DNS rebinding).
"""

import hashlib
import hmac
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import jwt
from starlette.types import Scope

from product_gateway.db import sessions
from product_gateway.db.database import Database
from product_gateway.db.single_flight import SingleFlight
from product_gateway.errors import NotAllowed, NotAuthenticated, PageNotFound, SettingsError
from product_gateway.http.addresses import parse_address
from product_gateway.http.context import header_values
from product_gateway.openapi.documents import Document
from product_gateway.openapi.security import bearer_token
from product_gateway.operations.monitor.attempts import Attempts
from product_gateway.settings import PREFIX, Settings, listed

COOKIE = "product_gateway_operator"
ALGORITHM = "HS256"  # of the cookie
SECONDS_SIGNED_IN = 12 * 3600
SHORTEST_TOKEN = 16
SAFE = ("GET", "HEAD")
# Headers that reverse proxies and content delivery networks add. A request with one was not made on this machine.
OF_A_PROXY = re.compile(
    rb"forwarded|forwarded-for|via|cdn-loop|x-(?:original-)?forward(?:ed)?(?:-.*)?|x-original-(?:host|url)|x-real-(?:ip|port)"
    rb"|x-envoy-.*|x-amzn-trace-id|x-azure-.*|x-appengine-.*|x-proxyuser-ip|x-host|cf-.*"
    rb"|(?:[a-z-]+-)?(?:client|cluster-client|connecting)-ip"
)
# Names that no stranger can register: a page of such a name is not made by one. Of one label (a service of Docker
# Compose), or in a zone that is kept for private use (RFC 6762, RFC 6761, ICANN) or that only a cluster has.
PRIVATE_NAME = re.compile(r"[a-z0-9_-]+|[a-z0-9_.-]+\.(?:localhost|local|internal|home\.arpa|svc|test)")
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]*)?")
NEEDED = "An operator token is needed: Authorization: Bearer …, or sign in at /monitor."
NAMES = f"{PREFIX}OPERATIONS_HOST_NAMES"
SETTING = f"{PREFIX}OPERATOR_TOKEN_FILE"
THIS_MACHINE_ALONE = f"No operator token is set, so the monitor answers this machine alone. To open it, set {SETTING}."


@dataclass(frozen=True, slots=True)
class Operator:
    """Who looks or acts."""

    address: str
    secure: bool  # whether the request came over TLS, as far as is known
    session: "Session | None" = None  # where a cookie has shown it


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie stands for."""

    id: str
    expires: int


def token_digest(settings: Settings) -> bytes | None:
    """Return what the operator token is compared by, None where there is none. Raises SettingsError."""
    path = settings.operator_token_file
    if path is None:
        return None
    try:
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not re.fullmatch(rf"[\x21-\x7e]{{{SHORTEST_TOKEN},}}", token):
        raise SettingsError(
            f"{SETTING}: {path} does not hold an operator token: one line of at least {SHORTEST_TOKEN} ASCII "
            "characters without spaces. One can be made with: openssl rand -hex 32"
        )
    return _digest(token)


class Access:
    """Decides about each request.

    A session is a signed cookie (JWT): every process that has the token knows it, also after a restart. Signing out is
    recorded in the database, so that it counts for every process, too. The cookie's key is the digest of the operator
    token, so a new token ends all sessions.
    """

    def __init__(self, settings: Settings, database: Database, token_digest: bytes | None) -> None:
        """`token_digest` is what `token_digest(settings)` returns."""
        self._digest = token_digest
        self._database = database
        self._attempts = Attempts()
        self._sessions = SingleFlight()
        self._ended_here: dict[str, int] = {}
        self._is_for_this_machine = _is_this_machine(settings.operations_host)
        self._names = {each.lower().rstrip(".") for each in listed(settings.operations_host_names)}

    def require_host(self, scope: Scope) -> None:
        """Check the Host of a request for metrics or health (DNS rebinding). Raises NotAllowed.

        On loopback, only this machine's own names are right. Elsewhere also addresses, as probes of pods have them, and
        names that no stranger can register. Names that the operator has set are right in both cases. A request without
        a Host is no browser's.
        """
        name = _host(scope)
        if name == "" or name in self._names or "*" in self._names or _is_this_machine(name):
            return
        if self._is_for_this_machine:
            what = "as localhost or 127.0.0.1"
        elif parse_address(name) or PRIVATE_NAME.fullmatch(name):
            return
        else:
            what = "by its address"
        raise NotAllowed(f"The request asks for the host {name[:100]!r}. Ask {what}, or add the name to {NAMES}.")

    async def guard(self, scope: Scope, _: Document) -> Operator:
        """Raises NotAuthenticated or NotAllowed."""
        address = scope["client"][0] if scope.get("client") else ""
        secure = scope.get("scheme") == "https"  # a trusted proxy has said so in X-Forwarded-Proto
        if self._digest is None:
            _require_this_machine(scope, address)
        elif header_values(scope, b"authorization"):
            self._require_token(bearer_token(scope), address)
            session = self._session_of(scope) if scope["method"] == "DELETE" else None
            return Operator(address, secure, session)
        session = self._session_of(scope)
        if self._digest is not None and (session is None or await self.has_ended(session)):
            raise NotAuthenticated(NEEDED, presented=False)
        if scope["method"] not in SAFE:
            _require_page_of_ours(scope)
        return Operator(address, secure, session)

    def session(self, operator: Operator) -> str:
        """A Set-Cookie that stands for the token. Raises PageNotFound where there is none."""
        if self._digest is None:
            raise PageNotFound
        claims = {"jti": secrets.token_hex(16), "exp": int(time.time()) + SECONDS_SIGNED_IN}
        return _cookie(jwt.encode(claims, self._digest, ALGORITHM), SECONDS_SIGNED_IN, secure=operator.secure)

    async def end_session(self, operator: Operator) -> str:
        """End the session of the request for every process; return a Set-Cookie that removes it. Raises Unavailable."""
        session = operator.session
        if session is not None:
            now = time.time()
            self._ended_here = {each: until for each, until in self._ended_here.items() if until > now}
            self._ended_here[session.id] = session.expires
            self._database.start_deadline()
            await self._database.write(sessions.end, session.id, datetime.fromtimestamp(session.expires, UTC))
        return _cookie("", 0, secure=operator.secure)

    async def has_ended(self, session: Session) -> bool:
        """Return whether the session is over: signed out anywhere, at most a second ago, or past its time."""
        if session.id in self._ended_here or session.expires <= time.time():
            return True
        return await self._sessions.get(session.id, lambda: self._look_up(session.id))

    async def _look_up(self, session_id: str) -> bool:
        self._database.start_deadline()
        return await self._database.read(sessions.has_ended, session_id)

    def _require_token(self, token: str, address: str) -> None:
        self._attempts.require_few(address)
        if self._digest is None or not hmac.compare_digest(_digest(token), self._digest):
            self._attempts.failed(address)
            raise NotAuthenticated("This is not the operator token.")
        self._attempts.succeeded(address)

    def _session_of(self, scope: Scope) -> Session | None:
        """Return what the cookie stands for, where we have made it and its time is not over."""
        for each in ";".join(header_values(scope, b"cookie")).split(";"):
            name, _, content = each.strip().partition("=")
            if name == COOKIE and self._digest is not None:
                with suppress(jwt.PyJWTError, RecursionError):
                    found = jwt.decode(content, self._digest, [ALGORITHM], {"require": ["jti", "exp"]})
                    return Session(found["jti"], found["exp"])
        return None


def _require_this_machine(scope: Scope, address: str) -> None:
    if not _is_loopback(address):
        raise NotAllowed(THIS_MACHINE_ALONE)
    for name, _ in scope["headers"]:
        if OF_A_PROXY.fullmatch(name):
            raise NotAllowed(
                f"The request came through a proxy: it has the header {name.decode('latin-1')[:50]}. Its client can "
                f"be anybody: an operator token is needed. {THIS_MACHINE_ALONE}"
            )
    name = _host(scope)
    if not _is_this_machine(name):
        raise NotAllowed(
            f"The request asks for the host {name[:100]!r}. {THIS_MACHINE_ALONE} Ask for it as localhost or 127.0.0.1."
        )


def _require_page_of_ours(scope: Scope) -> None:
    """CSRF: a browser says for which page it asks; with the one header, or with the other where it is older or the
    connection is not encrypted. A program sends neither of them, and no cookie."""
    site, origin, host = ("".join(header_values(scope, each)) for each in (b"sec-fetch-site", b"origin", b"host"))
    if site:
        is_ours = site == "same-origin"
    elif origin:
        is_ours = origin.partition("://")[2] == host
    else:
        is_ours = not header_values(scope, b"cookie")
    if not is_ours:
        raise NotAllowed("A browser sent this for a page that is not the monitor's own. Nothing was done.")


def _host(scope: Scope) -> str:
    """Return the name or address that the request asks for, in small letters; "" where it names none."""
    given = "".join(header_values(scope, b"host"))
    host = HOST.fullmatch(given)
    return given.lower() if host is None else host[1].strip("[]").lower().rstrip(".")


def _is_this_machine(name: str) -> bool:
    return name == "localhost" or _is_loopback(name)


def _is_loopback(text: str) -> bool:
    address = parse_address(text)
    return address is not None and address.is_loopback


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _cookie(value: str, seconds: int, *, secure: bool) -> str:
    # Without Path, the browser uses the folder of /monitor/session, including any proxy prefix (RFC 6265 §5.1.4).
    return f"{COOKIE}={value}; Max-Age={seconds}; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"
