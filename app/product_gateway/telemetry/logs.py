"""Logging: one line per message on standard error, as text or JSON, with the ids of the current context.

`bind(request_id=…, merchant=…, sync_id=…)` adds ids to every later line of the running task.
docs/operations/logs.md describes the format.
"""

import base64
import json
import logging
import re
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote

import orjson

from product_gateway.telemetry.visible_text import is_visible, visible

OURS = "product_gateway"  # libraries log warnings only: some log requests with their headers
FIRST = ("timestamp", "level", "logger", "event")
MORE = ("method", "path", "status", "ms", "client")
ABOUT = ("request_id", "trace_id", "operation", "merchant", "entity_type", "sync_id", "webhook_id")
SHORTEST_SECRET = 8  # shorter ones occur in ordinary words
PLAIN_VALUE = re.compile(r"[!#-\[\]-~]+")  # visible, and neither a quote nor a backslash
JWT = re.compile(r"eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,4}")
HIDDEN = "***"

logger = logging.getLogger(__name__)

_about: ContextVar[dict[str, str]] = ContextVar("about", default={})  # noqa: B039 - it is never changed in place
_process: dict[str, str] = {}
_hidden: ContextVar[tuple[str, ...]] = ContextVar("hidden", default=())


def bind(**ids: str) -> None:
    """Add ids, named as in ABOUT, to the context of the running task."""
    _about.set({**_about.get(), **ids})


def name_process(name: str) -> None:
    """Add this name to every later line of this process, one of several."""
    _process["process"] = name


def clear() -> None:
    _about.set({})


def context() -> dict[str, str]:
    """Return the ids of the running task. Do not change the dictionary."""
    return _about.get()


def add_secret(secret: str) -> None:
    """Write *** in place of the secret in the running task's lines, also if it is JSON, percent- or base64-encoded."""
    if len(secret) < SHORTEST_SECRET:
        return
    content = secret.encode()
    forms = {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    for before in range(3):  # base64 looks different after one or two other bytes
        encoded = base64.b64encode(bytes(before) + content)[(before * 8 + 5) // 6 : (before + len(content)) * 8 // 6]
        forms |= {encoded.decode(), encoded.translate(bytes.maketrans(b"+/", b"-_")).decode()}
    _hidden.set((*_hidden.get(), *sorted(forms, key=len, reverse=True)))


def redact(text: str) -> str:
    """Return the text without the running task's secrets and without anything that looks like a JWT."""
    for each in _hidden.get():
        text = text.replace(each, HIDDEN)
    return JWT.sub(f"eyJ{HIDDEN}", text) if "eyJ" in text else text


def configure(level: str, form: str = "text", stream: TextIO | None = None) -> None:
    """Log to `stream` (None: standard error) from `level` on; `form` is text or json.

    Python warnings and uncaught errors get the same format.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines(as_json=form == "json"))
    logging.basicConfig(level=max(logging.WARNING, logging.getLevelName(level)), handlers=[handler], force=True)
    logging.getLogger(OURS).setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda found: _uncaught(found.exc_type, found.exc_value, found.exc_traceback, found.thread)
    # Do not collect what no line shows (Python's logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _uncaught(
    kind: type[BaseException],
    error: BaseException | None,
    traceback: TracebackType | None,
    thread: threading.Thread | None = None,
) -> None:
    if error is None or not issubclass(kind, Exception):  # Ctrl-C is not an error
        sys.__excepthook__(kind, error or kind(), traceback)
        return
    what = "process" if thread is None else f"thread {thread.name}"
    logger.critical("An unexpected error ended the %s.", what, exc_info=(kind, error, traceback))


class Lines(logging.Formatter):
    """A formatter of lines. Untrusted text can neither start a line nor imitate a field."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._written = _as_json if as_json else _as_text

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; times are in UTC with milliseconds."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "timestamp": f"{when[:-6]}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": redact(record.getMessage().rstrip()),
        }
        given = record.__dict__
        line |= {name: given[name] for name in MORE if name in given} | _about.get() | _process
        if record.exc_info and record.exc_info[0]:
            line["exception"] = redact(self.formatException(record.exc_info))
        return self._written(line)


def _as_json(line: dict[str, Any]) -> str:
    try:
        text = orjson.dumps(line).decode()
    except TypeError:  # half a UTF-16 pair
        text = json.dumps(line, default=str)
    return text if is_visible(text) else "".join(c if is_visible(c) else json.dumps(c)[1:-1] for c in text)


def _as_text(line: dict[str, Any]) -> str:
    """Time, level and message; after the only tab, the ids; then the exception, indented."""
    front = f"{line['timestamp']} {line['level'].upper()} {visible(line['event'])}"
    ids = [f"{name}={_value(value)}" for name, value in line.items() if name not in FIRST and name != "exception"]
    text = f"{front}\t{' '.join(ids)}" if ids else front
    behind = "".join(f"\n    {visible(each)}" for each in line.get("exception", "").splitlines())
    return f"{text}{behind}"


def _value(value: object) -> str:
    text = str(value)
    return text if PLAIN_VALUE.fullmatch(text) else json.dumps(text)
