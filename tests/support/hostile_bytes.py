"""Hostile requests as bytes, with the expected responses. HTTP clients, and so most fuzzers, cannot send these."""

from dataclasses import dataclass

from product_gateway.http.limits import LARGEST_BODY_BYTES, LARGEST_HEAD_BYTES

API = b"/product-gateway/v1"
SYNC = API + b"/sync/PRODUCT"
UNTOUCHED = API + b"/sync/COLLECTION"
"""The target of refused requests: if this sync does not exist at the end, they had no effect."""

SYNCED = frozenset({202, 429})
NEXT = b"GET /health/ready HTTP/1.1\r\nHost: next\r\n\r\n"
TOKEN = b"%TOKEN%"


@dataclass(frozen=True)
class Case:
    """A case. `statuses`: the allowed ones of each response. `closes`: the server closes the connection."""

    data: bytes
    statuses: tuple[frozenset[int], ...]
    closes: bool = False
    half_close: bool = False
    methods: tuple[str, ...] = ()
    may_reset: bool = False  # more is sent than the server is ready to read
    in_body: bool = False  # goes wrong so late that, slowly sent, it is answered before that


def one(*statuses: int) -> tuple[frozenset[int], ...]:
    """Expect one response with any of these statuses."""
    return (frozenset(statuses),)


def head(line: bytes, *headers: bytes, host: bytes | None = b"gateway") -> bytes:
    """Return a request line and headers."""
    fields = [b"Host: " + host] if host is not None else []
    return b"\r\n".join([line, *fields, *headers, b"", b""])


def get(target: bytes, *headers: bytes) -> bytes:
    """Return a GET with a valid token."""
    return head(b"GET " + target + b" HTTP/1.1", b"Authorization: Bearer " + TOKEN, *headers)


def put(*headers: bytes, target: bytes = SYNC, version: bytes = b"1.1") -> bytes:
    """Return a PUT with a valid token."""
    return head(b"PUT " + target + b" HTTP/" + version, b"Authorization: Bearer " + TOKEN, *headers)


def body(content: bytes, *headers: bytes) -> bytes:
    """Return a PUT with a body, which the operation ignores."""
    return put(b"Content-Type: application/json", b"Content-Length: %d" % len(content), *headers) + content


def chunked(content: bytes, *headers: bytes, target: bytes = SYNC) -> bytes:
    """Return a chunked PUT with this content after its headers."""
    return put(b"Transfer-Encoding: chunked", *headers, target=target) + content


def refused(data: bytes, *statuses: int, may_reset: bool = False) -> Case:
    """Expect one response (by default 400), and a close."""
    return Case(data, one(*(statuses or (400,))), closes=True, may_reset=may_reset)


LIVE = b"/health/live"
CHUNK = b"3\r\nabc\r\n"
END = b"0\r\n\r\n"
GOOD_HEAD = head(b"GET " + LIVE + b" HTTP/1.1")


def padded(size: int) -> bytes:
    """Return a GET whose request line and headers have exactly `size` bytes."""
    line = b"GET " + LIVE + b" HTTP/1.1"
    return head(line, b"X: " + b"x" * (size - len(head(line, b"X: "))))


BODIES = {
    "chunked body": Case(chunked(CHUNK + END), (SYNCED,), closes=True),
    "chunked body and a request behind it": Case(chunked(CHUNK + END) + NEXT, (SYNCED,), closes=True),
    "chunk extensions": Case(chunked(b'3;name="value";more\r\nabc\r\n' + END), (SYNCED,), closes=True),
    "trailers that pose as headers": Case(
        head(b"GET " + API + b"/syncs HTTP/1.1", b"Transfer-Encoding: chunked")
        + b"0\r\nAuthorization: Bearer "
        + TOKEN
        + b"\r\n\r\n",
        one(401),
        closes=True,
    ),
    "body of invalid UTF-8": Case(body(b'{"a": "\xff\xfe"}'), (SYNCED,)),
    "body of 100,000 arrays in each other": Case(body(b"[" * 100_000 + b"]" * 100_000), (SYNCED,)),
    "body of 100,000 objects in each other": Case(body(b'{"a":' * 100_000), (SYNCED,)),
    "body with an integer of 5,000 digits": Case(body(b"9" * 5_000), (SYNCED,)),
    "body of NaN": Case(body(b"NaN"), (SYNCED,)),
    "body of NULs": Case(body(b"\0" * 1000), (SYNCED,)),
    "body that promises gzip": Case(body(b"\x1f\x8b" + b"x" * 20, b"Content-Encoding: gzip"), (SYNCED,)),
    "two Content-Types": Case(body(b"{}", b"Content-Type: text/plain"), (SYNCED,)),
    "two Content-Types in one": Case(
        put(b"Content-Type: application/json, text/plain", b"Content-Length: 2") + b"{}", (SYNCED,)
    ),
    "a Content-Type that is none": Case(put(b"Content-Type: ;;;=,", b"Content-Length: 2") + b"{}", (SYNCED,)),
    "multipart without an end": Case(
        put(b"Content-Type: multipart/form-data; boundary=x", b"Content-Length: 5") + b"--x\r\n", (SYNCED,)
    ),
    "body on a GET": Case(get(API + b"/syncs", b"Content-Length: 5") + b"hello", one(200)),
    "body of the largest size": Case(body(b"x" * LARGEST_BODY_BYTES), (SYNCED,)),
    "body of one byte too many": refused(
        put(b"Content-Length: %d" % (LARGEST_BODY_BYTES + 1), target=UNTOUCHED) + b"x" * (LARGEST_BODY_BYTES + 1),
        413,
        may_reset=True,
    ),
    "body too large that is only announced": refused(
        put(b"Content-Length: %d" % (LARGEST_BODY_BYTES + 1), target=UNTOUCHED), 413
    ),
    "body of 18 quintillion bytes": refused(put(b"Content-Length: 18446744073709551615", target=UNTOUCHED), 413),
    "chunked body without an end": Case(
        chunked(b"8000\r\n" + b"x" * 0x8000 + b"\r\n") + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 99,
        (SYNCED | {413},),
        closes=True,
        may_reset=True,
    ),
    "chunks of one byte without an end": Case(
        chunked(b"1\r\nx\r\n" * 400_000), (SYNCED | {413},), True, may_reset=True
    ),
    "chunk extension without an end": Case(
        chunked(b"1;" + b"x" * 3_000_000), (SYNCED | {413},), closes=True, may_reset=True
    ),
    "trailers without an end": Case(
        chunked(CHUNK + b"0\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 100_000),
        (SYNCED | {413},),
        closes=True,
        may_reset=True,
    ),
    "body that says more than it has": Case(put(b"Content-Length: 100") + b"x" * 99, (SYNCED,), True, half_close=True),
    "Expect: 100-continue, and the body waits": Case(
        put(b"Expect: 100-continue", b"Content-Length: 10"), (SYNCED,), closes=True
    ),
    "Expect: 100-continue, and the body comes": Case(
        put(b"Expect: 100-continue", b"Content-Length: 10") + b"0123456789", (SYNCED,), closes=True
    ),
    "Expect: 100-continue for too much": refused(
        put(b"Expect: 100-continue", b"Content-Length: 99999999", target=UNTOUCHED), 413
    ),
    "Expect: something else": Case(put(b"Expect: the-unexpected"), (SYNCED,)),
}

HEADS = {
    "header of 1 MB": refused(get(LIVE, b"X: " + b"x" * 1_000_000), 431, may_reset=True),
    "header name of 1 MB": refused(get(LIVE, b"x" * 1_000_000 + b": x"), 431, may_reset=True),
    "10,000 headers": refused(get(LIVE, *(b"X-%d: y" % each for each in range(10_000))), 431),
    "101 headers": refused(get(LIVE, *(b"X-%d: y" % each for each in range(99))), 431),
    "102 headers without an end": refused(get(LIVE, *(b"X-%d: y" % each for each in range(100)))[:-2], 431),
    "100 headers": Case(get(LIVE, *(b"X-%d: y" % each for each in range(98))), one(200)),
    "one header 100,000 times": refused(get(LIVE, *[b"X: y"] * 100_000), 431, may_reset=True),
    "headers of the largest size": Case(padded(LARGEST_HEAD_BYTES), one(200)),
    "headers of one byte too many": refused(padded(LARGEST_HEAD_BYTES + 1), 431),
    "headers without an end": refused(GOOD_HEAD[:-2] + b"X: " + b"x" * 200_000, 431),
    "empty lines without an end": refused(b"\r\n" * 100_000, 431),
    "token of 64 KiB": Case(
        head(b"GET " + API + b"/syncs HTTP/1.1", b"Authorization: Bearer " + b"t" * 65_536), one(401)
    ),
    "target of 1 MB": refused(get(b"/" + b"x" * 1_000_000), 431, may_reset=True),
    "target of 66,000 bytes": refused(get(b"/" + b"x" * 66_000), 431),
    "target of 60,000 bytes": Case(get(b"/" + b"x" * 60_000), one(404)),
    "query of 60,000 bytes": Case(get(API + b"/syncs?cursor=" + b"x" * 60_000), one(400)),
    "two Authorizations": Case(get(API + b"/syncs", b"Authorization: Bearer " + TOKEN), one(401)),
    "two Authorizations in one": Case(
        head(b"GET " + API + b"/syncs HTTP/1.1", b"Authorization: Bearer x, Bearer " + TOKEN), one(401)
    ),
    "Authorization of Latin-1": Case(
        head(b"GET " + API + b"/syncs HTTP/1.1", b"Authorization: Bearer \xe9\xff"), one(401)
    ),
    "no Host": refused(head(b"GET " + LIVE + b" HTTP/1.1", host=None)),
    "two Hosts": refused(head(b"GET " + LIVE + b" HTTP/1.1", b"Host: gateway")),
    "two Hosts in one": refused(head(b"GET " + LIVE + b" HTTP/1.1", host=b"a, b")),
    "Host with a user": refused(head(b"GET " + LIVE + b" HTTP/1.1", host=b"user@gateway")),
    "Host with a path": refused(head(b"GET " + LIVE + b" HTTP/1.1", host=b"gateway/path")),
    "Host with a wrong port": refused(head(b"GET " + LIVE + b" HTTP/1.1", host=b"gateway:http")),
    "Host of nothing": Case(head(b"GET " + LIVE + b" HTTP/1.1", host=b""), one(200)),
    "Host of IPv6": Case(head(b"GET " + LIVE + b" HTTP/1.1", host=b"[::1]:8080"), one(200)),
    "NUL in a header": refused(get(LIVE, b"X: a\0b")),
    "NUL in a header's name": refused(get(LIVE, b"X\0: a")),
    "control character in a header": refused(get(LIVE, b"X: a\x01b")),
    "header without a name": refused(get(LIVE, b": a")),
    "header without a colon": refused(get(LIVE, b"abc")),
    "space before the colon": refused(get(LIVE, b"X : a")),
    "space before the first header": refused(b"GET " + LIVE + b" HTTP/1.1\r\n Host: gateway\r\n\r\n"),
    "bytes of Latin-1 in a header": Case(get(LIVE, b"X: a\xe9\xff"), one(200)),
    "headers that end too early": Case(GOOD_HEAD[:-3], one(400), closes=True, half_close=True),
    "upgrade to a WebSocket": Case(
        get(
            LIVE,
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        one(200),
        closes=True,
    ),
    "upgrade to HTTP/2": Case(
        get(LIVE, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
        + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        one(200),
        closes=True,
    ),
}

LINES = {
    "NUL in the target": refused(get(b"/a\0b")),
    "control character in the target": refused(get(b"/a\x01b")),
    "space in the target": refused(get(b"/a b")),
    "bytes beyond ASCII in the path": refused(get(b"/caf\xc3\xa9")),
    "bytes beyond ASCII in the query": refused(get(API + b"/syncs?cursor=\xff")),
    "invalid UTF-8 in the path, encoded": Case(get(API + b"/products/%ff%fe"), one(400)),
    "invalid UTF-8 in the query, encoded": Case(get(API + b"/syncs?cursor=%ff"), one(400)),
    "overlong UTF-8 in the path": Case(get(API + b"/products/%c0%af"), one(400)),
    "half a surrogate in the path": Case(get(API + b"/products/%ed%a0%80"), one(400)),
    "NUL in the path, encoded": Case(get(API + b"/products/a%00b"), one(400, 404)),
    "NUL in the query, encoded": Case(get(API + b"/products?ids=a%00b"), one(400)),
    "percent sign without digits": Case(get(API + b"/products/%zz%"), one(400, 404)),
    "slash in an id, encoded": Case(get(API + b"/products/a%2Fb"), one(404)),
    "slash in an id, encoded twice": Case(get(API + b"/products/a%252Fb"), one(404)),
    "dots in the path": Case(get(API + b"/products/../../../health/live"), one(404)),
    "dots in the path, encoded": Case(get(API + b"/products/%2e%2e/%2e%2e/syncs"), one(404)),
    "dots and a backslash": Case(get(b"/..\\..\\etc\\passwd"), one(404)),
    "two slashes first": Case(get(b"//evil.example/health/live"), one(404)),
    "semicolons in the path": Case(get(LIVE + b";a=b"), one(404)),
    "integer of 5,000 digits in the query": Case(get(API + b"/syncs?page_size=" + b"9" * 5_000), one(400)),
    "NaN in the query": Case(get(API + b"/syncs?page_size=NaN"), one(400)),
    "a parameter twice": Case(get(API + b"/syncs?page_size=1&page_size=2"), one(200, 400)),
    "10,000 parameters": Case(get(API + b"/syncs?" + b"&".join(b"a%d" % each for each in range(8_000))), one(400)),
    "fragment in the target": refused(get(LIVE + b"#top")),
    "absolute-form": Case(get(b"http://other.example" + LIVE), one(200)),
    "absolute-form with a port and a query": Case(get(b"HTTP://other.example:80" + LIVE + b"?"), one(200)),
    "absolute-form of https": Case(get(b"https://other.example" + LIVE), one(200)),
    "absolute-form without a path": Case(get(b"http://other.example"), one(200)),
    "absolute-form with a query only": Case(get(b"http://other.example?a=/health/live"), one(400)),
    "absolute-form with a user": refused(get(b"http://user:secret@other.example" + LIVE)),
    "absolute-form without a host": refused(get(b"http://" + LIVE)),
    "absolute-form of another scheme": refused(get(b"ftp://other.example/")),
    "authority-form": refused(get(b"other.example:443")),
    "no slash first": refused(get(b"health/live")),
    "CONNECT": refused(head(b"CONNECT other.example:443 HTTP/1.1") + NEXT),
    "OPTIONS of the server": Case(head(b"OPTIONS * HTTP/1.1"), one(404)),
    "OPTIONS of a path": Case(head(b"OPTIONS " + LIVE + b" HTTP/1.1"), one(405)),
    "asterisk of a GET": refused(head(b"GET * HTTP/1.1")),
    "TRACE": Case(head(b"TRACE " + LIVE + b" HTTP/1.1", b"Cookie: secret"), one(405)),
    "unknown method, known path": Case(head(b"BREW " + LIVE + b" HTTP/1.1"), one(405)),
    "unknown method, unknown path": Case(head(b"BREW /nothing HTTP/1.1"), one(404)),
    "method of another protocol": Case(head(b"DESCRIBE " + LIVE + b" HTTP/1.1"), one(405)),
    "method of WebDAV": Case(head(b"PROPFIND " + LIVE + b" HTTP/1.1"), one(405)),
    "method of one letter": Case(head(b"G " + LIVE + b" HTTP/1.1"), one(405)),
    "method like another with more behind": Case(head(b"GETS " + LIVE + b" HTTP/1.1"), one(405)),
    "method of signs first": refused(head(b"!FOO " + LIVE + b" HTTP/1.1")),
    "method of digits first": refused(head(b"9FOO " + LIVE + b" HTTP/1.1")),
    "method with signs": Case(head(b"F!#$%&'*+-.^_`|~09 " + LIVE + b" HTTP/1.1"), one(405)),
    "method of 32 letters": Case(head(b"M" * 32 + b" " + LIVE + b" HTTP/1.1"), one(405)),
    "method of 33 letters": refused(head(b"M" * 33 + b" " + LIVE + b" HTTP/1.1")),
    "method of one small letter": refused(head(b"GeT " + LIVE + b" HTTP/1.1")),
    "method with a quote": refused(head(b'F"O ' + LIVE + b" HTTP/1.1")),
    "method with a colon": refused(head(b"FOO: " + LIVE + b" HTTP/1.1")),
    "method beyond ASCII": refused(head(b"F\xc3\x96O " + LIVE + b" HTTP/1.1")),
    "no method": refused(head(b" " + LIVE + b" HTTP/1.1")),
    "unknown method without a target": refused(head(b"FOO HTTP/1.1")),
    "unknown method in HTTP/0.9": refused(b"FOO " + LIVE + b"\r\n\r\n"),
    "unknown method of the server": refused(head(b"FOO * HTTP/1.1")),
    "unknown method without a Host": refused(head(b"FOO " + LIVE + b" HTTP/1.1", host=None)),
    "unknown method and nothing else": Case(b"FOO", one(400), closes=True, half_close=True),
    "unknown method with a body": Case(head(b"FOO " + LIVE + b" HTTP/1.1", b"Content-Length: 3") + b"abc", one(405)),
    "unknown methods in a row": Case(head(b"FOO " + LIVE + b" HTTP/1.1") * 3, one(405) * 3),
    "unknown method behind a body": Case(
        head(b"PUT " + LIVE + b" HTTP/1.1", b"Content-Length: 3") + b"abc" + head(b"FOO /nothing HTTP/1.1") + GOOD_HEAD,
        one(405) + one(404) + one(200),
    ),
    "method in small letters": refused(head(b"get " + LIVE + b" HTTP/1.1")),
    "method without an end": refused(b"G" * 10_000),
    "HEAD": Case(head(b"HEAD " + LIVE + b" HTTP/1.1"), one(200), methods=("HEAD",)),
    "HEAD of nothing": Case(head(b"HEAD /nothing HTTP/1.1"), one(404), methods=("HEAD",)),
    "HEAD without a Host": Case(head(b"HEAD / HTTP/1.1", host=None), one(400), closes=True, methods=("HEAD",)),
    "HTTP/1.0": Case(head(b"GET " + LIVE + b" HTTP/1.0", host=None), one(200), closes=True),
    "HTTP/1.0 that asks to be kept": Case(
        head(b"GET " + LIVE + b" HTTP/1.0", b"Connection: keep-alive") + NEXT, one(200), closes=True
    ),
    "HTTP/0.9": refused(b"GET " + LIVE + b"\r\n\r\n"),
    "HTTP/0.9 by name": refused(head(b"GET " + LIVE + b" HTTP/0.9")),
    "HTTP/1.2": refused(head(b"GET " + LIVE + b" HTTP/1.2")),
    "HTTP/2.0": refused(head(b"GET " + LIVE + b" HTTP/2.0")),
    "HTTP/9.9": refused(head(b"GET " + LIVE + b" HTTP/9.9")),
    "HTTP/11.1": refused(head(b"GET " + LIVE + b" HTTP/11.1")),
    "HTTP in small letters": refused(head(b"GET " + LIVE + b" http/1.1")),
    "preface of HTTP/2": refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
    "TLS": refused(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\xaa" * 500),
    "nothing that means anything": refused(bytes(range(256)) * 40),
    "tab for a space": refused(b"GET\t" + LIVE + b"\tHTTP/1.1\r\nHost: gateway\r\n\r\n"),
    "space behind the version": refused(head(b"GET " + LIVE + b" HTTP/1.1 ")),
    "empty lines first": Case(b"\r\n\r\n" + GOOD_HEAD, one(200)),
    "only line feeds": refused(b"GET " + LIVE + b" HTTP/1.1\nHost: gateway\n\n"),
}
