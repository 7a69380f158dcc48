"""The HTTP client: time-outs, a limit on the size of responses, and protection against SSRF.

Unless private addresses are allowed, only https URLs are called, and only hosts whose addresses are all public. Each
host name is resolved once and the connection goes to a checked address, which prevents DNS rebinding. Connections are
pooled by host name, not by address, and TLS verifies that name.
"""

import asyncio
import contextlib
import functools
import re
import socket
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from product_gateway.errors import AddressNotAllowed, AnswerTooLarge, AnswerUnreadable, OutboundError, Unreachable
from product_gateway.http_client.content_coding import PART_BYTES, Decompressor, coding_of
from product_gateway.http_client.name_lookups import Lookup, NameLookups, system_lookup
from product_gateway.http_client.resolver import PublicOnlyResolver, is_public
from product_gateway.http_client.response_heads import repaired
from product_gateway.http_client.retry_headers import wait_asked
from product_gateway.http_client.tracebacks import release_locals
from product_gateway.settings import Settings
from product_gateway.telemetry.version import version
from product_gateway.telemetry.visible_text import visible

MEBIBYTE = 1024 * 1024
# Node, uvicorn and Apache close a connection that was idle for 5 seconds. A request that they meet while they close it
# fails without an answer.
KEEP_ALIVE_SECONDS = 4
SECONDS_TO_DRAIN = 1.0  # for a body that is not needed
ERROR_BODY_SECONDS, ERROR_BODY_BYTES = 5.0, 64 * 1024
# Shops send policies and cookies in headers: a Content-Security-Policy alone may have more than 8 KiB.
HEADER_LINE_BYTES, HEADER_LINES = 64 * 1024, 256
WITH_A_BODY = (200, 201, 202, 203)  # statuses whose body must be read completely

_TOO_LARGE = ("Got more than", "Too many headers")  # of aiohttp's messages about headers
_SENDABLE_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Response:
    """A response. `headers` are case-insensitive, `content` is decompressed."""

    status: int
    headers: CIMultiDict[str] = field(repr=False)
    content: bytes = field(repr=False)

    def header(self, name: str) -> str:
        """Return all values of a header, joined with commas (RFC 9110 §5.3), or "" without the header."""
        return ", ".join(self.headers.getall(name, ())).strip()


def retry_after(response: Response) -> float | None:
    """Return the seconds that the response asks to wait, by Retry-After or a rate-limit header, or None."""
    return wait_asked(response.headers.items())


def product_service_limits(settings: Settings) -> dict[str, Any]:
    """Return the arguments of an HttpClient for product services."""
    return {
        "allow_private_addresses": settings.allow_private_addresses,
        "connect_timeout": settings.connect_timeout_seconds,
        "read_timeout": settings.read_timeout_seconds,
        "total_timeout": settings.request_timeout_seconds,
        "max_bytes": settings.max_page_bytes,
    }


@cache
def default_ssl_context() -> ssl.SSLContext:
    """Return a context with the system's certificate authorities. Loading them takes longer than a request."""
    return ssl.create_default_context()


@dataclass(kw_only=True, eq=False)
class HttpClient:
    """A client for servers outside. Time-outs are in seconds; `max_bytes` limits the decompressed content.

    `lookup` returns the addresses of a host name, and may block.
    """

    allow_private_addresses: bool
    connect_timeout: float = 5
    read_timeout: float = 30
    total_timeout: float = 120
    max_bytes: int = 64 * MEBIBYTE
    lookup: Lookup = system_lookup
    ssl_context: ssl.SSLContext | None = None
    _session: aiohttp.ClientSession | None = field(default=None, init=False)  # created in the loop that uses it

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, url: str, *, params: Mapping[str, str] | None = None, bearer: str | None = None) -> Response:
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
    ) -> Response:
        """Send a request once and return the response of any status. Redirects are not followed.

        For a status in `WITH_A_BODY`, the body must be complete, in a known coding and within `max_bytes`. For any
        other status, the first 64 KiB of the body are kept, and no fault in the body hides the status. With `content`,
        the status is the whole result and no body is kept.

        Raises AddressNotAllowed, Unreachable, AnswerTooLarge, AnswerUnreadable, or OutboundError for a token that
        cannot be sent.
        """
        target = self._parse_url(url)
        host = target.host or ""
        sent = dict(headers or {})
        if bearer is not None:
            if not _SENDABLE_TOKEN.fullmatch(bearer):  # aiohttp's own error would quote the token
                raise OutboundError("The bearer token has characters that no token may have. Register it again.")
            sent["Authorization"] = f"Bearer {bearer}"
        try:
            return await self._exchange(method, target, dict(params or {}), sent, content)
        # aiohttp's errors contain the whole URL and some the token: hide them.
        except aiohttp.InvalidURL:
            raise AddressNotAllowed(f"{host} is no host: an IPv4 address is written as four numbers.") from None
        except aiohttp.ClientError as error:
            release_locals(error)  # they hold the body, and are part of a reference cycle
            raise Unreachable(self._explain(error, host)) from None
        except TimeoutError as error:
            release_locals(error)
            raise Unreachable(f"The answer of {host} was not complete after {self.total_timeout:g} s.") from error

    async def _exchange(
        self, method: str, target: URL, params: dict[str, str], headers: dict[str, str], content: bytes | None
    ) -> Response:
        async with asyncio.timeout(self.total_timeout) as deadline:
            response = await self._open_session().request(
                method, target, params=params or None, headers=headers, data=content, allow_redirects=False
            )
            try:
                if content is None and response.status in WITH_A_BODY:
                    body = await self._read(response, target.host or "")
                else:  # the status is known: no time-out may discard it
                    deadline.reschedule(None)
                    body = await self._read_leniently(response, keep=content is None)
            finally:
                response.release()
        fields = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers)
        return Response(response.status, CIMultiDict(fields), body)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                ssl=self.ssl_context or default_ssl_context(),
                limit=0,  # callers limit their own concurrency; a slow merchant must not block others
                resolver=PublicOnlyResolver(self._check, NameLookups(self.lookup, self.connect_timeout)),
                use_dns_cache=False,
                socket_factory=self._socket,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
            )
            protocol: type[ResponseHandler] = _HeadFirst  # aiohttp has no argument for that
            connector._factory = functools.partial(protocol, loop=connector._loop)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(None, sock_connect=self.connect_timeout, sock_read=self.read_timeout),
                cookie_jar=aiohttp.DummyCookieJar(),  # two merchants may share a host
                middlewares=[_no_retries],
                auto_decompress=False,  # `_read` bounds the memory
                max_line_size=HEADER_LINE_BYTES,
                max_field_size=HEADER_LINE_BYTES,
                max_headers=HEADER_LINES,
                headers={
                    "User-Agent": f"product-gateway/{version()}",
                    "Accept": "application/json",
                    "Accept-Encoding": "gzip",
                },
            )
        return self._session

    def _check(self, host: str, address: str) -> None:
        if not (self.allow_private_addresses or is_public(address)):
            raise AddressNotAllowed(f"{host} leads to an address that is not on the public internet.")

    def _socket(self, found: Any) -> socket.socket:
        """Create the socket of a connection. Check its address here too: an IP address in a URL is not resolved."""
        family, kind, protocol, _, (address, *_) = found
        self._check(address, address)
        return socket.socket(family, kind, protocol)

    def _parse_url(self, url: str) -> URL:
        try:
            if not url.isprintable():
                raise ValueError
            target = URL(url)
        except ValueError:
            raise Unreachable("The address is not a valid URL.") from None
        if target.scheme not in ("http", "https") or not target.host:
            raise AddressNotAllowed("The address must start with https:// and a host name.")
        if target.scheme == "http" and not self.allow_private_addresses:
            raise AddressNotAllowed(f"{target.host} must be called with https, not with plain http.")
        if target.user is not None or target.password is not None:
            raise AddressNotAllowed(f"The address of {target.host} must not carry a user name or password.")
        return target

    async def _read(self, response: aiohttp.ClientResponse, host: str) -> bytes:
        values = response.headers.getall("Content-Encoding", ())
        coding = coding_of(values)
        if coding is None:
            named = visible(", ".join(values)[:100])
            raise AnswerUnreadable(f"The answer of {host} has a Content-Encoding that was not asked for: {named}.")
        length = response.content_length
        if coding == "identity" and length is not None and length > self.max_bytes:
            raise self._too_large(host, length)
        decompressor = Decompressor(coding)
        parts: list[bytes] = []
        size = received = 0
        try:
            async for chunk in response.content.iter_any():
                received += len(chunk)
                for part in decompressor.feed(chunk):
                    parts.append(part)
                    size += len(part)
                    if size > self.max_bytes:
                        consumed = max(1, received - decompressor.unread)
                        raise self._too_large(host, None if length is None else size * length // consumed)
                    if len(part) == PART_BYTES:
                        await asyncio.sleep(0)  # a chunk may expand to many parts
            decompressor.end()
            return b"".join(parts)
        except zlib.error as error:
            raise AnswerUnreadable(
                f"The answer of {host} could not be decompressed: it is not {coding}, or it is cut off."
            ) from error
        finally:
            parts.clear()  # a caller that keeps the exception keeps this frame

    def _too_large(self, host: str, size: int | None) -> AnswerTooLarge:
        most = f"{self.max_bytes / MEBIBYTE:.3g} MiB"
        return AnswerTooLarge(f"The answer of {host} is larger than {most} (decompressed).", size, self.max_bytes)

    async def _read_leniently(self, response: aiohttp.ClientResponse, *, keep: bool) -> bytes:
        """Return the part of a body within the limits. Reading to the end lets the connection be reused."""
        coding = coding_of(response.headers.getall("Content-Encoding", ()))
        seconds, most = (ERROR_BODY_SECONDS, ERROR_BODY_BYTES) if keep else (SECONDS_TO_DRAIN, self.max_bytes)
        decompressor = Decompressor(coding or "identity")
        kept = bytearray()
        received = 0
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, HttpProcessingError, OSError, zlib.error):
            async with asyncio.timeout(seconds):
                async for chunk in response.content.iter_any():
                    received += len(chunk)
                    for part in decompressor.feed(chunk) if keep and coding else ():
                        kept += part[: most - len(kept)]
                    if max(received, len(kept)) >= most:
                        break
        return bytes(kept)

    def _explain(self, error: aiohttp.ClientError, host: str) -> str:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return f"{host} did not accept a connection within {self.connect_timeout:g} s."
        if isinstance(error, aiohttp.SocketTimeoutError):
            return f"{host} sent nothing for {self.read_timeout:g} s."
        if isinstance(error, aiohttp.ClientConnectorError):
            reason = error.os_error
            if isinstance(reason, ssl.SSLCertVerificationError):
                return f"The TLS certificate of {host} was refused: {reason.verify_message.rstrip('.')}."
            if isinstance(reason, ssl.SSLError):
                return f"{host} does not speak TLS (https) as it should: {reason.reason}."
            if isinstance(reason, ConnectionRefusedError):
                return f"The connection to {host} was refused."
            return f"No connection to {host} could be made."
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__cause__) is not None:
            causes.append(cause)
        if any(isinstance(each, OSError) for each in causes):
            return f"The connection to {host} broke off before the answer was complete."
        if any(isinstance(each, BadHttpMessage) and each.message.startswith(_TOO_LARGE) for each in causes):
            limits = f"{HEADER_LINES} lines of {HEADER_LINE_BYTES // 1024} KiB"
            return f"{host} sent too large a header: it may have {limits}."
        return f"{host} closed the connection too early, or what it sent was not valid HTTP."


async def _no_retries(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Turn off aiohttp's own retries: callers retry and count."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError from error


class _HeadFirst(ResponseHandler):
    """A connection that repairs the head of a response, and passes it on before the body is parsed.

    aiohttp parses all received bytes together and loses the status if the body is malformed: a 204 with a body, a
    Content-Length that is too small, a broken chunk.
    """

    def data_received(self, data: bytes) -> None:
        """Parse the bytes up to the end of a head, then the others."""
        end = data.find(b"\r\n\r\n") + 4
        body = self._payload
        if end >= 4 and data.startswith(b"HTTP/1.") and (body is None or body.is_eof()):
            super().data_received(repaired(data[:end]))
            data = data[end:]
        elif 4 <= end < len(data):
            super().data_received(data[:end])
            data = data[end:]
        if data:
            super().data_received(data)
        body = self._payload
        if self.exception() is not None and body is not None and not body.is_eof():  # or its reader waits for ever
            body.set_exception(aiohttp.ClientPayloadError("The body is malformed."))
