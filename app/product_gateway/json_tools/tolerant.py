"""A tolerant JSON parser, so that an unusable value costs its record only and not the whole page.

RFC 8259 allows lone surrogates (§8.2), numbers beyond the range of a float (§6) and any depth (§9). orjson and msgspec
refuse such texts. This parser returns `Unusable` for such numbers, and keeps lone surrogates in their strings.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any

import orjson

from product_gateway.json_tools.depth import MAX_DEPTH, is_deeper

MAX_RECORD_DEPTH = MAX_DEPTH - 4
"""Levels of objects and arrays in a record. API responses add a few levels around it."""

SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**63 - 1
MOST_OBJECTS = 2_000_000
"""Objects and arrays in a text that orjson refuses. Python's parser takes a second for about a million of them."""
TOO_MANY_OBJECTS = "too many objects and arrays"  # a reason of NotJSON
_PAGE_DEPTH = MAX_RECORD_DEPTH + 2  # the page and its items are one level each
_FEWEST_DIGITS_OUT_OF_RANGE = 19
_MOST_DIGITS_READ = 1000
_MOST_MEMBERS = 1000  # of a page that are searched for a fault

# Possessive: to go back, the engine would store each of millions of spaces.
_find_first_character = re.compile(rb"(?:\xef\xbb\xbf|[ \t\n\r]++)*+").match
_find_long_number = re.compile(rb"[0-9]{%d}" % _FEWEST_DIGITS_OUT_OF_RANGE).search  # orjson rounds these
_find_surrogate = re.compile("[\ud800-\udfff]").search
# An unterminated string matches up to the end of the text, so that the time is linear in the length.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class Unusable:
    """A number outside of the supported range, with its literal."""

    literal: str


class NotJSON(ValueError):
    """Invalid JSON. `place` is the index in `text` at which parsing stopped; `constant` is NaN or Infinity."""

    def __init__(self, text: str, place: int, reason: str = "", constant: str = "") -> None:
        super().__init__("The text is not JSON.")
        self.text = text
        self.place = place
        self.reason = reason
        self.constant = constant


def loads(content: bytes) -> tuple[Any, bool]:
    """Return the value, and whether it certainly has no unusable parts.

    Replaces objects and arrays beyond the depth limit by empty ones. Raises NotJSON, and UnicodeDecodeError if the
    content is not UTF-8.
    """
    content = from_first_character(content)
    deep = is_deeper(content, _PAGE_DEPTH)
    if not deep and not _find_long_number(content):
        try:
            return orjson.loads(content), True
        except orjson.JSONDecodeError:
            pass  # Python's parser decides
    if content.count(b"[") + content.count(b"{") > MOST_OBJECTS:
        raise NotJSON("", 0, TOO_MANY_OBJECTS)
    text = content.decode()
    if deep:
        text = _without_depths(text)
    try:
        return _decoder.decode(text), False
    except json.JSONDecodeError as error:
        raise NotJSON(text, error.pos, error.msg) from None
    except NotJSON as error:
        error.text = text
        raise


def from_first_character(content: bytes) -> bytes:
    """Return the JSON text without white space and byte order marks in front (RFC 8259 §8.1 allows to ignore a mark).

    Each file of a program that was saved with a mark puts one in front of its output.
    """
    start = _find_first_character(content)
    return content[start.end() :] if start and start.end() else content


def is_text(value: str) -> bool:
    """Return whether the string has no lone surrogates and can be written in UTF-8."""
    return value.isascii() or _find_surrogate(value) is None


def place_of_fault(text: str) -> str:
    """Return a JSON Pointer to the member or record of a page at which the text becomes invalid; "" if unknown."""
    pointer, members = "", 0
    place = _next(text, 0)
    try:
        while text[place] in "{," and members < _MOST_MEMBERS:
            members += 1
            name, place = _decoder.raw_decode(text, _next(text, place + 1))
            pointer = f"/{name}" if name in ("items", "pagination") else ""
            place = _next(text, _next(text, place) + 1)
            if name == "items" and text[place] == "[":
                place = _next(text, place + 1)
                index = 0
                while text[place] != "]":
                    pointer = f"/items/{index}"
                    place = _next(text, _decoder.raw_decode(text, place)[1])
                    if text[place] == ",":
                        place, index = _next(text, place + 1), index + 1
                    elif text[place] != "]":
                        return pointer
                place = _next(text, place + 1)
            else:
                place = _next(text, _decoder.raw_decode(text, place)[1])
            pointer = ""
    except (ValueError, IndexError, RecursionError):
        pass
    return pointer


def _next(text: str, place: int) -> int:
    found = _WHITE_SPACE.match(text, place)
    return found.end() if found else place


def _without_depths(text: str) -> str:
    """Replace each object and array that is one level too deep by `[]`."""
    kept: list[str] = []
    closing: list[str] = []
    start = 0
    for found in _TOKEN.finditer(text):
        bracket = found[0]
        if bracket in "[{":
            if len(closing) == _PAGE_DEPTH:
                kept.append(text[start : found.start()])
            closing.append("]" if bracket == "[" else "}")
        elif bracket in "]}":
            if not closing or closing.pop() != bracket:
                raise NotJSON(text, found.start())
            if len(closing) == _PAGE_DEPTH:
                kept.append("[]")
                start = found.end()
    if closing:
        raise NotJSON(text, len(text))
    return "".join([*kept, text[start:]])


def _integer(literal: str) -> int | Unusable:
    if len(literal) < _FEWEST_DIGITS_OUT_OF_RANGE:
        return int(literal)
    if len(literal) > _MOST_DIGITS_READ:
        return Unusable(literal)
    number = int(literal)
    return number if SMALLEST_INTEGER <= number <= LARGEST_INTEGER else Unusable(literal)


def _float(literal: str) -> float | Unusable:
    number = float(literal)
    return number if math.isfinite(number) else Unusable(literal)


def _constant(literal: str) -> Any:
    raise NotJSON("", 0, constant=literal)  # `loads` adds the text


_decoder = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_constant)
