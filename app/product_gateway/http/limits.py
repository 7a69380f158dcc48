"""Limits of a request: its size, its time, and headers that invite request smuggling (RFC 9112).

Limit of all responses: the bytes that clients have not read yet.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from product_gateway.errors import Overloaded

LARGEST_HEAD_BYTES = 96 * 1024  # request line and headers; a token of 64 KiB must still get a 401
LARGEST_TARGET_BYTES = 2**16 - 1  # httptools counts with 16 bits
LARGEST_BODY_BYTES = 1024 * 1024
MOST_HEADERS = 100
LONGEST_METHOD_CHARACTERS = 32  # as in METHOD
LARGE_BYTES = 64 * 1024  # a smaller response fits into the buffer that each connection may fill

# A method is a token (RFC 9110 §9.1). Like all registered methods, it must begin with a letter and have no lower case:
# anything else is probably a mistake ("get") or the rest of a body.
METHOD = re.compile(rb"[A-Z][A-Z0-9!#$%&'*+.^_`|~-]{0,31}")
COMMON_METHODS = (b"GET ", b"PUT ", b"HEAD ", b"POST ", b"DELETE ", b"OPTIONS ")
METHODS_OF_THE_PARSER = frozenset(b"GET PUT HEAD POST DELETE OPTIONS PATCH TRACE CONNECT PRI".split())

HOST = rb"(?:[A-Za-z0-9._~%!$&'()*+;=-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?"
ONE_HOST = re.compile(HOST)
ABSOLUTE = re.compile(rb"(?i:https?)://(?=[^/?:])" + HOST + rb"(?=[/?]|$)")
TOO_MANY_HEADERS = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"A request may have at most {MOST_HEADERS} headers."
HEAD_TOO_LARGE = (
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"The request line and headers may have at most {LARGEST_HEAD_BYTES} bytes, the request target alone "
    f"{LARGEST_TARGET_BYTES}.",
)
BODY_TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request body may have at most {LARGEST_BODY_BYTES} bytes."
FRAMING_TOO_LARGE = (  # the bytes around the data of a chunked body (RFC 9112 §7.1.1)
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    f"Chunk sizes, chunk extensions and trailers may have at most {LARGEST_HEAD_BYTES} bytes.",
)
PROXY_PROTOCOL = "This is the PROXY protocol, which is not spoken here. Let the proxy send X-Forwarded-For instead."
FRAMING_HEADERS = frozenset((b"host", b"content-length", b"transfer-encoding"))
"""Headers that say where a request ends and which host it is for: at most one of each."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Timeouts of a client, in seconds, and bounds over all connections."""

    header_timeout: float = 10  # from the first byte to the end of the headers
    body_timeout: float = 30  # from there to the end of the body
    keep_alive_timeout: float = 75  # longer than load balancers' own, or requests in flight would be lost
    write_timeout: float = 30  # to read the next 16 KiB of a response
    # A whole response may take `write_timeout`, and its size at this rate: 94 s for the largest page of records.
    reading_bytes_per_second: int = 128 * 1024
    unsent_bytes: int = 256 * 1024 * 1024  # of large responses that clients have not read yet, over all connections
    lingering_timeout: float = 2  # from closing our half to the client closing its half
    connections: int = 12_000


class UnsentBytes:
    """A counter of unsent bytes over all connections, and an admission control for large responses.

    A response is reserved while the application sends it. From then on its connection counts what it has buffered.
    """

    def __init__(self, most: int) -> None:
        self.total = 0
        self._most = most

    def add(self, change: int) -> None:
        """Count bytes that a connection has buffered, or with a negative number that its client has read."""
        self.total += change

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Hold room for a response of `size` bytes. Raise Overloaded where others have left none."""
        if self.total and self.total + size > self._most:
            raise Overloaded("Clients have not taken enough of the gateway's earlier large answers yet.")
        self.add(size)
        try:
            yield
        finally:
            self.add(-size)


# What begins like this is no request of HTTP/1: mostly a proxy or a client is configured for another port.
_OTHER_PROTOCOLS = (
    (b"\x16\x03", "This is TLS (https), and this port speaks HTTP without TLS."),
    (b"SM\r\n\r\n", "HTTP/2 is not spoken here; HTTP/1.1 is."),  # the end of its preface
    (b"\x00\r\nQUIT\n", PROXY_PROTOCOL),  # version 2, without the empty lines before it
)


def not_http(start: bytes, method: str, reason: str) -> "MalformedRequest":
    """Return the refusal of what the parser does not accept: its first bytes, and the method if that is unknown."""
    if method == "PROXY":  # version 1
        return bad_request(PROXY_PROTOCOL)
    for prefix, detail in _OTHER_PROTOCOLS:
        if start.startswith(prefix):
            return bad_request(detail)
    return bad_request(f"This is not HTTP as it should be: {reason}.")


class MalformedRequest(Exception):
    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def bad_request(detail: str) -> MalformedRequest:
    return MalformedRequest(HTTPStatus.BAD_REQUEST, detail)


def too_slow(what: str, seconds: float) -> MalformedRequest:
    return MalformedRequest(HTTPStatus.REQUEST_TIMEOUT, f"The {what} did not arrive within {seconds:g} seconds.")


def check_framing(version: str, framing: Mapping[bytes, bytes]) -> None:
    """Raise MalformedRequest for an invalid version, such as "1.1", or FRAMING_HEADERS (RFC 9112 §3.2, §6)."""
    if version not in ("1.1", "1.0"):
        raise bad_request(f"HTTP/{version} is not spoken here; HTTP/1.1 is.")
    coding = framing.get(b"transfer-encoding")
    if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
        raise bad_request("The only transfer coding known here is chunked, and only in HTTP/1.1.")
    if len(framing.get(b"content-length", b"")) > 20:  # the parser accepts any number of zeros
        raise bad_request("The Content-Length header has more digits than a number of bytes can have.")
    host = framing.get(b"host")
    if host is None:
        if version == "1.1":
            raise bad_request("The Host header is missing.")
    elif not ONE_HOST.fullmatch(host):
        raise bad_request("The Host header is not a name or an address, with or without a port.")


def origin_form(method: bytes, target: bytes) -> bytes:
    """Return the target as path and query. Raise MalformedRequest for a target for proxies (RFC 9112 §3.2)."""
    if b"#" in target:
        raise bad_request("The request target has a fragment.")
    if target[:1] == b"/" or (target == b"*" and method == b"OPTIONS"):
        return target
    absolute = ABSOLUTE.match(target)
    if absolute is None:
        raise bad_request("The request target is neither a path nor an http URL.")
    rest = target[absolute.end() :]
    return rest if rest[:1] == b"/" else b"/" + rest
