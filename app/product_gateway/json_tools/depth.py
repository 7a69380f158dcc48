"""A limit on the nesting of JSON, the same with every version of Python (RFC 8259 §9 allows one).

The limits of parsers differ. `orjson.loads` stops at 1,024 levels and `orjson.dumps` at 254.
`json` and `msgspec` go as deep as the interpreter's stack allows: about 1,000 levels on Python 3.11, several thousand
on 3.13.
"""

MAX_DEPTH = 254
"""Levels of objects and arrays: the limit of `orjson.dumps`, so that accepted JSON can also be written."""

_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))


def is_deeper(content: bytes, levels: int = MAX_DEPTH) -> bool:
    """Return whether objects and arrays nest more than `levels` deep in the JSON text, which may be invalid.

    A scalar has depth 0, `[]` depth 1. The text must be UTF-8.
    """
    if content.count(b"[") + content.count(b"{") <= levels:
        return False
    # After the removal of escaped backslashes and then of escaped quotes, each quote begins or ends a string.
    without_escapes = content.replace(rb"\\", b"").replace(rb"\"", b"")
    outside_strings = without_escapes.translate(None, _OTHERS).split(b'"')[::2]
    depth = 0
    for bracket in b"".join(outside_strings):
        if bracket in b"[{":
            depth += 1
            if depth > levels:
                return True
        else:
            depth -= 1
    return False
