"""The wait that a server asks for: Retry-After, and the rate-limit headers of platforms and API gateways.

Retry-After is RFC 9110 §10.2.3. `RateLimit` is the IETF draft of that name, in its old and its new form. Platforms use
all the other names. Values are parsed leniently: a wait that is not understood would be ignored.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST = 1e9  # seconds: a larger number is a Unix time, not a period
LONGEST_NAME, LONGEST_VALUE = 80, 500  # characters: some of the patterns take quadratic time
SHOPIFY_SECONDS = 2.0  # Shopify itself asks for 2.0 s; its leaky bucket frees two requests a second

_DATE = re.compile(
    r"""(?:[a-z]{3,9},?\s+)?\d{1,2}[ -][a-z]{3}[ -]\d{2,4}\s+\d{1,2}:\d{2}:\d{2}
        (?:\s*(?:GMT|UTC|Z|[ECMP][SD]T|[+-]\d{4}))?
    | [a-z]{3}\s+[a-z]{3}\s+\d{1,2}\s+\d{2}:\d{2}:\d{2}\s+\d{4}(?:\s+GMT)?
    | [a-z]{3}\s+[a-z]{3}\s+\d{1,2}\s+\d{4}\s+\d{2}:\d{2}:\d{2}(?:\s+GMT(?:[+-]\d{4})?)?(?:\s+\([^)]*\))?
    | \d{4}-\d{2}-\d{2}[t ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?\s*(?:z|[+-]\d{2}:?\d{2})?""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_PERIOD = re.compile(
    r"""(?<![\w.])([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*
    (ms|milli\w*|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)?(?!\w)""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_DURATION = re.compile(r"(?:PT)?((?:\d+(?:\.\d+)?(?:ms|h|m|s))+)", re.ASCII | re.IGNORECASE)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)", re.ASCII | re.IGNORECASE)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MEMBER = re.compile(r"\b(r|t|remaining|reset)\s*[=:]\s*\"?(\d+(?:\.\d+)?)", re.ASCII | re.IGNORECASE)
_PARAMETERS = {"r": "remaining", "remaining": "remaining", "t": "reset", "reset": "reset"}
_PLENTY = {"decay": "reset", "callsleft": "remaining"}
_USED_OF = re.compile(r"(\d+)\s*/\s*(\d+)", re.ASCII)

_NOT_A_PERIOD = re.compile(r"\d\s*[:/]\s*\d|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2})", re.ASCII)  # hours, minutes and seconds

_RETRY_AFTER = re.compile(r"x?(?:ratelimit|ms)?retryafter(?:(ms|milliseconds?)|s|sec|seconds?)?")
_RESET = re.compile(r".*ratelimit.*?reset(?:after|at|in)?(ms)?(.*?)(ms)?")
_REMAINING = re.compile(r".*ratelimit.*?(?:remaining|left)(.*)")


def wait_asked(headers: Iterable[tuple[str, str]]) -> float | None:
    """Return the longest wait in seconds that a response asks for, or None.

    A Retry-After that can be parsed overrides all other headers. The reset of a rate limit counts if nothing remains of
    the limit, or if the response does not say how much remains.
    """
    named = [(_in_common_words(name), value[:LONGEST_VALUE]) for name, value in headers if len(name) <= LONGEST_NAME]
    now = next((at for name, value in named if name == "date" and (at := _date(value))), datetime.now(UTC))
    asked = [
        seconds
        for name, value in named
        if (match := _RETRY_AFTER.fullmatch(name))
        for seconds in _waits(value, now, milliseconds=bool(match[1]))
    ]
    if not asked:
        remaining = {match[1]: value for name, value in named if (match := _REMAINING.fullmatch(name))}
        for name, value in named:
            if name == "ratelimit":
                asked += _structured(value)
            elif name.endswith(("apicalllimit", "apibucketlevel")):  # of Shopify and Lightspeed
                used = _USED_OF.search(value)
                asked += [SHOPIFY_SECONDS] if used and int(used[1][:9]) >= int(used[2][:9]) else []
            elif match := _RESET.fullmatch(name):
                left = _amounts(remaining.get(match[2], remaining.get("", ""))) or [0]
                resets = re.split("[,/]", value) if len(left) > 1 else [value]
                for amount, reset in zip(left, resets, strict=False):  # some name several limits in one header
                    asked += [] if amount > 0 else _waits(reset, now, milliseconds=bool(match[1] or match[3]))
    return max(asked, default=None)


def _waits(text: str, now: datetime, *, milliseconds: bool) -> list[float]:
    """Return every period and date in a header's value, in seconds from `now`, and 0 for a date in the past."""
    found = [(at - now).total_seconds() for each in _DATE.findall(text) if (at := _date(each))]
    rest = _DATE.sub(" ", text)
    if clock := _CLOCK.fullmatch(rest.strip(" \t\"'")):
        return [float(clock[1] or 0) * 3600 + float(clock[2]) * 60 + float(clock[3])]
    if _NOT_A_PERIOD.search(rest):  # a date in another form: its year is not a number of seconds
        rest = ""
    if duration := _DURATION.fullmatch(rest.strip(" \t\"'")):
        found.append(sum(_seconds(number, unit) for number, unit in _DURATION_PART.findall(duration[1])))
    for number, unit in () if duration else _PERIOD.findall(rest):
        seconds = _seconds(number, unit or ("ms" if milliseconds else "s"))
        if not unit and float(number) >= LONGEST:  # a Unix time
            since = float(number)
            for _ in range(3):  # in milliseconds, microseconds or nanoseconds
                since /= 1000 if since >= 100 * LONGEST else 1
            seconds = since - now.timestamp() if since < 100 * LONGEST else LONGEST
        found.append(seconds)
    return [min(max(each, 0.0), LONGEST) for each in found]


def _seconds(number: str, unit: str) -> float:
    unit = unit.lower()
    return float(number) / 1000 if unit == "ms" or unit.startswith("milli") else float(number) * _UNITS[unit[0]]


def _date(text: str) -> datetime | None:
    """Parse a date in a form of RFC 9110 §5.6.7, ISO 8601 or JavaScript. The default time zone is UTC."""
    text = re.sub(r":60(?!\d)", ":59", text.strip(" \t\"'")).upper()  # a leap second
    text = re.sub(r"^([A-Z]{3}) ([A-Z]{3}) +(\d+) (\d{4}) ([\d:]+)(?: GMT)?([+-]\d{4})?.*", r"\1, \3 \2 \4 \5 \6", text)
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = parse(text)
        except (TypeError, ValueError, OverflowError):
            continue
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return None


def _structured(value: str) -> list[float]:
    """Return the resets of a RateLimit header: `limit=9, remaining=0, reset=5`, or a list of `"policy";r=0;t=5`."""
    found = []
    for part in [value] if "reset" in value.lower() else value.split(","):
        member = {_PARAMETERS[name.lower()]: float(number) for name, number in _MEMBER.findall(part)}
        if "reset" in member and not member.get("remaining"):
            found.append(min(member["reset"], LONGEST))
    return found


def _in_common_words(name: str) -> str:
    """Return a header's name without hyphens, and plentymarkets' words as those that others use."""
    name = re.sub(r"[-_]", "", name).lower()
    found = re.fullmatch(r"xplenty(.+?)(decay|callsleft)", name)
    return f"ratelimit{_PLENTY[found[2]]}{found[1]}" if found else name


def _amounts(said: str) -> list[int]:
    """Return the numbers of requests that remain: of one limit, or of several in one header."""
    return [int(each[:9]) for each in re.findall(r"-?\d+", re.sub(r"\.\d+", "", said), re.ASCII)]
