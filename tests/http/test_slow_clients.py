"""Slow clients, many clients and disconnected clients do not block the server for others."""

import asyncio
import contextlib
import dataclasses
import gc
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from product_gateway.http.limits import LARGEST_BODY_BYTES, Limits
from product_gateway.services import http_server, sockets
from tests.support.raw_http import LIVE, Wire, assert_is_our_error

LIMITS = Limits(
    header_timeout=0.6, body_timeout=0.6, keep_alive_timeout=1, write_timeout=1, lingering_timeout=0.5, connections=40
)
SOON = 4
"""Seconds within which a timeout of less than one second takes effect, also on a busy machine."""
GET = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"PUT /%b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
LARGE = 64 * 1024 * 1024


class Rooms:
    """An application with one path for each way to respond. `seen` has the headers and bodies of requests."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[bytes, bytes], bytes]] = []
        self.waiting = threading.Semaphore(0)
        self.gone = threading.Semaphore(0)
        self.go: asyncio.Event | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond as the path says, or at once.

        /reads the body, /waits to be let go, /takes the first of the body before that, says /much.
        """
        if scope["type"] == "lifespan":
            self.loop, self.go = asyncio.get_running_loop(), asyncio.Event()
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        content = b"here"
        match scope["path"]:
            case "/reads":
                body = b""
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        self.gone.release()
                        return
                    body += message["body"]
                    more = message["more_body"]
                self.seen.append((dict(scope["headers"]), body))
            case "/waits" | "/takes":
                assert self.go is not None
                if scope["path"] == "/takes":
                    await receive()
                self.waiting.release()
                await self.go.wait()
            case "/much":
                content = b"x" * LARGE
        headers = [(b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def let_go(self) -> None:
        """Let /waits and /takes respond."""
        assert self.loop is not None
        assert self.go is not None
        self.loop.call_soon_threadsafe(self.go.set)


@contextlib.contextmanager
def serving(rooms: Rooms, limits: Limits = LIMITS) -> Iterator[str]:
    """Run the gateway's server with short timeouts."""
    listening = sockets.bind("127.0.0.1", 0)
    url = sockets.url_of(listening)
    with http_server.HTTPServer(rooms, listening, limits):
        yield url


@pytest.fixture(scope="module")
def rooms() -> Rooms:
    return Rooms()


@pytest.fixture(scope="module")
def url(rooms: Rooms) -> Iterator[str]:
    with serving(rooms) as url:
        yield url


def ended_within(wire: Wire, seconds: float = SOON) -> list[int]:
    """Wait until the server closes, and return the statuses of its responses."""
    started = time.monotonic()
    said = wire.until_end()
    assert said.end == "eof", said
    assert time.monotonic() - started < seconds
    return said.statuses


@pytest.mark.parametrize("sent", [b"G", GET[:-4], b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
def test_incomplete_headers_get_408(url: str, sent: bytes) -> None:
    """A client on a bad network gets the reason in the standard error body."""
    with Wire(url) as wire:
        wire.send(sent)
        assert ended_within(wire) == [408]
        assert_is_our_error(wire.said.replies[0])
        assert wire.said.replies[0].closes
        assert b"within 0.6 seconds" in wire.said.replies[0].body


def test_slow_headers_do_not_prolong_their_timeout(url: str) -> None:
    """Slowloris: the timeout runs from the first byte, not from the last."""
    with Wire(url) as wire:
        started = time.monotonic()
        wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        while wire.said.end == "open" and time.monotonic() - started < SOON:
            wire.send(b"X: y\r\n")
            time.sleep(0.05)
            wire.listen()
        assert wire.said.statuses == [408]


def test_an_incomplete_body_gets_408_while_the_application_reads_it(url: str, rooms: Rooms) -> None:
    """The application gets http.disconnect."""
    with Wire(url) as wire:
        wire.send(b"PUT /reads HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234")
        assert ended_within(wire) == [408]
        assert_is_our_error(wire.said.replies[0])
    assert rooms.gone.acquire(timeout=SOON)


def test_an_incomplete_body_closes_the_connection_after_the_response(url: str) -> None:
    """The response is complete already, so no 408 follows."""
    with Wire(url) as wire:
        wire.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234")
        assert ended_within(wire) == [200]


@pytest.mark.parametrize("before", [b"", GET % b"", b"\r\n"])
def test_an_idle_connection_is_closed_without_a_response(url: str, before: bytes) -> None:
    """The client would take a 408 for the response to its next request."""
    with Wire(url) as wire:
        wire.send(before)
        assert ended_within(wire) == ([200] if b"GET" in before else [])


def test_a_client_that_does_not_read_its_response_is_disconnected(url: str) -> None:
    """Unread responses would fill the memory."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=SOON) as client:
        client.sendall(GET % b"much")
        time.sleep(LIMITS.write_timeout + 2.5)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while chunk := client.recv(1 << 20):
                received += len(chunk)
    assert received < LARGE


def test_a_client_below_the_minimum_rate_is_disconnected() -> None:
    """Some progress is not enough: the whole response has a timeout, which depends on its size."""
    limits = dataclasses.replace(LIMITS, reading_bytes_per_second=LARGE)
    with (
        serving(Rooms(), limits) as url,
        socket.socket() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # so that there is progress all the time
        client.settimeout(SOON)
        client.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        client.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received, started = 0, time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            while time.monotonic() - started < 30 and (chunk := client.recv(1 << 15)):
                received += len(chunk)
                time.sleep(0.002)  # some megabytes a second: more than the progress that is asked for
    assert received < LARGE
    assert limits.write_timeout + 1 - 0.5 < time.monotonic() - started < 20


def test_a_slow_but_steady_client_gets_its_response(url: str) -> None:
    """The timeout is for the time without progress."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=SOON) as client:
        client.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received, started = 0, time.monotonic()
        while chunk := client.recv(1 << 20):
            received += len(chunk)
            time.sleep(0.03)
    assert received > LARGE
    assert time.monotonic() - started > LIMITS.write_timeout


@pytest.mark.parametrize("name", [b"reads", b""])
def test_a_chunked_body_over_one_mebibyte_gets_413(rooms: Rooms, url: str, name: bytes) -> None:
    """The limit counts the bytes of the body, not the chunks."""
    whole = (b"%x\r\n%b\r\n" % (LARGEST_BODY_BYTES // 16, b"x" * (LARGEST_BODY_BYTES // 16))) * 16
    with Wire(url) as wire:
        assert wire.until_end(CHUNKED % name + whole + b"0\r\n\r\n").statuses == [200]
    if name:
        assert len(rooms.seen[-1][1]) == LARGEST_BODY_BYTES
    with Wire(url) as wire:
        said = wire.until_end(CHUNKED % name + whole + b"1\r\nx\r\n0\r\n\r\n")
        assert said.statuses == [413 if name else 200]
        if name:
            assert_is_our_error(said.replies[0])


def test_chunk_extensions_and_trailers_are_limited(url: str) -> None:
    """They could go on for ever without a byte of the body."""
    for hostile in (b"1;" + b"x" * 300_000, b"0\r\n" + b"X: y\r\n" * 50_000, b"1\r\nx\r\n" * 60_000):
        with Wire(url) as wire:
            said = wire.until_end(CHUNKED % b"reads" + hostile)
            assert said.statuses == [413]
            assert_is_our_error(said.replies[0])


def test_trailers_are_not_headers(rooms: Rooms, url: str) -> None:
    """A proxy does not check them (RFC 9110 §6.5.1)."""
    with Wire(url) as wire:
        said = wire.until_end(CHUNKED % b"reads" + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n" + GET % b"reads")
        assert said.statuses == [200]
    headers, body = rooms.seen[-1]
    assert body == b"abc"
    assert b"authorization" not in headers


def test_pipelined_requests_get_their_own_bodies(rooms: Rooms, url: str) -> None:
    """The input is larger than one slice of the parser."""
    bodies = [b"%d" % each * 3_000 for each in range(30)]
    row = b"".join(b"PUT /reads HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(b), b) for b in bodies)
    before = len(rooms.seen)
    with Wire(url) as wire:
        assert wire.replies(30, row).statuses == [200] * 30
        assert wire.said.end == "open"
    assert [body for _, body in rooms.seen[before:]] == bodies


@pytest.mark.parametrize("first", [b"waits", b"takes"])
def test_pipelined_requests_are_buffered_as_bytes(first: bytes) -> None:
    """Parsed requests would be far larger in memory."""
    rooms = Rooms()
    row = GET % first + GET % b"" * 200_000
    with serving(rooms) as url, Wire(url) as wire:
        wire.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            wire.socket.sendall(row * 2)
        assert rooms.waiting.acquire(timeout=SOON)
        gc.collect()  # those of other tests that are gone
        assert sum(type(each) is RequestResponseCycle for each in gc.get_objects()) < 400
        rooms.let_go()


def test_pipelined_requests_in_fragments_are_all_answered() -> None:
    """Reading the first body resumes the input, so later requests arrive piece by piece."""
    rooms = Rooms()
    head = GET % b"reads"
    with serving(rooms) as url, Wire(url) as wire:
        wire.send(GET % b"takes" + head * 500)
        assert rooms.waiting.acquire(timeout=SOON)
        for _ in range(20):
            wire.send(head * 20 + head[:7])
            time.sleep(0.02)
            wire.send(head[7:])
        rooms.let_go()
        assert wire.replies(1 + 500 + 20 * 21).statuses == [200] * 921
        assert wire.said.end == "open"


def test_input_after_the_last_request_is_ignored(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is neither served nor refused."""
    caplog.set_level(logging.INFO)
    with Wire(url) as wire:
        assert wire.until_end(CHUNKED % b"" + b"0\r\n\r\n" + b"\0\0" + GET % b"").statuses == [200]
    assert "refused" not in caplog.text


def test_input_after_the_last_request_does_not_reset_the_connection() -> None:
    """A close with unread input causes a reset, which destroys the response."""
    rooms = Rooms()
    with serving(rooms) as url, Wire(url) as wire:
        wire.send(b"GET /waits HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + GET % b"")
        assert rooms.waiting.acquire(timeout=SOON)
        wire.send(GET % b"" * 10_000)
        rooms.let_go()
        said = wire.until_end()
        assert (said.statuses, said.end) == ([200], "eof")


def test_a_client_that_sends_too_much_ignored_input_is_cut_off(url: str) -> None:
    """The response has been sent already."""
    with Wire(url) as wire:
        wire.socket.settimeout(SOON)
        sent = 0
        with contextlib.suppress(OSError):
            while sent < LARGE:
                sent += wire.socket.send(b"\0" * 65536)
        assert sent < LARGE / 2


def test_white_space_around_a_header_value_is_removed(rooms: Rooms, url: str) -> None:
    """All readers of the header must see the same value (RFC 9110 §5.5)."""
    with Wire(url) as wire:
        wire.replies(1, b"GET /reads HTTP/1.1\r\nHost: x \r\nX-Name: \t a value \t \r\n\r\n")
        assert wire.said.statuses == [200]
    assert rooms.seen[-1][0][b"x-name"] == b"a value"


def test_a_refusal_follows_the_responses_before_it() -> None:
    """The client would take an earlier 400 for the response to another request."""
    rooms = Rooms()
    with serving(rooms) as url, Wire(url) as wire:
        wire.send(GET % b"waits" + GET % b"" + b"\0\0\0" + GET % b"")
        assert rooms.waiting.acquire(timeout=SOON)
        time.sleep(0.3)
        wire.listen()
        assert wire.said.statuses == []
        rooms.let_go()
        assert wire.until_end().statuses == [200, 200, 400]


def test_a_client_that_waits_for_a_response_does_not_time_out() -> None:
    """This holds also when the client has sent the beginning of its next request."""
    rooms = Rooms()
    with serving(rooms) as url, Wire(url) as wire:
        wire.send(GET % b"waits" + GET[:10])
        assert rooms.waiting.acquire(timeout=SOON)
        time.sleep(2)
        rooms.let_go()
        assert wire.replies(1).statuses == [200]


def test_a_half_closed_client_gets_the_remaining_responses() -> None:
    """A client that closes its sending half still reads."""
    rooms = Rooms()
    with serving(rooms) as url, Wire(url) as wire:
        wire.send(GET % b"waits" + GET % b"")
        assert rooms.waiting.acquire(timeout=SOON)
        wire.half_close()
        time.sleep(0.3)
        rooms.let_go()
        assert wire.until_end().statuses == [200, 200]


def test_disconnected_clients_leave_no_tasks_or_errors(caplog: pytest.LogCaptureFixture) -> None:
    """This holds for each state of the connection."""
    rooms = Rooms()
    with serving(rooms, Limits(connections=40)) as url:
        for _ in range(5):
            for sent in (
                b"",
                b"GET",
                GET % b"waits",
                GET % b"waits" * 50,
                CHUNKED % b"reads" + b"5\r\nab",
                GET % b"much",
            ):
                wire = Wire(url)
                wire.send(sent)
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not a FIN
                wire.socket.close()
        rooms.let_go()
        deadline = time.monotonic() + SOON
        while True:
            with contextlib.ExitStack() as stack:
                wires = [stack.enter_context(Wire(url)) for _ in range(39)]
                statuses = [wire.replies(1, GET % b"").statuses for wire in wires]
            if statuses == [[200]] * 39 or time.monotonic() > deadline:
                break
            time.sleep(0.1)
    assert statuses == [[200]] * 39
    assert [
        each.getMessage() for each in caplog.records if each.levelno > logging.INFO and "were open" not in each.msg
    ] == []


def test_a_connection_beyond_the_maximum_gets_503(rooms: Rooms, caplog: pytest.LogCaptureFixture) -> None:
    """Open connections are unaffected, and one that ends makes room."""
    with serving(rooms) as url, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(url)) for _ in range(LIMITS.connections)]
        assert [wire.replies(1, GET % b"").statuses for wire in wires] == [[200]] * LIMITS.connections
        with Wire(url) as wire:
            said = wire.until_end(GET % b"")
            assert (said.statuses, said.end) == ([503], "eof")
            assert_is_our_error(said.replies[0])
            assert said.replies[0].closes
            assert said.replies[0].all("retry-after") == ["1"]
        assert wires[0].replies(2, GET % b"").statuses == [200, 200]
        wires[0].socket.close()
        deadline = time.monotonic() + SOON
        while True:
            with Wire(url) as wire:
                statuses = wire.replies(1, GET % b"").statuses
            if statuses == [200] or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        assert statuses == [200]
        assert [wire.replies(2, GET % b"").statuses for wire in wires[1:5]] == [[200, 200]] * 4


def test_the_server_recovers_from_a_flood_of_connections(rooms: Rooms) -> None:
    """500 connections come at once where 40 are allowed."""
    with serving(rooms) as url:
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(Wire(url)) for _ in range(500)]
            ends = [wire.until_end() for wire in wires]
        assert {tuple(end.statuses) for end in ends} <= {(), (503,)}
        with Wire(url) as wire:
            assert wire.until_end(LIVE).statuses == [200]


def test_the_maximum_of_connections_fits_the_file_descriptor_limit() -> None:
    """The database needs file descriptors, too."""
    program = (
        "import resource\nfrom product_gateway.services import sockets\n"
        "for limits in (300, 1000), (256, 256), (150, 150):\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, limits)\n"
        "    print(sockets.max_connections(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n") == ["800 1000", "56 256", "1 150", ""]
