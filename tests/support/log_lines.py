"""Reads the log of a process line by line, as docs/operations/logs.md says."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2

from tests.support.deployment import STARTS_WITHIN, Deployment, Process, within

FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"\\]+)')


class Log:
    """The lines of a process."""

    def __init__(self, process: Process, form: str) -> None:
        self._process = process
        self._form = form

    def lines(self) -> list[dict[str, Any]]:
        """Return the complete lines, without the command's own line about where it listens."""
        whole = self._process.log.read_text().rpartition("\n")[0].splitlines(keepends=True)
        whole = [each if each.endswith("\n") else f"{each}\n" for each in whole]
        return [taken_apart(each, self._form) for each in whole if " listens on " not in each]

    def requests(self, count: int) -> list[dict[str, Any]]:
        """Wait for `count` lines of requests and return them."""

        def look() -> list[dict[str, Any]] | None:
            found = [each for each in self.lines() if each["event"] == "answered"]
            return found if len(found) >= count else None

        found: list[dict[str, Any]] = within(STARTS_WITHIN, look)
        assert len(found) == count, f"more requests than were made: {found}"
        return found

    def of_sync(self, sync_id: str) -> list[dict[str, Any]]:
        """Wait for the end of the sync and return the worker's lines about it."""

        def look() -> list[dict[str, Any]] | None:
            found = [each for each in self.lines() if each.get("sync_id") == sync_id and each["event"] != "answered"]
            return found if re.search("SUCCEEDED|FAILED", found[-1]["event"] if found else "") else None

        found: list[dict[str, Any]] = within(STARTS_WITHIN, look)
        return found


@contextmanager
def serving(deployment: Deployment, form: str, *arguments: str) -> Iterator[tuple[str, Log]]:
    """Run a gateway with logs of this form. Yield its URL and its log."""
    deployment.environment["PRODUCT_GATEWAY_LOG_FORMAT"] = form
    with deployment.process("serve", "--port", "0", *arguments) as process:
        url = process.url()
        within(STARTS_WITHIN, lambda: answers(url))
        yield url, Log(process, form)


def answers(url: str) -> bool:
    """Return whether the gateway answers."""
    try:
        return httpx2.get(f"{url}/health/live").status_code == 200
    except httpx2.TransportError:
        return False


def raw(url: str, request: bytes) -> bytes:
    """Send these bytes and return all bytes until the server closes the connection."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while some := connection.recv(65536):
            answer += some
    return answer


def taken_apart(line: str, form: str) -> dict[str, Any]:
    """A line as docs/operations/logs.md says that it is to be read."""
    assert line.endswith("\n")
    assert line[:-1].replace("\t", "").isprintable(), f"a terminal would obey this: {line!r}"
    if form == "json":
        found: dict[str, Any] = json.loads(line)
        return found
    front, _, behind = line[:-1].partition("\t")
    assert "\t" not in behind
    time, level, event = front.split(" ", 2)
    ids = {name: json.loads(value) if value[0] == '"' else value for name, value in FIELD.findall(behind)}
    assert " ".join(f"{name}={value}" for name, value in FIELD.findall(behind)) == behind, f"unreadable: {behind!r}"
    return {"timestamp": time, "level": level.lower(), "event": event, **ids}
