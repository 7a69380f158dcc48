"""Escapes for invisible characters, in untrusted text that people read in a terminal, a log or the monitor.

A product service, a client or a merchant can send characters that hide text, turn its direction (Trojan Source,
CVE-2021-42574), move the cursor or end the line. Answers of the JSON APIs keep them: a program must get what was sent.
"""

import re

# str.isprintable() is False for control and format characters, separators but the space, surrogates, and what is not
# assigned. These are printable in Unicode but invisible: fillers, joiners and variation selectors.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def is_visible(text: str) -> bool:
    """Return whether every character of the text can be seen, or is a space."""
    return text.isprintable() and (text.isascii() or _UNSEEN.search(text) is None)


def visible(text: str) -> str:
    """Return the text in one line, with an escape such as \\u202e in place of each character that is not seen."""
    return text if is_visible(text) else "".join(each if is_visible(each) else ascii(each)[1:-1] for each in text)


def visible_lines(text: str) -> str:
    """Return the text with its own line feeds, and otherwise as `visible` does."""
    return "\n".join(map(visible, text.split("\n")))
