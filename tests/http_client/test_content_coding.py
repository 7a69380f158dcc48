"""Content codings: their detection, and decompression within limits."""

import gzip
import random
import zlib

import pytest

from product_gateway.http_client.content_coding import PART_BYTES, Decompressor, coding_of

TEXT = b"a page of records " * 5000


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ([], "identity"),
        ([""], "identity"),
        (["identity"], "identity"),
        (["none"], "identity"),
        (["UTF-8"], "identity"),
        (["ISO-8859-1"], "identity"),
        (["windows-1252"], "identity"),
        (["us-ascii"], "identity"),
        (["application/json"], "identity"),
        (["chunked"], "identity"),
        (["aws-chunked"], "identity"),
        (["aws-chunked,gzip"], "gzip"),
        (["*"], "identity"),
        (["json"], "identity"),
        (["gzip"], "gzip"),
        (["GZIP"], "gzip"),
        ([" gzip "], "gzip"),
        (['"gzip"'], "gzip"),
        (["x-gzip"], "gzip"),
        (["X-GZip"], "gzip"),
        (["deflate"], "deflate"),
        (["gzip, identity"], "gzip"),
        (["identity,gzip"], "gzip"),
        (["gzip", "identity"], "gzip"),
        (["gzip,"], "gzip"),
        (["gzip, gzip"], None),
        (["gzip", "gzip"], None),
        (["deflate, gzip"], None),
        (["br"], None),
        (["zstd"], None),
        (["compress"], None),
        (["aws-chunked, br"], None),
        (["x-unknown"], None),
        (["aes128gcm"], None),
    ],
)
def test_a_coding_is_found_however_it_is_written(values: list[str], coding: str | None) -> None:
    """One layer of compression is undone, and names that change nothing do not count."""
    assert coding_of(values) == coding


def unpacked(coding: str, content: bytes, chunk: int) -> bytes:
    """The content after decompression, fed in chunks."""
    decompressor = Decompressor(coding)
    parts = [part for at in range(0, len(content), chunk) for part in decompressor.feed(content[at : at + chunk])]
    decompressor.end()
    assert max(map(len, parts), default=0) <= max(PART_BYTES, chunk)
    return b"".join(parts)


def raw_deflate(content: bytes) -> bytes:
    """Deflate without the zlib format around it."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize("chunk", [1, 7, 1000, 2**20])
@pytest.mark.parametrize(
    ("coding", "packed", "content"),
    [
        ("identity", TEXT, TEXT),
        ("gzip", gzip.compress(TEXT), TEXT),
        ("deflate", zlib.compress(TEXT), TEXT),
        ("deflate", raw_deflate(TEXT), TEXT),
        ("gzip", gzip.compress(TEXT) + gzip.compress(b"more"), TEXT + b"more"),
        ("gzip", gzip.compress(TEXT) + bytes(9), TEXT),
        ("gzip", b"", b""),
        ("gzip", gzip.compress(b""), b""),
    ],
    ids=["identity", "gzip", "zlib", "raw deflate", "two members", "padding", "nothing", "empty"],
)
def test_content_is_decompressed_in_chunks_of_any_size(chunk: int, coding: str, packed: bytes, content: bytes) -> None:
    """The network decides where a chunk ends."""
    assert unpacked(coding, packed, chunk) == content


def test_large_content_comes_in_parts_of_bounded_size() -> None:
    """A megabyte of gzip can hold a gigabyte: it is never in memory at once."""
    for content in (bytes(5 * PART_BYTES), random.Random(1).randbytes(3 * PART_BYTES), bytes(PART_BYTES)):
        assert unpacked("gzip", gzip.compress(content), 2**20) == content


@pytest.mark.parametrize(
    "packed",
    [b"plain", gzip.compress(TEXT)[:-1], gzip.compress(TEXT)[:20], b"\x1f"],
    ids=["plain", "no end", "cut off", "one byte"],
)
@pytest.mark.parametrize("chunk", [1, 2**20])
def test_broken_and_cut_off_content_is_refused(packed: bytes, chunk: int) -> None:
    """Half a page must never pass for a page."""
    with pytest.raises(zlib.error):
        unpacked("gzip", packed, chunk)
