"""The Prefer header (RFC 7240). A malformed preference is ignored."""

import re

OWS = r"[ \t]*+"
NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
QUOTED = r'"(?:[^"\\]|\\.)*+"'
ONE = rf"{OWS}({NAME})(?:{OWS}={OWS}({NAME}|{QUOTED}))?+"
PARAMETER = rf"{OWS};{OWS}(?:{NAME}(?:{OWS}={OWS}(?:{NAME}|{QUOTED}))?+)?+"
PREFERENCE = re.compile(rf"{ONE}(?:{PARAMETER})*+{OWS}", re.DOTALL)
BETWEEN_COMMAS = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))++', re.DOTALL)
SECONDS = re.compile(r"[0-9]+", re.ASCII)

LONGEST_WAIT = 50
"""Seconds. Load balancers and proxies commonly give up after 60 seconds without a byte of the response."""


def wait_seconds(prefer: str | None) -> int:
    """Return the seconds of `wait` (§4.3), at most LONGEST_WAIT; 0 where it is absent or malformed."""
    value = None if prefer is None else preferences(prefer).get("wait")
    return 0 if value is None or not SECONDS.fullmatch(value) else min(int(value), LONGEST_WAIT)


def preferences(prefer: str) -> dict[str, str]:
    """Return the values by lower-case name; "" for a name without a value. The first of a repeated name counts (§2)."""
    found: dict[str, str] = {}
    for each in BETWEEN_COMMAS.findall(prefer):
        if (one := PREFERENCE.fullmatch(each)) is not None:
            value = one[2] or ""
            found.setdefault(one[1].lower(), re.sub(r"\\(.)", r"\1", value[1:-1]) if value[:1] == '"' else value)
    return found
