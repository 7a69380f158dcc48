"""The header Prefer (RFC 7240 §2)."""

import re
from collections.abc import Iterable

WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
QUOTED = r'"(?:[^"\\]|\\.)*"'
ONE = re.compile(rf"[ \t]*({WORD})(?:[ \t]*=[ \t]*({WORD}|{QUOTED}))?[ \t]*(?:;[^,]*)?")
BETWEEN_COMMAS = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+')


def preferences(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The values by name in lower case. The first of a name counts; what cannot be read is left out."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name == b"prefer":
            for each in BETWEEN_COMMAS.findall(value.decode("latin-1")):
                if one := ONE.fullmatch(each):
                    word = one[2] or ""
                    found.setdefault(one[1].lower(), re.sub(r"\\(.)", r"\1", word[1:-1]) if word[:1] == '"' else word)
    return found
