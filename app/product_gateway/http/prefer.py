"""What a client would like, if it can be had (RFC 7240). What cannot be read is no error, and is as good as absent."""

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
"""Seconds. Load balancers and proxies commonly give up after 60 without a byte of an answer."""


def wait_seconds(prefer: str | None) -> int:
    """For how many seconds the client would wait (§4.3), as far as we do; 0 where it would not."""
    value = None if prefer is None else preferences(prefer).get("wait")
    return 0 if value is None or not SECONDS.fullmatch(value) else min(int(value), LONGEST_WAIT)


def preferences(prefer: str) -> dict[str, str]:
    """The values by name in lower case, empty where there is none. Of a repeated name, the first counts (§2)."""
    found: dict[str, str] = {}
    for each in BETWEEN_COMMAS.findall(prefer):
        if (one := PREFERENCE.fullmatch(each)) is not None:
            value = one[2] or ""
            found.setdefault(one[1].lower(), re.sub(r"\\(.)", r"\1", value[1:-1]) if value[:1] == '"' else value)
    return found
