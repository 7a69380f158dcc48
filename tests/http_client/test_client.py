"""The HTTP client: which addresses it calls, which responses it accepts, and its error messages."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from product_gateway.errors import AddressNotAllowed, AnswerTooLarge, AnswerUnreadable, OutboundError, Unreachable
from product_gateway.http_client.client import ERROR_BODY_BYTES, HttpClient
from product_gateway.http_client.name_lookups import system_lookup
from tests.support.serving import serve
from tests.support.tls import self_signed

TOKEN = "s3cret-t0ken"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(request: Request) -> Response:
    """Return the request, and set a cookie to see whether it comes back."""
    seen = {"headers": dict(request.headers), "query": dict(request.query_params)}
    return JSONResponse(seen, headers={"Set-Cookie": "session=1; Path=/"})


async def zipped(request: Request) -> Response:
    """As many zero bytes as the query asks for, in gzip."""
    body = gzip.compress(bytes(int(request.query_params["size"])))
    return Response(body, headers={"Content-Encoding": "gzip"})


async def not_zipped(_: Request) -> Response:
    """A body that is not gzip, although its header says so."""
    return Response(b"plain", headers={"Content-Encoding": "gzip"})


async def moved(_: Request) -> Response:
    """A redirect to a path that exists."""
    return RedirectResponse("/echo")


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """A server with one path per behaviour."""
    behaviours = (echo, zipped, not_zipped, moved)
    with serve(Starlette(routes=[Route(f"/{each.__name__}", each) for each in behaviours])) as url:
        yield url


class Names:
    """What name lookups find: `addresses` for every name, or what the system knows where there are none."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked: list[str] = []

    def lookup(self, host: str) -> list[str]:
        """The addresses."""
        self.asked.append(host)
        return self.addresses or system_lookup(host)


@pytest.fixture
def names() -> Names:
    """As the system has them, until a test sets addresses."""
    return Names()


@pytest.fixture
async def outbound(names: Names) -> AsyncIterator[HttpClient]:
    """A client that may call loopback, with a limit of 1 MB and long time-outs."""
    async with HttpClient(allow_private_addresses=True, max_bytes=2**20, lookup=names.lookup) as client:
        yield client


@pytest.fixture
async def hasty() -> AsyncIterator[HttpClient]:
    """A client with short time-outs."""
    async with HttpClient(
        allow_private_addresses=True, connect_timeout=1, read_timeout=0.3, total_timeout=0.6
    ) as client:
        yield client


@pytest.fixture
async def strict(names: Names) -> AsyncIterator[HttpClient]:
    """A client for public addresses only, as in production."""
    async with HttpClient(
        allow_private_addresses=False, connect_timeout=2, total_timeout=5, lookup=names.lookup
    ) as client:
        yield client


@asynccontextmanager
async def answering(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a server that sends exactly these bytes. Yields its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def saying(text: bytes, *, of_message: bool = False) -> Answer:
    """Answer with these bytes and close the connection. Read the two bytes of a message first."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if of_message:
            await reader.readexactly(2)
        writer.write(text)
        await writer.drain()

    return answer


async def test_an_answer_comes_with_status_headers_and_content(outbound: HttpClient, base: str) -> None:
    """The three things that callers need."""
    reply = await outbound.get(f"{base}/echo")
    assert reply.status == 200
    assert reply.headers["content-TYPE"] == "application/json"
    assert reply.content.startswith(b"{")


async def test_the_token_the_query_and_the_user_agent_are_sent(outbound: HttpClient, base: str) -> None:
    """Merchants check the token, page by the query and find the gateway in their logs by its User-Agent."""
    reply = await outbound.get(f"{base}/echo", params={"cursor": "a/b &c"}, bearer=TOKEN)
    seen = orjson.loads(reply.content)
    assert seen["query"] == {"cursor": "a/b &c"}
    assert seen["headers"]["authorization"] == f"Bearer {TOKEN}"
    assert seen["headers"]["user-agent"].startswith("product-gateway/")
    assert "gzip" in seen["headers"]["accept-encoding"]


async def test_cookies_are_not_kept(outbound: HttpClient, base: str) -> None:
    """Two merchants may be on one host; one's session must not reach the other's request."""
    await outbound.get(f"{base}/echo")
    assert b"session" not in (await outbound.get(f"{base}/echo")).content


async def test_a_proxy_of_the_environment_is_not_used(
    outbound: HttpClient, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only called addresses are checked; a proxy could call any other."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await outbound.get(f"{base}/echo")).status == 200


async def test_a_redirect_is_an_answer_like_any_other(outbound: HttpClient, base: str) -> None:
    """The target has not been checked, and the token is not meant for it."""
    reply = await outbound.get(f"{base}/moved")
    assert reply.status == 307
    assert reply.headers["location"] == "/echo"


async def test_gzip_is_unpacked(outbound: HttpClient, base: str) -> None:
    """Pages of records shrink to a tenth."""
    assert (await outbound.get(f"{base}/zipped", params={"size": "1000"})).content == bytes(1000)


async def test_the_size_is_capped_after_unpacking(outbound: HttpClient, base: str) -> None:
    """A kilobyte of gzip can hold a megabyte."""
    assert len((await outbound.get(f"{base}/zipped", params={"size": str(2**20)})).content) == 2**20
    with pytest.raises(AnswerTooLarge, match=r"127\.0\.0\.1 is larger than 1 MiB"):
        await outbound.get(f"{base}/zipped", params={"size": str(2**20 + 1)})


async def test_a_broken_gzip_body_is_told_as_such(outbound: HttpClient, base: str) -> None:
    """Not a fault of the network."""
    with pytest.raises(AnswerUnreadable, match="could not be decompressed"):
        await outbound.get(f"{base}/not_zipped")


@pytest.mark.parametrize("coding", ["gzip, gzip", "br", "GZIP, Gzip", "aes128gcm"])
async def test_a_coding_that_was_not_asked_for_is_refused(outbound: HttpClient, coding: str) -> None:
    """Several layers of gzip could keep a worker busy without end."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: 2\r\n\r\n{}" % coding.encode()
    async with answering(saying(answer)) as port:
        with pytest.raises(AnswerUnreadable, match="that was not asked for"):
            await outbound.get(f"http://127.0.0.1:{port}/")


# Bodies, each after its headers, of which none can be read to a good end.
ODD_BODIES = {
    "unknown coding": b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
    "layers of gzip": b"Content-Encoding: gzip, gzip\r\nContent-Length: 2\r\n\r\n{}",
    "not gzip": b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain",
    "gzip cut off": b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"text")[:-9],
    "unknown charset": b"Content-Type: text/html; charset=klingon\r\nContent-Length: 2\r\n\r\n\xff\xfe",
    "media type out of form": b'Content-Type: ;;;="\r\nContent-Length: 2\r\n\r\n{}',
    "broken off": b"Content-Length: 100\r\n\r\nhalf",
    "more than its length": b"Content-Length: 2\r\n\r\n{} and more",
    "broken chunks": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "chunks cut off": b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    "too large": b"Content-Length: 9000000\r\n\r\n" + bytes(2**21),
    "a bomb": b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(2**24)),
    "a body where none may be": b"Content-Length: 2\r\n\r\nok",
}

# Headers that curl and browsers read, each with a body of 2 bytes.
ODD_HEADERS = {
    "equal lengths": b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of equal lengths": b"Content-Length: 2, 2\r\n\r\n{}",
    "a length beside chunks": b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks of no coding": b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}",
    "a space before a colon": b"Server : x\r\nContent-Length : 2\r\n\r\n{}",
    "a space in a name": b"X Shop: x\r\nContent-Length: 2\r\n\r\n{}",
    "a bracket in a name": b"X-(Shop): x\r\nContent-Length: 2\r\n\r\n{}",
    "no name": b": x\r\nContent-Length: 2\r\n\r\n{}",
    "no colon": b"PHP Warning\r\nContent-Length: 2\r\n\r\n{}",
    "a folded line": b"X-Shop: a\r\n b\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a long policy": b"Content-Security-Policy: %b\r\nContent-Length: 2\r\n\r\n{}" % (b"img-src x; " * 3000),
    "many cookies": b"Set-Cookie: a=b\r\n" * 200 + b"Content-Length: 2\r\n\r\n{}",
    "line feeds alone": b"Server: x\nContent-Length: 4\n\n\r\n\r\n",
}


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
@pytest.mark.parametrize("status", [204, 302, 304, 401, 413, 429, 503])
async def test_an_errors_status_is_kept_with_any_body(outbound: HttpClient, status: int, body: bytes) -> None:
    """A 503 with a Brotli page of a CDN is a 503, and is retried."""
    async with answering(saying(b"HTTP/1.1 %d Status\r\nRetry-After: 7\r\n%b" % (status, body))) as port:
        reply = await outbound.get(f"http://127.0.0.1:{port}/")
    assert (reply.status, reply.header("retry-after")) == (status, "7")
    assert len(reply.content) <= ERROR_BODY_BYTES


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
@pytest.mark.parametrize("status", [200, 202, 204, 500])
async def test_a_message_is_answered_by_the_status_alone(outbound: HttpClient, status: int, body: bytes) -> None:
    """A receiver that has the message must not get it again because of its body."""
    async with answering(saying(b"HTTP/1.1 %d Status\r\n%b" % (status, body), of_message=True)) as port:
        reply = await outbound.send("POST", f"http://127.0.0.1:{port}/", content=b"{}")
    assert (reply.status, reply.content) == (status, b"")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_body_without_end_does_not_hide_the_status(method: str) -> None:
    """Not even when the total time-out has passed."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\n.\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with answering(answer) as port, HttpClient(allow_private_addresses=True, total_timeout=0.8) as outbound:
        content = b"{}" if method == "POST" else None
        assert (await outbound.send(method, f"http://127.0.0.1:{port}/", content=content)).status == 503


@pytest.mark.parametrize("text", ODD_HEADERS.values(), ids=ODD_HEADERS)
async def test_headers_out_of_form_do_not_hide_the_answer(outbound: HttpClient, text: bytes) -> None:
    """Who tries a service with curl or a browser sees no fault in it."""
    async with answering(saying(b"HTTP/1.1 200 OK\r\nRetry-After: 7\r\n" + text)) as port:
        reply = await outbound.get(f"http://127.0.0.1:{port}/")
    assert (reply.status, reply.header("retry-after")) == (200, "7")
    assert reply.content.strip() == (b"" if text.endswith(b"\n\n\r\n\r\n") else b"{}")


@pytest.mark.parametrize("text", ODD_HEADERS.values(), ids=ODD_HEADERS)
async def test_a_message_that_was_answered_so_is_delivered(outbound: HttpClient, text: bytes) -> None:
    """A receiver must not get it again for three days because of a header."""
    async with answering(saying(b"HTTP/1.1 200 OK\r\n" + text, of_message=True)) as port:
        assert (await outbound.send("POST", f"http://127.0.0.1:{port}/", content=b"{}")).status == 200


@pytest.mark.parametrize("text", [b"X-Shop: " + b"x" * 70_000, b"X-Shop: x\r\n" * 300], ids=["a line", "lines"])
async def test_headers_are_bounded(outbound: HttpClient, text: bytes) -> None:
    """They are in memory as a whole."""
    async with answering(saying(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % text)) as port:
        with pytest.raises(Unreachable, match="sent too large a header: it may have 256 lines of 64 KiB"):
            await outbound.get(f"http://127.0.0.1:{port}/")


async def test_a_readable_error_body_is_kept(outbound: HttpClient) -> None:
    """The client command shows what a gateway says, and check-service looks at problem details."""
    packed = gzip.compress(b'{"title": "Busy"}')
    text = b"HTTP/1.1 503 Busy\r\nContent-Encoding: X-GZip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed)
    async with answering(saying(text)) as port:
        assert (await outbound.get(f"http://127.0.0.1:{port}/")).content == b'{"title": "Busy"}'


async def test_an_answer_past_the_limit_is_not_read_on(outbound: HttpClient) -> None:
    """The body of this test never ends."""
    sent = 0

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(2**16))
            sent += 2**16
            await writer.drain()

    async with answering(answer) as port:
        with pytest.raises(AnswerTooLarge) as caught:
            await outbound.get(f"http://127.0.0.1:{port}/")
    assert caught.value.size is None
    assert sent < 2**24  # the limit is 2**20, and the system's buffers hold some more


@pytest.mark.parametrize("length", [2**20 + 1, 2**40])
async def test_an_announced_length_past_the_limit_is_not_read_at_all(outbound: HttpClient, length: int) -> None:
    """Content-Length tells the size."""
    async with answering(saying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)) as port:
        with pytest.raises(AnswerTooLarge) as caught:
            await outbound.get(f"http://127.0.0.1:{port}/")
    assert (caught.value.size, caught.value.limit) == (length, 2**20)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.1",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "169.254.169.254",
        "0.0.0.0",
        "10.1.2.3",
        "192.168.0.1",
        "100.64.0.1",
        "224.0.0.1",
        "[fe80::1]",
        "[fd00::1]",
        "[ff02::1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ],
)
async def test_a_private_address_is_refused_however_it_is_written(strict: HttpClient, host: str) -> None:
    """A merchant must not reach into our network through us."""
    with pytest.raises(AddressNotAllowed, match=r"not on the public internet|written as four numbers"):
        await strict.get(f"https://{host}/latest/meta-data", bearer=TOKEN)


async def test_one_private_address_among_several_is_enough_to_refuse(strict: HttpClient, names: Names) -> None:
    """Otherwise the connection could go to the private address."""
    names.addresses = ["93.184.216.34", "10.0.0.1"]
    with pytest.raises(AddressNotAllowed, match=r"shop\.example leads"):
        await strict.get("https://shop.example/")


async def test_the_name_is_looked_up_once_and_kept_for_the_host_header(
    outbound: HttpClient, base: str, names: Names
) -> None:
    """A second lookup could return another address (DNS rebinding). Servers tell their sites apart by Host."""
    names.addresses = ["127.0.0.1"]
    port = base.rpartition(":")[2]
    reply = await outbound.get(f"http://shop.example:{port}/echo")
    assert names.asked == ["shop.example"]
    assert orjson.loads(reply.content)["headers"]["host"] == f"shop.example:{port}"


async def test_names_that_share_an_address_do_not_share_a_connection(
    outbound: HttpClient, base: str, names: Names
) -> None:
    """TLS was verified for one of the names only."""
    names.addresses = ["127.0.0.1"]
    port = base.rpartition(":")[2]
    for name in ("one.example", "two.example", "one.example"):
        assert (await outbound.get(f"http://{name}:{port}/echo")).status == 200
    assert names.asked == ["one.example", "two.example"]


async def test_the_next_address_is_tried_when_one_refuses(outbound: HttpClient, base: str, names: Names) -> None:
    """A name often has an IPv6 address on which no server listens."""
    names.addresses = ["127.0.0.2", "127.0.0.1"]
    assert (await outbound.get(f"http://shop.example:{base.rpartition(':')[2]}/echo")).status == 200


async def test_plain_http_is_refused(strict: HttpClient) -> None:
    """The token would be readable on the way."""
    with pytest.raises(AddressNotAllowed, match="with https"):
        await strict.get("http://shop.example/products", bearer=TOKEN)


@pytest.mark.parametrize(
    "url", ["ftp://shop.example/", "file:///etc/passwd", "/products", "https://", "https://a:b@shop.example/"]
)
async def test_an_address_that_is_not_a_plain_web_address_is_refused(outbound: HttpClient, url: str) -> None:
    """Credentials in an address would override the token and show up in logs."""
    with pytest.raises(AddressNotAllowed):
        await outbound.get(url)


@pytest.mark.parametrize("url", ["https://a\x00b/", "https://shop.example:port/", "https://shop.example:99999/"])
async def test_an_address_that_is_no_url_is_told_as_such(outbound: HttpClient, url: str) -> None:
    """Any registered text leads to one of our own errors."""
    with pytest.raises(Unreachable, match="not a valid URL"):
        await outbound.get(url)


@pytest.mark.parametrize("host", ["shop.invalid", "a" * 64 + ".example"])
async def test_an_unknown_name_is_told_as_such(strict: HttpClient, host: str) -> None:
    """The most likely mistake at registration."""
    with pytest.raises(Unreachable, match=r"could not be (found|looked up)"):
        await strict.get(f"https://{host}/")


async def test_a_refused_connection_is_told_as_such(outbound: HttpClient) -> None:
    """The host is there, the service is not."""
    async with answering(saying(b"")) as port:
        pass
    with pytest.raises(Unreachable, match=r"The connection to 127\.0\.0\.1 was refused\."):
        await outbound.get(f"http://127.0.0.1:{port}/", params={"cursor": "c"}, bearer=TOKEN)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"SMTP ready\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_an_answer_that_is_not_whole_is_told_as_such(outbound: HttpClient, text: bytes) -> None:
    """Half a page must never pass for a page."""
    async with answering(saying(text)) as port:
        with pytest.raises(Unreachable, match="too early, or what it sent was not valid HTTP"):
            await outbound.get(f"http://127.0.0.1:{port}/", bearer=TOKEN)


async def test_a_silent_server_times_out(hasty: HttpClient) -> None:
    """A worker must not hang with it."""

    async def answer(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with answering(answer) as port:
        with pytest.raises(Unreachable, match=r"sent nothing for 0\.3 s"):
            await hasty.get(f"http://127.0.0.1:{port}/")


async def test_a_trickling_server_is_given_up(hasty: HttpClient) -> None:
    """Each byte restarts the read time-out; only the total time-out helps."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _second in range(100):
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with answering(answer) as port:
        with pytest.raises(Unreachable, match=r"not complete after 0\.6 s"):
            await hasty.get(f"http://127.0.0.1:{port}/")


async def test_a_self_signed_certificate_is_refused(outbound: HttpClient, tmp_path: Path) -> None:
    """The token must only reach the host that it is meant for."""
    async with answering(saying(b"HTTP/1.1 200 OK\r\n\r\n"), self_signed(tmp_path)) as port:
        with pytest.raises(Unreachable, match=r"The TLS certificate of 127\.0\.0\.1 was refused: self"):
            await outbound.get(f"https://127.0.0.1:{port}/", bearer=TOKEN)


async def test_a_certificate_must_be_for_the_requested_name(tmp_path: Path) -> None:
    """The connection goes to a checked address, but only the certificate proves the name."""
    server, trusting = self_signed(tmp_path), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.load_verify_locations(tmp_path / "server.pem")
    async with (
        answering(saying(b"HTTP/1.1 204 No Content\r\n\r\n"), server) as port,
        HttpClient(allow_private_addresses=True, lookup=lambda _: ["127.0.0.1"], ssl_context=trusting) as outbound,
    ):
        assert (await outbound.get(f"https://shop.example:{port}/", bearer=TOKEN)).status == 204
        with pytest.raises(Unreachable, match=r"certificate of other\.example was refused: Hostname mismatch"):
            await outbound.get(f"https://other.example:{port}/", bearer=TOKEN)


async def test_a_port_without_tls_is_told_as_such(outbound: HttpClient, base: str) -> None:
    """https registered for a port of plain http."""
    with pytest.raises(Unreachable, match="does not speak TLS"):
        await outbound.get(base.replace("http:", "https:"))


@pytest.mark.parametrize("token", [TOKEN + "\n", TOKEN + " x", TOKEN + "\u20ac", ""])
async def test_a_token_that_cannot_be_sent_is_not_quoted(outbound: HttpClient, base: str, token: str) -> None:
    """aiohttp would put the token into its error, and so into a log."""
    with pytest.raises(OutboundError, match="characters") as caught:
        await outbound.get(f"{base}/echo", bearer=token)
    assert TOKEN not in repr(caught.value)
    assert caught.value.__cause__ is None


async def test_no_error_tells_the_token_or_the_query(outbound: HttpClient, base: str) -> None:
    """Error details are shown to people, and both may be secret."""
    for url in (f"{base}/not_zipped?key=qqq", "http://127.0.0.1:1/?key=qqq", "https://shop.example:x/?key=qqq"):
        with pytest.raises(OutboundError) as caught:
            await outbound.get(url, bearer=TOKEN)
        error: BaseException | None = caught.value
        while error is not None:
            assert TOKEN not in repr(error)
            assert "qqq" not in str(error)
            error = error.__cause__


async def test_a_connection_is_used_again_before_servers_close_it_and_not_later() -> None:
    """Common servers close idle connections after 5 seconds; a request that they meet then is lost."""
    ports: list[int] = []

    async def note(request: Request) -> Response:
        assert request.client
        ports.append(request.client.port)
        return Response(status_code=204)

    with serve(Starlette(routes=[Route("/", note)])) as url:
        async with HttpClient(allow_private_addresses=True) as outbound:
            for pause in (0.0, 1.0, 4.2):
                await asyncio.sleep(pause)
                await outbound.get(url)
    first, second, third = ports
    assert first == second != third
