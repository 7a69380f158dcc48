"""The pages for readers: `/`, the reference at `/docs`, the spec to try out at `/docs/try`, and what these load.

All of it is files of this package, read when the first of them is asked for: nothing comes from another host, and
nothing is made anew for a request.
"""

import asyncio
import gzip
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import orjson
from starlette.types import Scope, Send

from product_gateway.docs_pages.code_samples import with_code_samples
from product_gateway.errors import PageNotFound
from product_gateway.http.context import request_context
from product_gateway.http.responses import Response, send_whole
from product_gateway.openapi import documents

HERE = Path(__file__).parent
OWN = HERE / "assets"
VENDORED = HERE / "vendored"
INDEX, DOCS, TRY_OUT, REFERENCE = "index.html", "docs.html", "try.html", "reference.js"
MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
FOREVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"  # kept, but asked for each time whether it is still that (RFC 9111 §5.2.2.4)
HASHED = (".css", ".js")
# Of every page: its address is told to nobody, and no other site's page gets hold of its window or embeds it.
ISOLATION = {
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PATHS = {INDEX: "/", DOCS: "/docs", TRY_OUT: "/docs/try"}
MOST_PREFIXES = 16  # kept at a time: a proxy publishes the server under few
_WEIGHT = re.compile(r"\s*(?:q\s*=\s*(0(?:\.[0-9]*)?|1(?:\.0*)?)\s*)?")
_LINK = re.compile(r'\b(href|src|data-document)="([^"]*)"')

# Redoc fills its style sheets by script: they begin empty, which has this hash. One, for scroll bars, comes as text.
REDOC_STYLES = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
)
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
POLICIES = {
    INDEX: NOTHING + "style-src 'self'; img-src 'self'",
    DOCS: NOTHING + f"script-src 'self'; style-src 'self' {REDOC_STYLES}; img-src 'self' data:; worker-src blob:",
    TRY_OUT: NOTHING + "script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'",
}


@dataclass(frozen=True, slots=True)
class File(Response[bytes]):
    """An answer that is always the same: a client that has it is told so, instead of getting it again.

    Where `gzipped`, the body is in gzip, and is sent so to whoever understands it.
    """

    gzipped: bool = False
    etag: str = ""

    async def send(self, scope: Scope, send: Send) -> None:
        """200 with the file, or 304 (RFC 9110 §13.1.2) without it."""
        headers = [
            *(
                (name, value) for name, value in request_context(scope).headers if name != b"cache-control"
            ),  # a file's own wins
            (b"etag", self.etag.encode()),
            *((name.lower().encode(), value.encode()) for name, value in self.headers.items()),
        ]
        if self.gzipped:
            headers.append((b"vary", b"accept-encoding"))
        if _is_known(self.etag, _field(scope, b"if-none-match")):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        content = self.body
        if self.gzipped and _prefers_gzip(_field(scope, b"accept-encoding")):
            headers.append((b"content-encoding", b"gzip"))
        elif self.gzipped:
            content = await asyncio.to_thread(gzip.decompress, content)
        headers.append((b"content-type", self.media_type.encode()))
        headers.append((b"content-length", b"%d" % len(content)))
        await send_whole(scope, send, 200, headers, content)


@dataclass(frozen=True, slots=True)
class FileAtPath(Response[Callable[[str], File]]):
    """A file whose links begin with the public path: one file for each prefix, made when it is first asked for."""

    async def send(self, scope: Scope, send: Send) -> None:
        """Send the file for the prefix of this request."""
        await self.body(request_context(scope).public_path).send(scope, send)


def _field(scope: Scope, name: bytes) -> str:
    """A header as one list, however many lines it came in (RFC 9110 §5.3)."""
    return ",".join(value.decode("latin-1") for found, value in scope["headers"] if found == name)


def _is_known(etag: str, if_none_match: str) -> bool:
    known = [each.strip() for each in if_none_match.split(",")]
    return etag in known or etag.removeprefix("W/") in known or "*" in known


def _prefers_gzip(accept_encoding: str) -> bool:
    """Return whether gzip is the best coding that the client accepts (RFC 9110 §12.5.3); without the header, it is not.

    A coding that the header does not name has the weight of `*`. Unless named, identity comes last.
    """
    weights: dict[str, float] = {}
    for each in accept_encoding.lower().split(","):
        coding, _, parameter = each.partition(";")
        weight = _WEIGHT.fullmatch(parameter)
        weights[coding.strip().removeprefix("x-")] = float(weight[1]) if weight and weight[1] else float(not parameter)
    gzip_weight = weights.get("gzip", weights.get("*", 0.0))
    return gzip_weight > 0 and gzip_weight >= weights.get("identity", 0.0)


def as_file(content: bytes, name: str, cache: str, *, gzipped: bool = False, policy: str = "") -> File:
    """The content under the name, whose ending says what it is."""
    etag = f'W/"{_digest(content)}"'  # weak: the same for what is compressed and what is not
    media_type = MEDIA_TYPES[Path(name).suffix]
    headers = {"Cache-Control": cache} | ({"Content-Security-Policy": policy, **ISOLATION} if policy else {})
    return File(content, 200, headers, media_type, gzipped, etag)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


class Pages:
    """The pages and the spec. `shown` False: there are no pages, only the spec."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self.spec: Response[Any] = FileAtPath(lru_cache(maxsize=MOST_PREFIXES)(_spec_at))
        self._at_path = {name: FileAtPath(self._maker_of(name)) for name in POLICIES}

    def page(self, name: str) -> Response[Any]:
        """One of the three pages. Raises PageNotFound."""
        if not self._shown:
            raise PageNotFound
        return self._at_path[name]

    def _maker_of(self, name: str) -> Callable[[str], File]:
        @lru_cache(maxsize=MOST_PREFIXES)
        def page_at(prefix: str) -> File:
            page = self._pages[name]
            if not prefix:
                return page
            content = _LINK.sub(
                lambda link: f'{link[1]}="{urljoin(prefix + PATHS[name], link[2])}"', page.body.decode()
            )
            return as_file(content.encode(), name, ASK_AGAIN, policy=POLICIES[name])

        return page_at

    def asset(self, name: str) -> File:
        """What a page loads, by the name that it is published under. Raises PageNotFound."""
        found = self._assets.get(self._published.get(name, "")) if self._shown else None
        if found is None:
            raise PageNotFound
        return found

    @cached_property
    def _assets(self) -> dict[str, File]:
        return dict(_assets())

    @cached_property
    def _published(self) -> dict[str, str]:
        """From the name with the content's hash in it, which may be kept for ever, to the plain one."""
        return {published_name(name, file): name for name, file in self._assets.items()}

    @cached_property
    def _pages(self) -> dict[str, File]:
        names = {f"{{{plain}}}": published for published, plain in self._published.items()}

        def written(name: str) -> bytes:
            text = (HERE / name).read_text(encoding="utf-8")
            return re.sub(r"\{[\w.-]+\}", lambda found: names[found[0]], text).encode()

        return {name: as_file(written(name), name, ASK_AGAIN, policy=policy) for name, policy in POLICIES.items()}


def _spec_at(prefix: str) -> File:
    """The document with its server and the pictures in its text behind the prefix (OpenAPI 3.0.3, Server Object)."""
    text = documents.text(documents.GATEWAY)
    if prefix:
        for old, new in ((b"\n  - url: /\n", b"\n  - url: %s\n"), (b"](/docs/", b"](%s/docs/")):
            text = text.replace(old, new % prefix.encode())
    compressed = gzip.compress(text, mtime=0)
    headers = {"Cache-Control": ASK_AGAIN}
    return File(compressed, 200, headers, "application/yaml", gzipped=True, etag=f'W/"{_digest(text)}"')


def _assets() -> Iterator[tuple[str, File]]:
    for path in sorted(OWN.iterdir()):
        yield path.name, as_file(path.read_bytes(), path.name, cache_of(path.name))
    for path in sorted(VENDORED.glob("*.gz")):
        yield path.stem, as_file(path.read_bytes(), path.stem, FOREVER, gzipped=True)
    reference = b"const REFERENCE = " + orjson.dumps(with_code_samples(documents.load(documents.GATEWAY))) + b";\n"
    yield REFERENCE, as_file(gzip.compress(reference, mtime=0), REFERENCE, FOREVER, gzipped=True)


def cache_of(name: str) -> str:
    """What has a hash in its name never changes."""
    return FOREVER if Path(name).suffix in HASHED else ASK_AGAIN


def published_name(name: str, file: File) -> str:
    """Pictures keep their names: the spec's own text shows them."""
    path = Path(name)
    return f"{path.stem}.{_digest(file.body)}{path.suffix}" if path.suffix in HASHED else name
