"""The documentation pages: `/`, the references, the try-it-out page, their assets, and the guides as Markdown.

All files are in this package, so that pages load nothing from other hosts. Files are read at the first request and
cached.
"""

import asyncio
import gzip
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import orjson
from starlette.types import Scope, Send

from product_gateway.docs_pages import guides
from product_gateway.docs_pages.code_samples import with_code_samples
from product_gateway.errors import PageNotFound
from product_gateway.http.conditional import matches
from product_gateway.http.context import header_values, request_context
from product_gateway.http.responses import Response, send_whole
from product_gateway.openapi import documents, openapi_3_1

HERE = Path(__file__).parent
OWN = HERE / "assets"
VENDORED = HERE / "vendored"
INDEX, DOCS, TRY_OUT, PRODUCT_SERVICE = "index.html", "docs.html", "try.html", "product-service.html"
# Asset -> its document, and the environment variable with the server's URL in code samples.
REFERENCES = {
    "reference.js": (documents.GATEWAY, "GATEWAY"),
    "product-service.js": (documents.PRODUCT_SERVICE, "SERVICE"),
}
MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",  # RFC 7763 §3 requires it
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
FOREVER = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"  # clients store it and revalidate it at each use (RFC 9111 §5.2.2.4)
HASHED = (".css", ".js")
# Of every page: no referrer for other sites, and no access to its window or embedding by other sites.
ISOLATION = {
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
OPENAPI_3_1 = "openapi-3.1.yaml"  # derived from the gateway's document
PATHS = {INDEX: "/", DOCS: "/docs", TRY_OUT: "/docs/try", PRODUCT_SERVICE: "/docs/product-service"}
MAX_PREFIXES = 16  # cached; a proxy publishes the server under few
_WEIGHT = re.compile(r"\s*(?:q\s*=\s*(0(?:\.[0-9]*)?|1(?:\.0*)?)\s*)?")
_LINK = re.compile(r'\b(href|src|data-document)="([^"]*)"')

# Redoc creates an empty style sheet, which has the first hash, and one for scroll bars, which has the second.
REDOC_STYLES = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
)
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
REDOC = NOTHING + f"script-src 'self'; style-src 'self' {REDOC_STYLES}; img-src 'self' data:; worker-src blob:"
POLICIES = {
    INDEX: NOTHING + "script-src 'self'; style-src 'self'; img-src 'self'",
    DOCS: REDOC,
    PRODUCT_SERVICE: REDOC,
    TRY_OUT: NOTHING + "script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'",
}


@dataclass(frozen=True, slots=True)
class File(Response[bytes]):
    """A static file with an entity tag, for conditional requests (RFC 9110 §13).

    `gzipped`: the body is compressed; clients that do not accept gzip get it decompressed.
    """

    gzipped: bool = False
    etag: str = ""

    async def send(self, scope: Scope, send: Send) -> None:
        """Send 200 with the file, or 304 if If-None-Match has its entity tag (RFC 9110 §13.1.2)."""
        headers = [
            *(
                (name, value) for name, value in request_context(scope).headers if name != b"cache-control"
            ),  # a file's own wins
            (b"etag", self.etag.encode()),
            *((name.lower().encode(), value.encode()) for name, value in self.headers.items()),
        ]
        if self.gzipped:
            headers.append((b"vary", b"accept-encoding"))
        if matches(self.etag, ",".join(header_values(scope, b"if-none-match"))):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        content = self.body
        if self.gzipped and _prefers_gzip(",".join(header_values(scope, b"accept-encoding"))):
            headers.append((b"content-encoding", b"gzip"))
        elif self.gzipped:
            content = await asyncio.to_thread(gzip.decompress, content)
        headers.append((b"content-type", self.media_type.encode()))
        headers.append((b"content-length", b"%d" % len(content)))
        await send_whole(scope, send, 200, headers, content)


@dataclass(frozen=True, slots=True)
class FileAtPath(Response[Callable[[str], File]]):
    """A file whose links start with the public path prefix. There is one cached version for each prefix."""

    async def send(self, scope: Scope, send: Send) -> None:
        """Send the file for the prefix of this request."""
        await self.body(request_context(scope).public_path).send(scope, send)


def _prefers_gzip(accept_encoding: str) -> bool:
    """Return whether the client prefers gzip (RFC 9110 §12.5.3). Without the header, it does not.

    A coding that the header does not name has the weight of `*`. Identity has weight 0 unless it is named.
    """
    weights: dict[str, float] = {}
    for each in accept_encoding.lower().split(","):
        coding, _, parameter = each.partition(";")
        weight = _WEIGHT.fullmatch(parameter)
        weights[coding.strip().removeprefix("x-")] = float(weight[1]) if weight and weight[1] else float(not parameter)
    gzip_weight = weights.get("gzip", weights.get("*", 0.0))
    return gzip_weight > 0 and gzip_weight >= weights.get("identity", 0.0)


def as_file(content: bytes, name: str, cache: str, *, gzipped: bool = False, policy: str = "") -> File:
    """Return the content as a File. The suffix of `name` determines the media type."""
    etag = f'W/"{_digest(content)}"'  # weak: compressed or not, the tag is the same
    media_type = MEDIA_TYPES[Path(name).suffix]
    headers = {"Cache-Control": cache} | ({"Content-Security-Policy": policy, **ISOLATION} if policy else {})
    return File(content, 200, headers, media_type, gzipped, etag)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


class PageHandlers:
    """Handlers that serve the pages and the specs. With `shown` False there are no pages, only the specs."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._specs = {
            name: FileAtPath(lru_cache(MAX_PREFIXES)(partial(_spec_at, name)))
            for name in (documents.GATEWAY, OPENAPI_3_1, documents.WORKFLOWS, documents.PRODUCT_SERVICE)
        }
        self._at_path = {name: FileAtPath(lru_cache(MAX_PREFIXES)(partial(self._page_at, name))) for name in POLICIES}

    async def get_spec(self) -> Response[Any]:
        """Return the spec as YAML (RFC 9512)."""
        return self._specs[documents.GATEWAY]

    async def get_spec31(self) -> Response[Any]:
        """Return the spec as OpenAPI 3.1."""
        return self._specs[OPENAPI_3_1]

    async def get_workflows(self) -> Response[Any]:
        """Return the Arazzo document."""
        return self._specs[documents.WORKFLOWS]

    async def get_product_service_spec(self) -> Response[Any]:
        """Return the contract of product services as YAML (RFC 9512)."""
        return self._specs[documents.PRODUCT_SERVICE]

    async def get_index(self) -> Response[Any]:
        """Raise PageNotFound."""
        return self._page(INDEX)

    async def get_docs(self) -> Response[Any]:
        """Raise PageNotFound."""
        return self._page(DOCS)

    async def get_try_out(self) -> Response[Any]:
        """Raise PageNotFound."""
        return self._page(TRY_OUT)

    async def get_product_service_docs(self) -> Response[Any]:
        """Raise PageNotFound."""
        return self._page(PRODUCT_SERVICE)

    async def get_docs_asset(self, name: str) -> File:
        """Return an asset by its published name. Raise PageNotFound."""
        return _found(self._assets.get(self._published.get(name, "")) if self._shown else None)

    async def get_guide(self, page: str) -> File:
        """Return a guide as Markdown. Raise PageNotFound."""
        return _found(self._guides.get(page) if self._shown else None)

    async def get_operations_guide(self, page: str) -> File:
        """Return a guide for operators as Markdown. Raise PageNotFound."""
        return _found(self._guides.get(f"operations/{page}") if self._shown else None)

    async def get_llms_txt(self) -> File:
        """Return the list of guides. Raise PageNotFound."""
        return _found(self._llms_txt if self._shown else None)

    def _page(self, name: str) -> Response[Any]:
        if not self._shown:
            raise PageNotFound
        return self._at_path[name]

    def _page_at(self, name: str, prefix: str) -> File:
        page = self._pages[name]
        if not prefix:
            return page
        content = _LINK.sub(lambda link: f'{link[1]}="{urljoin(prefix + PATHS[name], link[2])}"', page.body.decode())
        return as_file(content.encode(), name, REVALIDATE, policy=POLICIES[name])

    @cached_property
    def _guides(self) -> dict[str, File]:
        packed = {name: gzip.compress(text.encode(), mtime=0) for name, text in guides.load().items()}
        return {name: as_file(content, name, REVALIDATE, gzipped=True) for name, content in packed.items()}

    @cached_property
    def _llms_txt(self) -> File:
        return as_file(guides.llms_txt().encode(), "llms.txt", REVALIDATE)

    @cached_property
    def _assets(self) -> dict[str, File]:
        return dict(_assets())

    @cached_property
    def _published(self) -> dict[str, str]:
        """Published name, which contains a hash of the content, -> file name."""
        return {published_name(name, file): name for name, file in self._assets.items()}

    @cached_property
    def _pages(self) -> dict[str, File]:
        names = {f"{{{plain}}}": published for published, plain in self._published.items()}

        def written(name: str) -> bytes:
            text = (HERE / name).read_text(encoding="utf-8")
            return re.sub(r"\{[\w.-]+\}", lambda found: names[found[0]], text).encode()

        return {name: as_file(written(name), name, REVALIDATE, policy=policy) for name, policy in POLICIES.items()}


def _found(file: File | None) -> File:
    if file is None:
        raise PageNotFound
    return file


def _spec_at(name: str, prefix: str) -> File:
    """Return a spec. The gateway's has the prefix in its server URL (OpenAPI 3.0.3, Server Object) and image links.

    The workflows name the gateway's spec by its path on this server.
    """
    is_derived = name == OPENAPI_3_1
    text = openapi_3_1.as_yaml(documents.load(documents.GATEWAY)) if is_derived else documents.path(name).read_bytes()
    if prefix and name in (documents.GATEWAY, OPENAPI_3_1):
        for old, new in ((b"- url: /\n", b"- url: %s\n"), (b"](/docs/", b"](%s/docs/")):
            text = text.replace(old, new % prefix.encode())
    if name == documents.WORKFLOWS:
        text = text.replace(b"url: product-gateway.yaml\n", b"url: openapi.yaml\n")
    compressed = gzip.compress(text, mtime=0)
    headers = {"Cache-Control": REVALIDATE}
    return File(compressed, 200, headers, "application/yaml", gzipped=True, etag=f'W/"{_digest(text)}"')


def _assets() -> Iterator[tuple[str, File]]:
    for path in sorted(OWN.iterdir()):
        yield path.name, as_file(path.read_bytes(), path.name, cache_of(path.name))
    for path in sorted(VENDORED.glob("*.gz")):
        yield path.stem, as_file(path.read_bytes(), path.stem, FOREVER, gzipped=True)
    for name, (document, variable) in REFERENCES.items():
        reference = orjson.dumps(with_code_samples(documents.load(document), variable))
        content = gzip.compress(b"const REFERENCE = " + reference + b";\n", mtime=0)
        yield name, as_file(content, name, FOREVER, gzipped=True)


def cache_of(name: str) -> str:
    """Return the Cache-Control value: a file with a hash in its name never changes."""
    return FOREVER if Path(name).suffix in HASHED else REVALIDATE


def published_name(name: str, file: File) -> str:
    """Return the name with a hash of the content. Images keep their names, because the spec links to them."""
    path = Path(name)
    return f"{path.stem}.{_digest(file.body)}{path.suffix}" if path.suffix in HASHED else name
