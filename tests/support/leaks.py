"""Search for leaked secrets, with a product service that repeats the token of the request."""

import base64
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

RECORD = "what-only-the-merchant-may-know"
STANDARD, OF_URLS = b"+/", b"-_"


def forms(secret: str) -> set[str]:
    """Return the plain, quoted and encoded forms. Of Base64, use the part that does not depend on neighbours."""
    content = secret.encode()
    found = {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1], content.hex()}
    for before in range(3):
        whole = base64.b64encode(bytes(before) + content + b"xxx")
        core = whole[(before * 8 + 5) // 6 : (before + len(content)) * 8 // 6]
        found |= {core.decode(), core.translate(bytes.maketrans(STANDARD, OF_URLS)).decode()}
    return found


def new_secret(kind: str) -> str:
    """Return a secret that every encoding changes."""
    return f'{kind}/{secrets.token_urlsafe(9)}+"{secrets.token_hex(3)}\\~%=?'


class Told:
    """Collected output, by its place."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def hear(self, where: str, said: str) -> None:
        """Collect output."""
        self._texts[f"{where} ({len(self._texts)})"] = said

    def answer(self, answer: httpx2.Response) -> httpx2.Response:
        """Collect a response with its headers."""
        self.hear(f"{answer.request.method} {answer.request.url.path}", f"{answer.headers.multi_items()} {answer.text}")
        return answer

    def says(self, text: str) -> bool:
        """Return whether any output has the text."""
        return any(text in said for said in self._texts.values())

    def lacks(self, what: str, secret: str) -> None:
        """Assert that no output has the secret in any form."""
        for where, said in self._texts.items():
            for each in forms(secret):
                place = said.find(each)
                around = said[max(0, place - 200) : place + 200]
                assert place < 0, f"the {what} stands in {where}, as {each!r}: {around}"


class Echo(BaseHTTPRequestHandler):
    """A product service that repeats the token in the way that its address names."""

    def do_GET(self) -> None:
        """One page, or what it calls one."""
        self.close_connection = True
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        way = urlsplit(self.path).path.split("/")[1]
        item = {"id": "hat", "title": RECORD}
        page: dict[str, Any] = {"items": [item], "pagination": {"moreResults": False}}
        safe = token.encode("latin-1")
        problem = {"title": token, "status": 401, "errors": [{"title": token, "detail": f"not {token}"}]}
        encoded = (
            token,
            quote(token, safe=""),
            base64.b64encode(safe).decode(),
            base64.b64encode(b"x" + safe).decode(),
        )
        if way == "refused":
            self._write_error(401, problem)
        elif way == "headers":
            self._write_error(500, problem, {"Retry-After": token, "Server": token, "WWW-Authenticate": token})
        elif way == "reason":
            self._write_error(502, problem, reason=token)
        elif way == "redirect":
            self._write_error(302, page, {"Location": f"http://{token}@127.0.0.1/{token}?token={token}"})
        elif way == "ids":
            wrong = [{"id": each, "title": 5} for each in encoded]
            self._write_error(200, {**page, "items": [item, *wrong, {"id": "x", token: token}]})
        elif way == "page":
            self._write_error(200, {"items": [token], "pagination": token, token: {token: token}})
        elif way == "cursor":
            self._write_error(200, {**page, "pagination": {"moreResults": True, "nextCursor": token}})
        elif way == "json":
            self._write_error(200, f'{{"items": {token}'.encode())
        elif way == "coding":
            self._write_error(200, page, {"Content-Encoding": token})
        elif way == "header-that-is-none":
            self.wfile.write(f"HTTP/1.1 200 OK\r\n{token}\r\n\r\n".encode())
        elif way == "no-http":
            self.wfile.write(token.encode())
        else:
            self._write_error(200, page)

    def do_POST(self) -> None:
        """As a webhook, it says back how it was signed and where it was called."""
        self.close_connection = True
        self.rfile.read(int(self.headers["Content-Length"]))
        said = f"{self.headers['webhook-signature']} {self.path}"
        self._write_error(500, {"title": said}, {"Retry-After": said, "Server": said}, reason=self.path)

    def _write_error(
        self, status: int, body: Any, headers: dict[str, str] | None = None, reason: str | None = None
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response_only(status, reason)
        for name, value in {"Content-Length": str(len(content)), "Connection": "close", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Nothing."""


ENDS = {
    "accepted": None,
    "refused": "PRODUCT_SERVICE_UNAUTHORIZED",
    "headers": "PRODUCT_SERVICE_ERROR",
    "reason": "PRODUCT_SERVICE_ERROR",
    "redirect": "PRODUCT_SERVICE_ERROR",
    "ids": None,
    "page": "INVALID_PAGE",
    "cursor": "INVALID_PAGING",
    "json": "INVALID_PAGE",
    "coding": "INVALID_PAGE",
    "header-that-is-none": "INVALID_PAGE",
    "no-http": "PRODUCT_SERVICE_UNREACHABLE",
    "unreadable": "TOKEN_UNREADABLE",
}


@contextmanager
def serve() -> Iterator[str]:
    """Serve until the block ends; yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, name="echo", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
