"""Repair of response heads that curl and browsers read, and that aiohttp's parser refuses.

Services with hand-written headers send them. A repaired response ends the connection, so that bytes which a wrong
length leaves over are never read as another response.
"""

import re

_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)([ \t]*):(.*)", re.DOTALL)


def repaired(head: bytes) -> bytes:
    """Return a head that the parser accepts, or the same head if it has none of these faults. It ends in a blank line.

    The faults are white space before a colon, lines that are no fields, equal lengths, and a length beside chunks
    (RFC 9112 §5.1, §6.3). Two different lengths stay, and the parser refuses them.
    """
    if head.count(b"\n") != head.count(b"\r\n"):  # with other line ends, the head may end earlier
        return head
    status_line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept: list[bytes] = []
    lengths: list[bytes] = []
    is_chunked = is_faulty = False
    for line in lines:
        field = _FIELD.fullmatch(line)
        name = field[1].lower() if field else b""
        if field and name == b"content-length":
            lengths += [each.strip() for each in field[3].split(b",")]
        elif field and (name, field[3].strip().lower()) != (b"transfer-encoding", b"identity"):
            kept.append(field[1] + b":" + field[3])
            is_chunked = is_chunked or name == b"transfer-encoding"
            is_faulty = is_faulty or bool(field[2])
        elif line[:1] in (b" ", b"\t") and kept:  # continues the field before it
            kept.append(line)
        else:
            is_faulty = True
    is_faulty = is_faulty or (bool(lengths) and is_chunked) or len(set(lengths)) < len(lengths)
    if not is_faulty:
        return head
    kept += [b"Content-Length: " + each for each in dict.fromkeys(lengths) if not is_chunked]
    return b"\r\n".join([status_line, *kept, b"Connection: close", b"", b""])
