"""Messages for merchants about invalid values in a record: what was found, and what to write instead."""

import re
from datetime import UTC, datetime
from typing import Any

from product_gateway.json_tools.faults import encodable, shown
from product_gateway.json_tools.tolerant import LARGEST_INTEGER, SMALLEST_INTEGER, Unusable
from product_gateway.openapi import documents

Parts = tuple[str | int, ...]
"""A place in a record: names of members and indexes of elements, from the outside in."""

MOST_SHOWN = 40  # characters of a value
LONGEST_POINTER = 1024  # characters, as openapi/product-gateway.yaml says
_A_TIME = "write an ISO 8601 date and time, such as 2021-01-01T00:00:00Z"
_NONE = ", or null where there is none"
_A_PRICE = "write minor units as an integer without quotes, such as 5000 for 50.00"
_OBJECTS = {  # by a property that the schema has
    "items": " with items and pagination",
    "moreResults": ', such as {"moreResults": false}',
    "url": ', such as {"url": "https://cdn.example.com/a.jpg"}',
    "id": ' with at least an id and a title, such as {"id": "a", "title": "A"}',
}
_DECIMAL = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,6})?")
_EPOCH_MILLISECONDS_FROM = 10**11  # seconds until the year 5138; milliseconds since 1973


class Unfit(Exception):
    """An invalid value: its code and place."""

    def __init__(self, code: str, parts: Parts, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.parts = parts


def pointer_to(parts: Parts) -> str:
    """Return the JSON Pointer (RFC 6901) of a place, or of an outer part if the pointer would be too long."""
    pointer = ""
    for each in parts:
        text = encodable(str(each)).replace("~", "~0").replace("/", "~1")
        if len(pointer) + 1 + len(text) > LONGEST_POINTER:
            break
        pointer += f"/{text}"
    return pointer


def fault(code: str, parts: Parts, value: Any, schema: documents.Document, top: str = "The record") -> Unfit:
    """Describe the value at a place, which does not fit the schema. `top` names the outermost value."""
    name, found = _name(parts, top), _described(value)
    match code:
        case "MISSING_FIELD":
            message = f"{name} is missing; {_instead(None, schema)}."
        case "WRONG_TYPE":
            message = f"{name} is {found}; {_instead(value, schema)}."
        case "OUT_OF_RANGE" if "minimum" in schema:
            message = f"{name} is {found}; write a number from {schema['minimum']} to {schema['maximum']}."
        case "OUT_OF_RANGE" if isinstance(value, Unusable) and re.search(r"[.eE]", value.literal):
            message = f"{name} is {found}, which is too large. Write a smaller number, or put it into quotes."
        case "OUT_OF_RANGE":
            kept = f"integers from {SMALLEST_INTEGER} to {LARGEST_INTEGER} are kept"
            message = f"{name} is {found}; {kept}. Put it into quotes."
        case "TOO_LONG":
            unit, limit = ("characters", "maxLength") if isinstance(value, str) else ("elements", "maxItems")
            message = f"{name} has {len(value)} {unit}, and at most {schema[limit]} are kept. Shorten it."
        case "TOO_SHORT":
            message = f"{name} is empty. Write at least one character."
        case "INVALID_DATE_TIME":
            message = f"{name} is {found}, which is not a time; {_time_instead(value)}."
        case _:  # the spec has no other pattern
            place, each = next((place, each) for place, each in enumerate(value) if each < " " or each == "\x7f")
            message = f"{name} has a control character, U+{ord(each):04X}, as character {place + 1}. Leave it out."
    return Unfit(code, parts, message)


def has_surrogate(parts: Parts, text: str, *, as_name: bool = False) -> Unfit:
    """Describe a lone surrogate in a string, or with `as_name` in the name of a member."""
    place, found = next((place, each) for place, each in enumerate(text) if "\ud800" <= each <= "\udfff")
    where = f"the name of a member of {_name(parts[:-1])}" if as_name else _name(parts)
    message = (
        f"Character {place + 1} of {where} is \\u{ord(found):04x}, half of a surrogate pair. Cut texts between "
        "characters, or write both halves."
    )
    return Unfit("INVALID_VALUE", parts, message)


def too_deep(parts: Parts, levels: int) -> Unfit:
    message = f"{_name(parts)} nests objects and arrays too deeply. Use at most {levels} levels in a record."
    return Unfit("INVALID_VALUE", parts, message)


def _name(parts: Parts, top: str = "The record") -> str:
    return shown(".".join(map(str, parts)), MOST_SHOWN).strip("`") or top


def _described(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case Unusable():
            return f"the number {shown(value.literal, MOST_SHOWN).strip('`')}"
        case int() | float():
            return f"the number {shown(repr(value), MOST_SHOWN).strip('`')}"
        case str():
            return f"the string {shown(value, MOST_SHOWN)}" if value else "an empty string"
        case list():
            return "an array"
    return "an object"


def _instead(value: Any, schema: documents.Document) -> str:
    """Return what to write instead. Many programs write false, "", [] or {} for a value that they do not have."""
    is_nothing = value is False or value == "" or isinstance(value, list | dict)  # which come without their members
    return _what(value, schema) + (_NONE if is_nothing and schema.get("nullable") else "")


def _what(value: Any, schema: documents.Document) -> str:
    match schema["type"]:
        case "integer":
            return _price_instead(value)
        case "string" if schema.get("format") == "date-time":
            return _time_instead(value)
        case "string":
            if isinstance(value, Unusable | int | float) and not isinstance(value, bool):
                return f"write it in double quotes: {_quoted(value)}"
            return "write a string in double quotes"
        case "boolean":
            return "write true or false"
        case "array":
            return 'write an array of objects, such as [{"id": "a", "title": "A"}]'
    found = (each for name, each in _OBJECTS.items() if name in schema.get("properties", ()))
    return "write an object" + next(found, ', such as {"vendor": "a"}')


def _quoted(value: Any) -> str:
    literal = value.literal if isinstance(value, Unusable) else repr(value)
    return f'"{shown(literal, MOST_SHOWN).strip("`")}"'


def _price_instead(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else value if isinstance(value, str) else ""
    text = text.strip()
    if not _DECIMAL.fullmatch(text) or text.startswith("-"):
        return _A_PRICE
    if "." not in text:
        return f"write {int(text)} without quotes"
    whole, _, part = text.partition(".")
    if not part.strip("0") and isinstance(value, str):
        return f"write minor units as an integer without quotes, such as {int(whole)}00"
    return f"write minor units as an integer, such as {int(whole + (part + '00')[:2])}"


def _time_instead(value: Any) -> str:
    if isinstance(value, str) and not re.search("[1-9]", value):  # such as 0000-00-00 00:00:00, as MySQL has it
        return _A_TIME + _NONE
    # Suggest the same moment if the value is in seconds or milliseconds since 1970.
    number: Any = value
    if isinstance(value, str):
        number = float(value) if re.fullmatch(r"[0-9]{9,13}(\.[0-9]{1,6})?", value) else None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 10**8 <= number < 10**14:
        return _A_TIME
    moment = datetime.fromtimestamp(number / (1000 if number >= _EPOCH_MILLISECONDS_FROM else 1), UTC)
    return f"write an ISO 8601 date and time, such as {moment:%Y-%m-%dT%H:%M:%SZ}"
