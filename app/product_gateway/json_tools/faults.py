"""Messages for the operators of a product service: why a body is not JSON, and what to send instead."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE

from product_gateway.json_tools.tolerant import MOST_OBJECTS, TOO_MANY_OBJECTS, NotJSON, loads, place_of_fault
from product_gateway.telemetry import logs
from product_gateway.telemetry.visible_text import visible

MOST_SHOWN = 60  # characters of the body, and of its Content-Type
_MASKED_FROM = 4096  # bytes, so that a secret that begins in the shown part is redacted as a whole
_GZIP = b"\x1f\x8b"
_WIDE_MARKS = {BOM_UTF32_LE: "UTF-32", BOM_UTF32_BE: "UTF-32", BOM_UTF16_LE: "UTF-16", BOM_UTF16_BE: "UTF-16"}
_WORD = re.compile(r"[A-Za-z_$][\w$-]*")
_ODD_NUMBERS = {
    r"\+": "a number begins with a plus sign",
    r"\.": "a number begins or ends with a decimal point",
    r"(?<=0)[0-9]": "a number has a leading zero",
    r"(?<=0)[xXoObB]": "a number is not decimal",
    r"(?<=[0-9])[_']": "a number has a separator",
    r"(?<=[0-9],)[0-9]": "a number has a comma in it",
    r"(?<=[0-9])[A-Za-z]": "a number has a letter behind it",
    r"-|(?<=-)\S": "a minus sign has no number behind it",
}
_CHECK_ADDRESS = "Send JSON. Check that the registered address leads to the product service, not to a web page."
_CONSTANTS = (b"NaN", b"Infinity")
_WORDS_OF_OTHER_LANGUAGES = {"true": "true", "false": "false"}  # in lower case
_WORDS_OF_OTHER_LANGUAGES |= dict.fromkeys(("null", "none", "undefined", "nil", "nan"), "null")
_find_page = re.compile(rb'\{\s*"(?:items|pagination)"\s*:').search
_PAGE_OF_A_SITE = (b"<!", b"<?", b"<html", b"<HTML")  # it may have JSON in its scripts


def why(content: bytes, content_type: str) -> str:
    """Return the fault and what to do, as the predicate of a sentence and more sentences.

    The content must be one that `tolerant.loads` refuses.
    """
    fault, advice = _of_bytes(content) or _of_text(content)
    return f"{fault}. {looks(content, content_type)} {advice}"


def looks(content: bytes, content_type: str) -> str:
    """Describe a response body in one sentence: its Content-Type and its first bytes."""
    kind = f"The Content-Type is {shown(content_type)}" if content_type else "There is no Content-Type"
    if not content:
        return f"{kind}."
    return f"{kind}, and the body begins with {shown(content[:_MASKED_FROM].decode('utf-8', 'backslashreplace'))}."


def shown(text: str, most: int = MOST_SHOWN) -> str:
    """Return the text in backticks: redacted, in one line, and cut after `most` characters."""
    plain = visible(logs.redact(text[:_MASKED_FROM]))
    return f"`{plain}`" if len(plain) <= most and len(text) <= _MASKED_FROM else f"`{plain[:most]}…`"


def encodable(text: str) -> str:
    """Return the text with lone surrogates escaped, so that it can be written in UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _of_bytes(content: bytes) -> tuple[str, str] | None:
    text = content.lstrip(b" \t\n\r")
    start = text[:4]
    if not start:
        return "is empty", "Send a page as JSON; send an empty list as a page with no items."
    if start[:2] == _GZIP:
        return "is compressed", "Send Content-Encoding: gzip with it, or send it as plain JSON."
    for mark, name in _WIDE_MARKS.items():
        if content.startswith(mark):
            return f"is text in {name}, not in UTF-8", "Send JSON in UTF-8."
    if b"\0" in start:
        return "is text in UTF-16 or UTF-32, not in UTF-8", "Send JSON in UTF-8."
    page = _find_page(content) if start[:1] not in (b"{", b"[") else None
    if page and not text.startswith(_PAGE_OF_A_SITE):
        fault = f"has other text in front of its JSON, which begins at byte {page.start() + 1}"
        return fault, "Send the page and nothing else. Write warnings to a log instead (in PHP: display_errors=Off)."
    if start[:1] == b"<":
        return "is HTML or XML, not JSON", _CHECK_ADDRESS
    if start[:1] not in b"{[\"-0123456789tfn/#'" and not text.startswith(_CONSTANTS):
        return "is not JSON", _CHECK_ADDRESS
    try:
        content.decode()
    except UnicodeDecodeError as error:
        byte = content[error.start]
        in_latin = bytes((byte,)).decode("cp1252", "replace")
        meant = f' (in Windows-1252 it is "{in_latin}")' if byte >= 0xA0 else ""
        in_record = _within(content[: error.start].decode())
        fault = f"is not valid JSON{in_record}: byte {error.start + 1} is 0x{byte:02X}{meant}, which is not UTF-8"
        return fault, "Send JSON in UTF-8."
    return None


def _of_text(content: bytes) -> tuple[str, str]:
    try:
        loads(content)
    except NotJSON as error:
        if error.reason == TOO_MANY_OBJECTS:
            fault = f"has unusable values and more than {MOST_OBJECTS:,} objects and arrays"
            return fault, "Send fewer records in a page, so that the values can be named."
        what, advice = _kind(error)
        return f"is not valid JSON{_within(error.text)}: {what}", advice
    raise ValueError("The content is JSON.")


def _within(text: str) -> str:
    pointer = place_of_fault(text)
    return f" at {pointer}" if pointer else ""


def _kind(error: NotJSON) -> tuple[str, str]:
    text, place = error.text, error.place
    if error.constant:
        return f"it has {error.constant}, which JSON does not have", "Send null, or leave the field out."
    if error.reason.startswith("Unterminated string") or not text[place:].strip(" \t\n\r"):
        return "it ends too early", "Send the whole page, and check the length that the service announces."
    if error.reason == "Extra data":
        return f"{shown(text[place])} follows its end", "Send one page and nothing else."
    if error.reason.startswith("Invalid \\"):
        return (
            "a string has an escape that JSON does not have",
            "Write a backslash in a string as \\\\, and an apostrophe without one.",
        )
    return _kind_of_character(text, place, in_string=error.reason.startswith("Invalid control character"))


def _kind_of_character(text: str, place: int, *, in_string: bool) -> tuple[str, str]:
    character = text[place]
    before = text[:place].rstrip()[-1:] if place < 10_000 else text[place - 10_000 : place].rstrip()[-1:]
    if in_string:
        name = {"\n": "a line feed", "\r": "a carriage return", "\t": "a tab"}.get(character, "a control character")
        return f"a string has {name} (U+{ord(character):04X}) in it", "Write it escaped, such as \\n for a line feed."
    if (character in "]}" and before == ",") or (character == "," and text[place + 1 :].lstrip()[:1] in ("]", "}")):
        return "a comma stands before a closing bracket", "Leave out the comma behind the last value."
    if character in "/#":
        return "it has a comment", "Leave comments out."
    for pattern, fault in _ODD_NUMBERS.items():
        if re.compile(pattern).match(text, place):
            return fault, "Write numbers as JSON does, such as 1250 or 12.5."
    if character == "'":
        return "a text is in single quotes", 'Put names and texts into double quotes (").'
    word = _WORD.match(text, place)
    if word and (instead := _WORDS_OF_OTHER_LANGUAGES.get(word[0].lower())):
        return f"it has {word[0]}, which JSON does not have", f"Write {instead}."
    if text.startswith("=>", place):
        return "a name has an arrow behind it", "Put a colon between a name and its value."
    it = shown(character)  # one character only: the next ones may belong to a secret
    if before == '"':
        return (
            f"{it} follows a string",
            'Write a quote in a string as \\", and separate values by commas.',
        )
    if word:
        return f"{it} stands outside of quotes", 'Put names and texts into double quotes (").'
    if character == '"':
        return "a comma or a colon is missing in front of a string", "Separate values by commas."
    return f"{it} stands where a value or a comma should", "Write the page with a JSON library."
