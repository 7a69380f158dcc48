"""The one HTTP client: time-outs, a cap on the answer's size, and the rule on which addresses may be called.

The rule: unless private addresses are allowed, only https and only hosts all of whose addresses are public. The
host is looked up once, and the connection goes to an address that was checked, so a second DNS answer cannot get
around it. Connections are pooled by host name, never by address: TLS is verified for the name that was asked for.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Self

import httpcore2
import httpx2

from product_gateway.errors import AddressNotAllowed, AnswerTooLarge, AnswerUnreadable, OutboundError, Unreachable

MEBIBYTE = 1024 * 1024
ADDRESSES_TRIED = 4
SECONDS_TO_DRAIN = 1.0

_IPV6_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_CODINGS = ("", "identity", "gzip", "x-gzip", "deflate")
_SENDABLE_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came. `headers` are looked up without regard to case; `content` is decompressed."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)


def retry_after(reply: Reply) -> float | None:
    """Seconds (RFC 9110 §10.2.3), whichever of its two forms the header has."""
    value = reply.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):  # neither, or a date without an offset
        return None


@cache
def user_agent() -> str:
    """What we call ourselves."""
    return f"product-gateway/{version('product-gateway')}"


def is_public(address: str) -> bool:
    """Whether it is a global unicast address; one that carries an IPv4 address must carry a public one."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return ip.is_global and not ip.is_multicast
    carried = _carried_ipv4(ip)
    if carried is not None:
        return is_public(str(carried))
    return ip in _IPV6_UNICAST and ip.is_global


def _carried_ipv4(ip: IPv6Address) -> IPv4Address | None:
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour


class _CheckedConnections(httpcore2.AsyncNetworkBackend):
    """Looks a host up, checks every address it has, and connects to one of those that were checked."""

    def __init__(self, allow_private_addresses: bool) -> None:
        self._allow_private_addresses = allow_private_addresses
        self._connections = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        addresses = await self._look_up(host, port, deadline)
        if not self._allow_private_addresses and not all(is_public(address) for address in addresses):
            raise AddressNotAllowed(f"{host} leads to an address that is not on the public internet.")
        tried = addresses[:ADDRESSES_TRIED]
        failure: Exception = Unreachable(f"The host name {host} has no address.")
        for left, address in zip(range(len(tried), 0, -1), tried, strict=True):
            # an address that does not answer leaves the others their share of the time
            share = None if deadline is None else (deadline - loop.time()) / left
            try:
                return await self._connections.connect_tcp(
                    address, port, timeout=share, local_address=local_address, socket_options=socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _look_up(self, host: str, port: int, deadline: float | None) -> list[str]:
        try:
            async with asyncio.timeout_at(deadline):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise Unreachable(f"The host name {host} could not be looked up in time.") from error
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"The host name {host} could not be found.") from error
        return list(dict.fromkeys(str(each[4][0]) for each in found))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@cache
def authorities() -> ssl.SSLContext:
    """The system's certificate authorities, read once: it takes longer than a request."""
    return httpx2.create_ssl_context(trust_env=False)


class _Transport(httpx2.AsyncHTTPTransport):
    """The transport of httpx2 over connections of ours, which its constructor does not take."""

    def __init__(self, allow_private_addresses: bool) -> None:
        # without the parent's constructor: should `_pool` ever be renamed, calls fail instead of going unchecked
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=authorities(),
            max_connections=None,  # the callers bound their own concurrency; a slow merchant must not block others
            max_keepalive_connections=32,
            keepalive_expiry=15,
            network_backend=_CheckedConnections(allow_private_addresses),
        )


class Outbound:
    """Requests to other people's systems. Time-outs are in seconds; `max_bytes` counts after decompression."""

    def __init__(
        self,
        *,
        allow_private_addresses: bool,
        connect_timeout: float = 5,
        read_timeout: float = 30,
        total_timeout: float = 120,
        max_bytes: int = 64 * MEBIBYTE,
    ) -> None:
        self._allow_private_addresses = allow_private_addresses
        self._timeout = httpx2.Timeout(read_timeout, connect=connect_timeout)
        self._total_timeout = total_timeout
        self._max_bytes = max_bytes
        self._client = httpx2.AsyncClient(
            transport=_Transport(allow_private_addresses),
            timeout=self._timeout,
            follow_redirects=False,
            trust_env=False,
            # no cookies: two merchants may be on one host
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            headers={"User-Agent": user_agent(), "Accept": "application/json", "Accept-Encoding": "gzip"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def get(self, url: str, *, params: Mapping[str, str] | None = None, bearer: str | None = None) -> Reply:
        """The answer to a GET, as `send` has it."""
        return await self.send("GET", url, params=params, bearer=bearer)

    async def send(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        bearer: str | None = None,
        content: bytes | None = None,
    ) -> Reply:
        """The answer to a request, whatever its status; sent once, and redirects are not followed.

        With `content` it is a message, and the status is all of its answer: what else comes is not kept.

        Raises AddressNotAllowed, Unreachable, AnswerTooLarge, AnswerUnreadable, or OutboundError for a token that
        cannot be sent.
        """
        target = self._target(url)
        sent = dict(headers or {})
        if bearer is not None:
            if not _SENDABLE_TOKEN.fullmatch(bearer):  # the HTTP library's own error would quote it
                raise OutboundError("The bearer token has characters that no token may have. Register it again.")
            sent["Authorization"] = f"Bearer {bearer}"
        try:
            async with asyncio.timeout(self._total_timeout):
                request = self._client.stream(method, target, params=params or None, headers=sent, content=content)
                async with request as response:
                    if content is None:
                        answer = await self._read(response, target.host)
                    else:
                        answer = await self._drain(response)
                    return Reply(response.status_code, response.headers, answer)
        except TimeoutError as error:
            raise Unreachable(
                f"The answer of {target.host} was not complete after {self._total_timeout:g} s."
            ) from error
        except httpx2.DecodingError as error:
            raise AnswerUnreadable(f"The answer of {target.host} could not be decompressed.") from error
        except httpx2.HTTPError as error:
            raise Unreachable(self._in_plain_words(error, target.host)) from error

    def _target(self, url: str) -> httpx2.URL:
        try:
            target = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise Unreachable("The address is not a valid URL.") from error
        if (target.port or 0) > 65535:
            raise Unreachable("The address is not a valid URL: no port is above 65535.")
        if target.scheme not in ("http", "https") or not target.host:
            raise AddressNotAllowed("The address must start with https:// and a host name.")
        if target.scheme == "http" and not self._allow_private_addresses:
            raise AddressNotAllowed(f"{target.host} must be called with https, not with plain http.")
        if target.userinfo:
            raise AddressNotAllowed(f"The address of {target.host} must not carry a user name or password.")
        return target

    async def _read(self, response: httpx2.Response, host: str) -> bytes:
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in _CODINGS:  # of several in a row, a few bytes could keep the event loop busy for ever
            raise AnswerUnreadable(f"The answer of {host} has a Content-Encoding that was not asked for.")
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > self._max_bytes:
                size = f"{self._max_bytes / MEBIBYTE:.3g} MiB"
                raise AnswerTooLarge(f"The answer of {host} is larger than {size} (decompressed).")
        return bytes(content)

    async def _drain(self, response: httpx2.Response) -> bytes:
        """A short body that comes at once is read, so that the connection can serve again."""
        size = 0
        with contextlib.suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(SECONDS_TO_DRAIN):
                async for chunk in response.aiter_raw():
                    size += len(chunk)
                    if size > self._max_bytes:
                        break
        return b""

    def _in_plain_words(self, error: httpx2.HTTPError, host: str) -> str:
        if isinstance(error, httpx2.ConnectTimeout):
            return f"{host} did not accept a connection within {self._timeout.connect:g} s."
        if isinstance(error, httpx2.TimeoutException):
            return f"{host} sent nothing for {self._timeout.read:g} s."
        if isinstance(error, httpx2.ConnectError):
            return _no_connection(error, host)
        if isinstance(error, httpx2.NetworkError):
            return f"The connection to {host} broke off before the answer was complete."
        if isinstance(error, httpx2.ProtocolError):
            return f"{host} closed the connection too early, or what it sent was not valid HTTP."
        return f"The request to {host} failed ({type(error).__name__})."


def _no_connection(error: httpx2.ConnectError, host: str) -> str:
    reasons = [each for each in _chain(error) if isinstance(each, OSError)]
    for reason in reasons:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return f"The TLS certificate of {host} was refused: {reason.verify_message.rstrip('.')}."
        if isinstance(reason, ssl.SSLError):
            return f"{host} does not speak TLS (https) as it should: {reason.reason}."
        if isinstance(reason, ConnectionRefusedError):
            return f"The connection to {host} was refused."
    return f"No connection to {host} could be made."


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
