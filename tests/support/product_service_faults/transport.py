"""Misbehaviours of the connection: bytes that come late, not at all, too many, or packed wrongly."""

import asyncio
import gzip
import itertools

import orjson

from tests.support.product_service_faults.misbehaviour import Call, misbehaviour, page_of, records

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BLANK = b" " * 65536


@misbehaviour(from_page=2)
async def slow_first_byte(call: Call) -> None:
    """Accepts the request and says nothing for longer than anybody waits."""
    await asyncio.sleep(1.5)


@misbehaviour(from_page=2)
async def slow_drip(call: Call) -> None:
    """Sends a byte now and then, so that it never falls silent and never ends."""
    await call.say(HEAD + b"Content-Length: 1000\r\n\r\n", *[b" "] * 40, pause=0.05)


@misbehaviour(from_page=2)
async def cut_body(call: Call) -> None:
    """Hangs up before all that Content-Length promised is sent."""
    await call.say(HEAD + b"Content-Length: 1000\r\n\r\n" + orjson.dumps(page_of(records())))


@misbehaviour(from_page=2)
async def reset_in_mid_body(call: Call) -> None:
    """The connection breaks off in the middle of the page."""
    await call.say(HEAD + b'Content-Length: 1000\r\n\r\n{"items": [', pause=0.05)
    call.reset()


@misbehaviour(from_page=2)
async def closed_at_once(call: Call) -> None:
    """Hangs up without a word."""


@misbehaviour(from_page=2)
async def reset_at_once(call: Call) -> None:
    """Breaks off without a word."""
    call.reset()


@misbehaviour(from_page=2)
async def tls_garbage(call: Call) -> None:
    """Answers plain HTTP with a TLS alert, as a port for https does."""
    await call.say(b"\x15\x03\x01\x00\x02\x02\x46")


@misbehaviour(from_page=2)
async def not_http(call: Call) -> None:
    """Another protocol listens there."""
    await call.say(b"220 mail.example ESMTP ready\r\n")


@misbehaviour(from_page=2)
async def header_flood(call: Call) -> None:
    """Sends headers without end."""
    await call.say(HEAD, *(b"X-%d: %b\r\n" % (number, b"x" * 8000) for number in range(200)))


@misbehaviour(from_page=2)
async def interim_answers_for_ever(call: Call) -> None:
    """Says `100 Continue` again and again."""
    await call.say(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 150, pause=0.02)


@misbehaviour(from_page=2)
async def two_lengths(call: Call) -> None:
    """Names two lengths of one body, of which each reader may believe another."""
    await call.say(HEAD + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n" + orjson.dumps(page_of(records())))


@misbehaviour(from_page=2)
async def broken_chunks(call: Call) -> None:
    """A chunk without a length."""
    await call.say(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")


@misbehaviour(from_page=2)
async def endless_body(call: Call) -> None:
    """Sends chunks for as long as the connection is open."""
    chunk = b"%x\r\n%b\r\n" % (len(BLANK), BLANK)
    await call.say(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *itertools.repeat(chunk, 1000))


@misbehaviour()
async def old_http_without_length(call: Call) -> None:
    """HTTP/1.0, where the body ends with the connection: old, and allowed."""
    end = int(call.cursor or 0) + call.page_size
    page = page_of(records()[end - call.page_size : end], str(end) if end < len(records()) else None)
    await call.say(b"HTTP/1.0 200 OK\r\n\r\n" + orjson.dumps(page))


@misbehaviour(from_page=2)
async def old_http_cut(call: Call) -> None:
    """The same, cut off in the middle: nothing but the JSON can tell."""
    await call.say(b"HTTP/1.0 200 OK\r\n\r\n" + orjson.dumps(page_of(records()))[:-20])


@misbehaviour(from_page=2)
async def gzip_bomb(call: Call) -> None:
    """A few kilobytes that unpack to many megabytes."""
    await call.answer(gzip.compress(bytes(8 * 2**20)), Content_Encoding="gzip")


@misbehaviour(from_page=2)
async def gzip_in_gzip(call: Call) -> None:
    """A bomb in a bomb: each layer a thousand times the one around it."""
    await call.answer(gzip.compress(gzip.compress(bytes(8 * 2**20))), Content_Encoding="gzip, gzip")


@misbehaviour(from_page=2)
async def broken_gzip(call: Call) -> None:
    """Says gzip, and isn't."""
    await call.answer(page_of(records()), Content_Encoding="gzip")


@misbehaviour(from_page=2)
async def cut_gzip(call: Call) -> None:
    """The compressed page lacks its end, and the length agrees with what is there."""
    packed = gzip.compress(orjson.dumps(page_of(records())))
    await call.answer(packed[: len(packed) // 2], Content_Encoding="gzip")


@misbehaviour(from_page=2)
async def compression_not_asked_for(call: Call) -> None:
    """Brotli, for a client that said gzip."""
    await call.answer(b"\x0b\x02\x80{}\x03", Content_Encoding="br")


@misbehaviour(from_page=2)
async def giant_page(call: Call) -> None:
    """A page larger than the limit, for any page size."""
    await call.answer(orjson.dumps(page_of(records())) + BLANK * 5)


@misbehaviour()
async def giant_page_until_a_smaller_one_is_asked_for(call: Call) -> None:
    """Records so large that only a few of them fit into an answer."""
    if call.page_size > 2:
        await call.answer(BLANK * 5)
    else:
        await call.page()
