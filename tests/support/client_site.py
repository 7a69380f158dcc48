"""A gateway with a worker for the client commands, the commands, and bodies of a scripted gateway."""

import json
import os
import re
import signal
from datetime import timedelta
from typing import Any
from uuid import UUID

from product_gateway.auth import keys
from tests.support.deployment import Deployment, within
from tests.support.fork_server import Forked
from tests.support.merchants import open_shops
from tests.support.paced_service import PacedService
from tests.support.scripted_answers import Merchant

PATIENCE = 30
PAGE = 10
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


class Site:
    """A gateway with a worker, a service whose pages the test hands out, and the commands of a shop."""

    def __init__(self, deployment: Deployment, url: str, service: PacedService, service_url: str) -> None:
        self.deployment = deployment
        self.url = url
        self.service = service
        self._service_url = service_url

    def shop(self, name: str, service_url: str | None = None) -> None:
        """A new one; its token is in the file {name}.token."""
        open_shops(self.deployment, service_url or f"{self._service_url}/{name}", [name])
        token = keys.issue_token(self.deployment.settings(), name, list(keys.SCOPES), timedelta(hours=1))
        (self.deployment.folder / f"{name}.token").write_text(token + "\n")

    def line(self, command: str, shop: str, url: str | None = None) -> str:
        """The command with its options."""
        return f"{command} --url {url or self.url} --token-file {shop}.token"


class Client:
    """A command in a process of its own, while it runs."""

    def __init__(self, deployment: Deployment, line: str) -> None:
        self._files = [deployment.folder / f"client-{os.urandom(4).hex()}.{name}" for name in ("out", "err")]
        self._popen = Forked(line.split(), deployment.environment, deployment.folder, *self._files)

    @property
    def out(self) -> str:
        """What it has printed."""
        return self._files[0].read_text()

    @property
    def err(self) -> str:
        """What it has said on standard error."""
        return self._files[1].read_text()

    def says(self, pattern: str) -> str:
        """Waits for it, on standard error."""

        def look() -> str | None:
            has_ended = self._popen.poll() is not None  # before what it says is read: it says it before it ends
            found = re.search(pattern, self.err)
            assert found or not has_ended, f"it ended without {pattern!r}: {self.out}{self.err}"
            return found[0] if found else None

        return str(within(PATIENCE, look))

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._popen.send_signal(signal.SIGINT)

    def end(self, status: int) -> str:
        """Waits for the end with this exit status; what it has printed."""
        assert self._popen.wait(PATIENCE) == status, self.out + self.err
        assert "Traceback" not in self.err
        return self.out

    def kill(self) -> None:
        """Send SIGKILL, and wait until the process has ended."""
        self._popen.kill()
        self._popen.wait()


def the_id(text: str) -> str:
    """The first id in the text."""
    found = ID.search(text)
    assert found, text
    return found[0]


def a_sync(status: str = "IN_PROGRESS", **more: Any) -> dict[str, Any]:
    """A sync as a gateway shows it."""
    counts = dict.fromkeys(("created", "updated", "unchanged", "deleted", "rejected"), 0)
    return {
        **{"id": str(UUID(int=7)), "entityType": "PRODUCT", "status": status, "queuedAt": "2026-11-23T10:00:00Z"},
        **{"startedAt": None, "finishedAt": None, "attempt": 1, "result": counts, "failure": None},
        **{"progress": {"recordsRead": 0, "recordsTotal": None, "percent": None}, "new": "member"},
        **more,
    }


def one(status: str = "IN_PROGRESS", **more: Any) -> dict[str, Any]:
    """The body that has it."""
    return {"data": a_sync(status, **more), "meta": {}}


def refusing(gateway: Merchant, *statuses: int, **headers: str) -> None:
    """Makes error bodies of a gateway out of the script's statuses."""
    for answer in gateway.answers:
        if answer.status_code in statuses:
            body = json.dumps({"error": [{"status": str(answer.status_code), "title": "No", "detail": "Not now."}]})
            answer.body = body.encode()
            answer.headers.update({"Content-Length": str(len(answer.body)), **headers})
