"""Request smuggling and pipelining: bytes that two readers could frame differently."""

from tests.support.hostile_bytes import (
    API,
    CHUNK,
    END,
    GOOD_HEAD,
    LIVE,
    NEXT,
    SYNCED,
    UNTOUCHED,
    Case,
    body,
    chunked,
    get,
    head,
    one,
    put,
    refused,
)

OK, NOT_FOUND, BAD = frozenset({200}), frozenset({404}), frozenset({400})
READY = frozenset({200, 503})


def smuggled(*headers: bytes, content: bytes = END, version: bytes = b"1.1") -> Case:
    """Expect one refusal: neither this PUT nor the request after it is served."""
    return refused(put(*headers, target=UNTOUCHED, version=version) + content + NEXT)


def badly_chunked(content: bytes) -> Case:
    """Expect the same for valid headers and an invalid chunked body."""
    return Case(chunked(content, target=UNTOUCHED) + NEXT, (BAD,), closes=True, in_body=True)


SMUGGLING = {
    "Content-Length and Transfer-Encoding": smuggled(b"Content-Length: 6", b"Transfer-Encoding: chunked"),
    "Transfer-Encoding and Content-Length": smuggled(b"Transfer-Encoding: chunked", b"Content-Length: 6"),
    "Content-Length of 0 and Transfer-Encoding": smuggled(b"Content-Length: 0", b"Transfer-Encoding: chunked"),
    "two lengths": smuggled(b"Content-Length: 5", b"Content-Length: 6", content=b"01234"),
    "the same length twice": smuggled(b"Content-Length: 5", b"Content-Length: 5", content=b"01234"),
    "two lengths in one": smuggled(b"Content-Length: 5, 5", content=b"01234"),
    "length below zero": smuggled(b"Content-Length: -5", content=b"01234"),
    "length with a plus": smuggled(b"Content-Length: +5", content=b"01234"),
    "length in hexadecimal": smuggled(b"Content-Length: 0x5", content=b"01234"),
    "length with a space": smuggled(b"Content-Length: 1 0", content=b"0123456789"),
    "length with an underscore": smuggled(b"Content-Length: 1_0", content=b"0123456789"),
    "length with a point": smuggled(b"Content-Length: 5.0", content=b"01234"),
    "length of nothing": smuggled(b"Content-Length: ", content=b"01234"),
    "length beyond 64 bits": smuggled(b"Content-Length: 18446744073709551617", content=b"0"),
    "length with 5,000 zeros": smuggled(b"Content-Length: " + b"0" * 5_000 + b"5", content=b"01234"),
    "length of other digits": smuggled("Content-Length: ٥".encode(), content=b"01234"),
    "chunked twice": smuggled(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "chunked twice in one": smuggled(b"Transfer-Encoding: chunked, chunked"),
    "chunked and a comma": smuggled(b"Transfer-Encoding: chunked,"),
    "coding identity": smuggled(b"Transfer-Encoding: identity"),
    "coding identity with a length": smuggled(b"Transfer-Encoding: identity", b"Content-Length: 5"),
    "chunked and identity": smuggled(b"Transfer-Encoding: chunked, identity"),
    "gzip and chunked": smuggled(b"Transfer-Encoding: gzip, chunked"),
    "nearly chunked": smuggled(b"Transfer-Encoding: xchunked"),
    "quoted chunked": smuggled(b'Transfer-Encoding: "chunked"'),
    "chunked behind a vertical tab": smuggled(b"Transfer-Encoding: \x0bchunked"),
    "chunked and a parameter": smuggled(b"Transfer-Encoding: chunked;q=1"),
    "coding of nothing": smuggled(b"Transfer-Encoding: "),
    "space before the colon of Transfer-Encoding": smuggled(b"Transfer-Encoding : chunked"),
    "tab before the colon of Content-Length": smuggled(b"Content-Length\t: 5", content=b"01234"),
    "space before Transfer-Encoding": smuggled(b"X: y", b" Transfer-Encoding: chunked"),
    "folded Transfer-Encoding": smuggled(b"Transfer-Encoding:\r\n chunked"),
    "folded header": smuggled(b"X: a\r\n b"),
    "Transfer-Encoding behind a bare line feed": smuggled(b"X: y\nTransfer-Encoding: chunked"),
    "Transfer-Encoding behind a bare return": smuggled(b"X: y\rTransfer-Encoding: chunked"),
    "Transfer-Encoding behind a NUL": smuggled(b"X: y\0Transfer-Encoding: chunked"),
    "NUL in Transfer-Encoding": smuggled(b"Transfer-Encoding: chunked\0"),
    "Transfer-Encoding with an underscore": Case(
        put(b"Transfer_Encoding: chunked", b"Content-Length: 5") + END + NEXT, (SYNCED, READY)
    ),
    "Transfer-Encoding in HTTP/1.0": smuggled(b"Transfer-Encoding: chunked", version=b"1.0"),
    "headers that end with line feeds": refused(put(target=UNTOUCHED)[:-4] + b"\n\n" + NEXT),
    "headers that end with returns": refused(put(target=UNTOUCHED)[:-4] + b"\r\r\n" + NEXT),
    "chunk size beyond 64 bits": badly_chunked(b"10000000000000003\r\nabc\r\n" + END),
    "chunk size of 64 bits": refused(chunked(b"ffffffffffffffff\r\n" + b"x" * 2_000_000), *SYNCED, 413, may_reset=True),
    "chunk size below zero": badly_chunked(b"-3\r\nabc\r\n" + END),
    "chunk size with 0x": badly_chunked(b"0x3\r\nabc\r\n" + END),
    "chunk size with a space": badly_chunked(b"3 \r\nabc\r\n" + END),
    "chunk size of nothing": badly_chunked(b"\r\nabc\r\n" + END),
    "chunk size with a bare line feed": badly_chunked(b"3\nabc\n0\n\n"),
    "chunk extension with a bare line feed": badly_chunked(b"3;a\nabc\r\n" + END),
    "chunk that is longer than it says": badly_chunked(b"3\r\nabcdef" + END),
    "chunk that is shorter than it says": badly_chunked(b"5\r\nabc\r\n" + END),
    "trailer that is no header": badly_chunked(CHUNK + b"0\r\nabc\r\n\r\n"),
    "Content-Length in the trailers": Case(
        chunked(CHUNK + b"0\r\nContent-Length: 50\r\n\r\n") + NEXT, (SYNCED | BAD,), closes=True
    ),
    "upgrade with a body that is a request": Case(
        get(LIVE, b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: %d" % len(NEXT)) + NEXT, (OK,), closes=True
    ),
}

ROWS = {
    "three requests": Case(GOOD_HEAD + get(b"/nothing") + GOOD_HEAD, (OK, NOT_FOUND, OK)),
    "500 requests": Case(GOOD_HEAD * 500, (OK,) * 500),
    "requests with bodies": Case(body(b"[1]") + GOOD_HEAD + body(b"[2]"), (SYNCED, OK, SYNCED)),
    "a body that looks like a request": Case(body(NEXT) + GOOD_HEAD, (SYNCED, OK)),
    "a HEAD between two GETs": Case(
        GOOD_HEAD + head(b"HEAD " + LIVE + b" HTTP/1.1") + GOOD_HEAD, (OK, OK, OK), methods=("GET", "HEAD", "GET")
    ),
    "requests behind a request that is the last": Case(
        get(LIVE, b"Connection: close") + NEXT * 3, (OK,), True, may_reset=True
    ),
    "requests behind one of HTTP/1.0": Case(
        head(b"GET " + LIVE + b" HTTP/1.0") + NEXT * 3, (OK,), True, may_reset=True
    ),
    "requests behind one that is not HTTP": Case(GOOD_HEAD * 2 + b"\0\0" + NEXT * 3, (OK, OK, BAD), closes=True),
    "requests behind one without a Host": Case(
        GOOD_HEAD + head(b"GET / HTTP/1.1", host=None) + NEXT, (OK, BAD), closes=True
    ),
    "requests behind a bad chunk": Case(
        GOOD_HEAD * 3 + chunked(b"x", target=UNTOUCHED) + NEXT, (OK, OK, OK, BAD), closes=True, in_body=True
    ),
    "requests behind a body that is too large": Case(
        GOOD_HEAD + put(b"Content-Length: 9999999", target=UNTOUCHED) + NEXT, (OK, frozenset({413})), closes=True
    ),
    "more body than announced": Case(put(b"Content-Length: 5") + b"0123456789", (SYNCED, BAD), closes=True),
    "empty lines between requests": Case(GOOD_HEAD + b"\r\n\r\n" + GOOD_HEAD, (OK, OK)),
    "half closed behind one request": Case(GOOD_HEAD, (OK,), closes=True, half_close=True),
    "half closed behind 100 requests": Case(
        (GOOD_HEAD + get(API + b"/syncs")) * 50, (OK,) * 100, closes=True, half_close=True
    ),
    "half closed in the middle of the second": Case(GOOD_HEAD + GOOD_HEAD[:20], (OK, BAD), True, half_close=True),
    "half closed without a word": Case(b"", (), closes=True, half_close=True),
}
"""Pipelined requests on one connection."""

assert one(200) == (OK,)
