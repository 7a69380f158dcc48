"""logs: the format of a line for any content, and which records of other libraries appear."""

import asyncio
import base64
import io
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from product_gateway.telemetry import logs
from tests.support.log_lines import taken_apart

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations" / "logs.md"
FORMS = ("text", "json")

HOSTILE = {
    "a line feed": "x\n2026-01-01T00:00:00.000Z INFO forged",
    "a carriage return": "x\r2026-01-01T00:00:00.000Z INFO forged",
    "both": "x\r\n    forged",
    "a vertical tab": "x\x0bforged",
    "a next line": "x\x85forged",
    "a line separator": "x\u2028forged",
    "a paragraph separator": "x\u2029forged",
    "colours": "x\x1b[31mforged\x1b[0m",
    "a cleared screen": "x\x1b[2J\x1b[Hforged",
    "an escape of one byte": "x\x9b2Jforged",
    "a backspace": "x\b\b\bforged",
    "a NUL": "x\0forged",
    "a delete": "x\x7fforged",
    "right to left": "x\u202eforged",
    "nothing that is seen": "x\u200b\ufeffforged",
    "a field": "x merchant=other",
    "a field behind a tab": "x\tmerchant=other",
    "a quote and a field": 'x" merchant="other',
    "a member": 'x","merchant":"other',
    "backslashes": "x\\\\n\\",
    "half a pair": "x\ud800forged",
    "an astral letter": "x\U0001f600\U000e0041forged",
    "a space of another width": "x\u00a0\u3000merchant=other",
    "nothing": "",
}


class Written:
    """A logger of its own, and what it wrote."""

    def __init__(self, form: str) -> None:
        self._stream = io.StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(logs.Lines(as_json=form == "json"))
        self.logger = logging.Logger("product_gateway.test")
        self.logger.addHandler(handler)
        self._form = form

    @property
    def text(self) -> str:
        """All of it."""
        return self._stream.getvalue()

    def line(self) -> dict[str, Any]:
        """The only line, taken apart."""
        assert len(self.text.splitlines()) == 1, f"more than a line: {self.text!r}"
        return taken_apart(self.text, self._form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_from_outside_begins_a_line_or_passes_for_a_field(text: str, form: str) -> None:
    """Logs are evidence, and are read in terminals that obey what they are shown."""
    written = Written(form)
    written.logger.warning("It says %s", text, extra={"path": text, "status": 200})
    line = written.line()
    assert set(line) - {"logger"} == {"timestamp", "level", "event", "path", "status"}
    assert str(line["status"]) == "200"
    if form == "json" and "\ud800" not in text:
        assert (line["event"], line["path"]) == (f"It says {text}".rstrip(), text)


@pytest.mark.parametrize("form", FORMS)
def test_an_exception_stays_with_its_line(form: str) -> None:
    """The text of an exception is untrusted: an attacker can make it look like a log line."""
    written = Written(form)
    try:
        raise ValueError("\n2026-01-01T00:00:00.000Z INFO forged\tmerchant=other\x1b[2J")
    except ValueError:
        written.logger.exception("It failed.")
    first, *others = written.text.splitlines()
    assert "\x1b" not in written.text
    if form == "json":
        assert others == []
        assert json.loads(first)["exception"].startswith("Traceback (most recent call last):\n")
    else:
        assert first.endswith("ERROR It failed.")
        assert others[0] == "    Traceback (most recent call last):"
        assert all(each.startswith("    ") for each in others), f"a line of its own: {others}"


@pytest.mark.parametrize("form", FORMS)
def test_a_message_that_cannot_be_made_is_no_reason_to_fail(form: str) -> None:
    """Values of any kind come out somehow."""
    written = Written(form)
    written.logger.warning("%s", object(), extra={"path": Path("x"), "ms": 10**30})
    assert written.line()["path"] == "x"


async def test_what_a_task_is_about_stands_in_its_lines_alone() -> None:
    """Several requests and syncs run at the same time in one process."""
    written = Written("json")
    logs.clear()

    async def work(number: int) -> None:
        logs.bind(sync_id=str(number))
        await asyncio.sleep(0)
        logs.bind(merchant=f"m{number}")
        await asyncio.sleep(0)
        written.logger.warning("%d", number)

    await asyncio.gather(*[work(number) for number in range(20)])
    written.logger.warning("done")
    *lines, last = map(json.loads, written.text.splitlines())
    assert [(each["sync_id"], each["merchant"]) for each in lines] == [(str(n), f"m{n}") for n in range(20)]
    assert not {"sync_id", "merchant"} & set(last)


SECRET = 's3cr3t/t0ken+with=all~of"it\\'


def base64_of(before: str) -> str:
    """The secret in it begins at another bit each time."""
    return base64.b64encode(f"{before}{SECRET} and more".encode()).decode()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "echo",
    [SECRET, quote(SECRET, safe=""), base64_of(""), base64_of("B"), base64_of("Be"), base64_of("Bearer ")],
    ids=["plain", "percent-encoded", "base64", "base64 behind 1", "base64 behind 2", "base64 of a header"],
)
async def test_a_hidden_secret_is_in_no_line_of_its_task(echo: str, form: str) -> None:
    """Not in the message, not in an exception, and not in the forms that it is sent in."""

    async def work() -> str:
        logs.add_secret(SECRET)
        written = Written(form)
        try:
            raise RuntimeError(f"it said {echo}")
        except RuntimeError:
            written.logger.exception("It said %s", echo)
        return written.text

    said = await asyncio.create_task(work())
    core = echo if echo in (SECRET, quote(SECRET, safe="")) else echo[12:36]
    assert core not in said
    assert json.dumps(core)[1:-1] not in said
    assert said.count("***") == 2
    assert logs.redact(echo) == echo, "what one task hides is none of the others' business"


async def test_a_word_is_no_secret() -> None:
    """A token like `demo` would be found in half of all lines."""

    async def work() -> str:
        logs.add_secret("demo")
        return logs.redact("the demo")

    assert await asyncio.create_task(work()) == "the demo"


def test_what_looks_like_a_jwt_is_masked_everywhere() -> None:
    """A client's token ends up where it does not belong, such as in a path."""
    token = "eyJhbGciOiJFUzI1NiJ9.eyJtZXJjaGFudCI6ImRlbW8ifQ.c2lnbmF0dXJl-_x"
    assert logs.redact(f"/syncs/{token}/problems") == "/syncs/eyJ***/problems"


def test_every_key_is_in_the_document_and_the_other_way_round() -> None:
    """Log pipelines are built by it. Correct docs/operations/logs.md, or logs.py, until they agree."""
    named = re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert named == [*logs.FIRST, *logs.MORE, *logs.ABOUT, "process", "exception"]


PROGRAM = """
import asyncio, logging, sys, threading, time, warnings
from product_gateway.telemetry import logs
logs.configure("DEBUG", sys.argv[1])
logging.getLogger("product_gateway.x").debug("ours")
for name in ("httpx2", "uvicorn.error", "sqlalchemy.engine.Engine", "connexion", "another_library"):
    logging.getLogger(name).info("theirs")
logging.getLogger("uvicorn.error").warning("their warning")
warnings.warn("a warning of Python")
thread = threading.Thread(target=lambda: 1 / 0, name="t1")
thread.start(); thread.join()
async def lost():
    asyncio.get_running_loop().create_task(fail())
    await asyncio.sleep(0.01)
async def fail():
    raise KeyError("in the loop")
asyncio.run(lost())
raise RuntimeError("in the end")
"""


@pytest.mark.parametrize("form", FORMS)
def test_uncaught_errors_and_warnings_are_logged_in_the_same_format(form: str) -> None:
    """Warnings, and errors of threads, of the event loop and of the process; of libraries nothing but warnings."""
    command = [sys.executable, "-c", PROGRAM, form]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    lines = [each for each in done.stderr.splitlines(keepends=True) if not each.startswith("    ")]
    found = [taken_apart(each, form) for each in lines]
    wanted = [
        ("debug", "ours"),
        ("warning", "their warning"),
        ("warning", "UserWarning: a warning of Python"),
        ("critical", "An unexpected error ended the thread t1."),
        ("error", "Task exception was never retrieved"),
        ("critical", "An unexpected error ended the process."),
    ]
    assert len(found) == len(wanted), done.stderr
    for line, (level, event) in zip(found, wanted, strict=True):
        assert line["level"] == level
        assert event in line["event"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    for error in ("ZeroDivisionError", "KeyError: 'in the loop'", "RuntimeError: in the end"):
        assert done.stderr.count(error) >= 1


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with another clock on the wall."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_times_are_in_utc() -> None:
    """Machines in several places write one log."""
    record = logging.LogRecord("product_gateway", logging.INFO, "", 0, "x", None, None)
    record.created = 0.0625
    assert json.loads(logs.Lines(as_json=True).format(record))["timestamp"] == "1970-01-01T00:00:00.062Z"
