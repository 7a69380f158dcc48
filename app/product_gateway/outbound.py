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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from importlib.metadata import version
from typing import Any, Self

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError
from multidict import CIMultiDict
from yarl import URL

from product_gateway.addresses import CheckedNames, is_public
from product_gateway.errors import AddressNotAllowed, AnswerTooLarge, AnswerUnreadable, OutboundError, Unreachable

MEBIBYTE = 1024 * 1024
SECONDS_KEPT = 15  # that a connection may be idle
SECONDS_TO_DRAIN = 1.0

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


@cache
def authorities() -> ssl.SSLContext:
    """The system's certificate authorities, read once: it takes longer than a request."""
    return ssl.create_default_context()


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
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._total_timeout = total_timeout
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None  # it belongs to an event loop, which may not run yet

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

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
        """The answer to a request, whatever its status; redirects are not followed.

        It is sent once. With `content` it is a message, and the status is all of its answer: what else comes is not
        kept.

        Raises AddressNotAllowed, Unreachable, AnswerTooLarge, AnswerUnreadable, or OutboundError for a token that
        cannot be sent.
        """
        target = self._target(url)
        host = target.host or ""
        sent = dict(headers or {})
        if bearer is not None:
            if not _SENDABLE_TOKEN.fullmatch(bearer):  # the HTTP library's own error would quote it
                raise OutboundError("The bearer token has characters that no token may have. Register it again.")
            sent["Authorization"] = f"Bearer {bearer}"
        try:
            async with (
                asyncio.timeout(self._total_timeout),
                self._connected().request(
                    method, target, params=params or None, headers=sent, data=content, allow_redirects=False
                ) as response,
            ):
                answer = await (self._read(response, host) if content is None else self._drain(response))
                fields = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers)
                return Reply(response.status, CIMultiDict(fields), answer)
        # The library's errors name the whole address, and some the token: none may be seen behind ours.
        except aiohttp.InvalidURL:
            raise AddressNotAllowed(f"{host} is no host: an IPv4 address is written as four numbers.") from None
        except aiohttp.ClientError as error:
            raise self._in_our_words(error, host) from None
        except TimeoutError as error:
            raise Unreachable(f"The answer of {host} was not complete after {self._total_timeout:g} s.") from error

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=authorities(),
                    limit=0,  # the callers bound their own concurrency; a slow merchant must not block others
                    resolver=CheckedNames(self._check, self._connect_timeout),
                    use_dns_cache=False,
                    socket_factory=self._socket,
                    keepalive_timeout=SECONDS_KEPT,
                ),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._connect_timeout, sock_read=self._read_timeout
                ),
                cookie_jar=aiohttp.DummyCookieJar(),  # two merchants may be on one host
                middlewares=[_once],
                headers={"User-Agent": user_agent(), "Accept": "application/json", "Accept-Encoding": "gzip"},
            )
        return self._session

    def _check(self, host: str, address: str) -> None:
        if not (self._allow_private_addresses or is_public(address)):
            raise AddressNotAllowed(f"{host} leads to an address that is not on the public internet.")

    def _socket(self, found: Any) -> socket.socket:
        """For a connection. Whatever it goes to is checked here, also what had not to be looked up."""
        family, kind, protocol, _, (address, *_) = found
        self._check(address, address)
        return socket.socket(family, kind, protocol)

    def _target(self, url: str) -> URL:
        try:
            if not url.isprintable():
                raise ValueError
            target = URL(url)
        except ValueError:
            raise Unreachable("The address is not a valid URL.") from None
        if target.scheme not in ("http", "https") or not target.host:
            raise AddressNotAllowed("The address must start with https:// and a host name.")
        if target.scheme == "http" and not self._allow_private_addresses:
            raise AddressNotAllowed(f"{target.host} must be called with https, not with plain http.")
        if target.user is not None or target.password is not None:
            raise AddressNotAllowed(f"The address of {target.host} must not carry a user name or password.")
        return target

    async def _read(self, response: aiohttp.ClientResponse, host: str) -> bytes:
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in _CODINGS:  # of several in a row, a few bytes could keep the event loop busy for ever
            raise _not_asked_for(host)
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > self._max_bytes:
                most = f"{self._max_bytes / MEBIBYTE:.3g} MiB"
                raise AnswerTooLarge(f"The answer of {host} is larger than {most} (decompressed).")
        return b"".join(parts)

    async def _drain(self, response: aiohttp.ClientResponse) -> bytes:
        """A short body that comes at once is read, so that the connection can serve again."""
        size = 0
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(SECONDS_TO_DRAIN):
                async for chunk in response.content.iter_any():
                    size += len(chunk)
                    if size > self._max_bytes:
                        break
        return b""

    def _in_our_words(self, error: aiohttp.ClientError, host: str) -> OutboundError:
        if any(isinstance(each, ContentEncodingError) for each in _chain(error)):
            if isinstance(error, aiohttp.ClientPayloadError):
                return AnswerUnreadable(f"The answer of {host} could not be decompressed.")
            return _not_asked_for(host)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return Unreachable(f"{host} did not accept a connection within {self._connect_timeout:g} s.")
        if isinstance(error, aiohttp.SocketTimeoutError):
            return Unreachable(f"{host} sent nothing for {self._read_timeout:g} s.")
        if isinstance(error, aiohttp.ClientConnectorError):
            return Unreachable(_no_connection(error.os_error, host))
        if any(isinstance(each, OSError) for each in _chain(error)):
            return Unreachable(f"The connection to {host} broke off before the answer was complete.")
        return Unreachable(f"{host} closed the connection too early, or what it sent was not valid HTTP.")


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Requests are made again in one place, and counted: not in the library too, which would do so unasked."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError from error


def _not_asked_for(host: str) -> AnswerUnreadable:
    return AnswerUnreadable(f"The answer of {host} has a Content-Encoding that was not asked for.")


def _no_connection(reason: OSError, host: str) -> str:
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
        error = error.__cause__
