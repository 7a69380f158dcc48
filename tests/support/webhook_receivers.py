"""A webhook receiver on loopback, with one path for each kind of misbehaviour."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Message:
    """A received request. Header names are lower-case."""

    path: str
    headers: dict[str, str]
    body: bytes


class Hooks:
    """The received messages in order, and the behaviour of the paths.

    /ok, /500, /302, /410: at once. /later: 503 with Retry-After. /third: 500, but 204 for every third message.
    /huge: 200 with an endless body. /half: 200 with a body that stops halfway. /packed: 200 with a body in a content
    coding that was not requested. /hang: no response until released.
    """

    def __init__(self) -> None:
        self.url = ""
        self.messages: list[Message] = []
        self.let_go = threading.Event()

    def at(self, path: str) -> list[Message]:
        """Return the messages to the path, with any query."""
        return [each for each in list(self.messages) if each.path.partition("?")[0] == path]


class _Handler(BaseHTTPRequestHandler):
    hooks: Hooks

    def do_GET(self) -> None:
        """Record a followed redirect."""
        self.do_POST()

    def do_POST(self) -> None:
        """One message."""
        self.close_connection = True
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hooks.messages.append(Message(self.path, headers, body))
        path = self.path.partition("?")[0]
        number = len(self.hooks.at(path))
        with contextlib.suppress(OSError):  # the sender may close the connection early
            if path == "/huge":
                self._huge()
            elif path == "/half":
                self._write_error(200, {"Content-Length": "100"}, b"half")
                self.hooks.let_go.wait(LONGEST_WAIT)
            elif path == "/packed":
                self._write_error(200, {"Content-Length": "2", "Content-Encoding": "br"}, b"ok")
            elif path == "/hang":
                self.hooks.let_go.wait(LONGEST_WAIT)
                self._write_error(200, {"Content-Length": "0"})
            elif path == "/302":
                self._write_error(302, {"Content-Length": "0", "Location": f"{self.hooks.url}/elsewhere"})
            elif path == "/later":
                self._write_error(503, {"Content-Length": "0", "Retry-After": "5000"})
            elif path == "/third":
                self._write_error(500 if number % 3 else 204, {"Content-Length": "0"})
            else:
                self._write_error(int(path[1:]) if path[1:].isdigit() else 200, {"Content-Length": "2"}, b"ok")

    def _huge(self) -> None:
        self._write_error(200, {})
        for _ in range(1000):
            self.wfile.write(bytes(65536))

    def _write_error(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Nothing."""


@contextmanager
def receiving() -> Iterator[Hooks]:
    """Run the receiver in a thread until the block ends."""
    hooks = Hooks()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hooks": hooks}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="hooks", daemon=True)
    thread.start()
    hooks.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hooks
    finally:
        hooks.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
