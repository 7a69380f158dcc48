"""Content codings (RFC 9110 §8.4.1): their detection, and decompression within limits."""

import re
import zlib
from collections.abc import Iterable, Iterator

CODINGS = ("identity", "gzip", "deflate")
PART_BYTES = 256 * 1024  # of decompressed content; the event loop can run between two parts

# Names that mean no compression. Some belong to other headers: a charset, a media type, Transfer-Encoding, or MIME's
# Content-Transfer-Encoding. Object storages keep the aws-chunked of an upload.
_is_no_coding = re.compile(
    r"|\*|identity|none|null|plain|raw|text|json|(?:application|text)/[-+.a-z0-9]+(?:;.*)?|(?:aws-)?chunked|7bit|8bit|binary"
    r"|(?:us-)?ascii|(?:utf|iso|windows|cp|latin)[-_]?[0-9][-_0-9]*"
).fullmatch
_ALIASES = {"x-gzip": "gzip", "x-deflate": "deflate"}


def coding_of(values: Iterable[str]) -> str | None:
    """Return the coding that Content-Encoding headers name: one of CODINGS, or None for all others.

    Several layers of compression are refused: a few bytes could expand without limit.
    """
    names = [name.strip(" \t\"'").lower() for value in values for name in value.split(",")]
    names = [_ALIASES.get(name, name) for name in names if not _is_no_coding(name)]
    if not names:
        return "identity"
    return names[0] if len(names) == 1 and names[0] in CODINGS else None


class Decompressor:
    """A decompressor that yields parts of bounded size. Raises zlib.error if the content does not have the coding."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._zlib: zlib._Decompress | None = None
        self.unread = 0  # bytes of the last chunk that are not decompressed yet
        self._complete = False  # a compressed stream has ended

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the content of the next bytes. Bytes after the end of the compressed data are ignored."""
        if self._coding == "identity":
            yield data
            return
        pending = False  # zlib may hold output that did not fit into the last part
        while data or pending:
            if self._zlib is None:
                if self._complete and not (self._coding == "gzip" and data.startswith(b"\x1f")):
                    return
                # "deflate" means the zlib format, but many send raw deflate.
                format_of_deflate = zlib.MAX_WBITS if data[0] & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS
                self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16 if self._coding == "gzip" else format_of_deflate)
            part = self._zlib.decompress(data, PART_BYTES)
            self.unread = len(self._zlib.unconsumed_tail)
            if part:
                yield part
            pending = not self._zlib.eof and len(part) == PART_BYTES
            data = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
            if self._zlib.eof:  # another gzip member may follow (RFC 1952 §2.2)
                self._complete, self._zlib = True, None

    def end(self) -> None:
        """Raise zlib.error if the compressed data is cut off."""
        if self._zlib is not None:
            raise zlib.error("incomplete data")
