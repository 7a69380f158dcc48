"""ResponseTransport: a response with a known length is one write, which is one system call and one packet."""

import asyncio

import pytest

from product_gateway.http.limits import LARGE_BYTES
from product_gateway.http.response_transport import ResponseTransport

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Recorder(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.written.append(b"closed")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def response(recorder: Recorder) -> ResponseTransport:
    return ResponseTransport(recorder, recorder.close)


def test_head_and_body_are_one_write(recorder: Recorder, response: ResponseTransport) -> None:
    response.write(HEAD)
    assert recorder.written == []
    response.write(b"body")
    assert recorder.written == [HEAD + b"body"]


def test_the_head_of_a_stream_does_not_wait(recorder: Recorder, response: ResponseTransport) -> None:
    """An event stream may have its first event much later."""
    response.write(STREAM)
    response.write(b"4\r\nbody\r\n")
    assert recorder.written == [STREAM, b"4\r\nbody\r\n"]


def test_100_continue_does_not_wait(recorder: Recorder, response: ResponseTransport) -> None:
    response.write(CONTINUE)
    response.write(HEAD)
    response.write(b"body")
    assert recorder.written == [CONTINUE, HEAD + b"body"]


def test_a_body_that_looks_like_a_head_does_not_wait(recorder: Recorder, response: ResponseTransport) -> None:
    response.write(HEAD)
    response.write(HEAD)
    response.write(HEAD)
    assert b"".join(recorder.written) == HEAD * 3


def test_a_large_body_is_not_copied_behind_its_head(recorder: Recorder, response: ResponseTransport) -> None:
    body = bytes(LARGE_BYTES + 1)
    response.write(HEAD)
    response.write(body)
    assert recorder.written == [HEAD, body]


def test_a_head_alone_is_sent_at_the_end_or_before_a_close(recorder: Recorder, response: ResponseTransport) -> None:
    """HEAD has no body, and a failing application may not come to it."""
    response.write(HEAD)
    response.flush()
    response.flush()
    assert recorder.written == [HEAD]
    other = ResponseTransport(recorder, recorder.close)
    other.write(HEAD)
    other.close()
    assert recorder.written == [HEAD, HEAD, b"closed"]
