"""sync, status, cancel and history as people and scripts use them, against a real gateway with a worker."""

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from product_gateway.auth import keys
from tests.support.commands import Done, Terminal
from tests.support.deployment import Deployment, within
from tests.support.fork_server import Forked
from tests.support.merchants import open_shops
from tests.support.paced_service import RECORDS, PacedService
from tests.support.scripted_answers import Merchant, item, page_of
from tests.support.serving import serve

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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Site]:
    """One for all tests; each has a shop of its own."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "gateway.db").write_bytes(sqlite_template.read_bytes())
    deployment = Deployment(folder, f"sqlite:///{folder / 'gateway.db'}", page_size=str(PAGE), request_attempts="1")
    service = PacedService()
    with serve(service) as service_url, deployment.serving("--with-worker") as url:
        yield Site(deployment, url, service, service_url)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Site) -> Callable[..., Done]:
    """A command to its end, in this process."""
    terminal = Terminal(monkeypatch, capsys)

    def to_its_end(line: str, status: int = 0, typed: str = "") -> Done:
        done = terminal.run(site.deployment, line, typed)
        assert done.returncode == status, done
        return done

    return to_its_end


@pytest.fixture
def start(site: Site) -> Iterator[Callable[[str], Client]]:
    """Commands in processes of their own, until the test ends."""
    clients: list[Client] = []

    def started(line: str) -> Client:
        clients.append(Client(site.deployment, line))
        return clients[-1]

    yield started
    for each in clients:
        each.kill()


def the_id(text: str) -> str:
    """The first id in the text."""
    found = ID.search(text)
    assert found, text
    return found[0]


def test_a_sync_is_asked_for_once_and_the_second_time_said_to_be_active(site: Site, run: Callable[..., Done]) -> None:
    """A script tells 0 from 3; a person reads which one is in the way and how far it is."""
    site.shop("once")
    first = run(site.line("sync PRODUCT", "once"))
    assert re.fullmatch(rf"Sync {ID.pattern} of PRODUCT is QUEUED: no record read yet\.\n", first.stdout)
    assert first.stderr == ""
    site.service.allow("once", 2)
    site_says = "It is IN_PROGRESS: 20 of 60 records, 33 %"
    second = within(PATIENCE, lambda: _if(run(site.line("sync PRODUCT", "once"), 3), site_says))
    assert second.stdout == ""
    assert the_id(first.stdout) in second.stderr
    for word in ("429 Too Many Requests", "X-Request-Id: ", "--watch follows it"):
        assert word in second.stderr
    as_json = run(site.line("sync PRODUCT --json", "once"), 3)
    assert json.loads(as_json.stdout)["error"][0]["status"] == "429"
    site.service.allow("once")


def _if(done: Done, word: str) -> Done | None:
    return done if word in done.stderr else None


def test_watching_shows_progress_as_it_moves_and_the_counts_at_the_end(
    site: Site, start: Callable[[str], Client]
) -> None:
    """In lines where there is no terminal; only the outcome is on standard output."""
    site.shop("watched")
    client = start(site.line("sync PRODUCT --watch", "watched"))
    client.says("is QUEUED: no record read yet")
    site.service.allow("watched", 2)
    client.says("is IN_PROGRESS: 20 of 60 records, 33 %")
    site.service.allow("watched", 2)
    client.says(r"is IN_PROGRESS: 40 of 60 records, 66 %, [\d,]+ records/s\.")
    assert client.out == ""
    site.service.allow("watched")
    said = client.end(0)
    counts = "  created 60, updated 0, unchanged 0, deleted 0, rejected 0\n"
    assert re.fullmatch(
        rf"Sync {ID.pattern} of PRODUCT SUCCEEDED after [\d.]+ s: 60 of 60 records, 100 %\.\n{counts}", said
    )
    assert "\x1b" not in said + client.err


def test_watching_for_programs_prints_the_gateways_bodies_a_line_each(site: Site, run: Callable[..., Done]) -> None:
    """The last one is how it ended."""
    site.shop("lines")
    site.service.allow("lines")
    done = run(site.line("sync COLLECTION --watch --json", "lines"))
    bodies = [json.loads(line)["data"] for line in done.stdout.splitlines()]
    assert len(bodies) > 1
    assert [bodies[0]["status"], bodies[-1]["status"]] == ["QUEUED", "SUCCEEDED"]
    assert len({each["id"] for each in bodies}) == 1
    assert len(set(done.stdout.splitlines())) == len(bodies)


def test_watching_follows_the_sync_that_is_active_already_and_says_so(
    site: Site, run: Callable[..., Done], start: Callable[[str], Client]
) -> None:
    """The client watches the active sync to its end, even if another client requested that sync."""
    site.shop("followed")
    active = the_id(run(site.line("sync PRODUCT", "followed")).stdout)
    client = start(site.line("sync PRODUCT --watch", "followed"))
    client.says(f"Sync {active} of PRODUCT is .* already: .* No other was asked for; this one is followed.")
    site.service.allow("followed")
    assert the_id(client.end(0)) == active
    assert len(json.loads(run(site.line("history --json", "followed")).stdout)["data"]) == 1


def test_a_sync_of_its_own_comes_after_the_active_one_where_that_is_wanted(
    site: Site, run: Callable[..., Done], start: Callable[[str], Client]
) -> None:
    """What was changed while the active one ran must be in it."""
    site.shop("waiting")
    active = the_id(run(site.line("sync PRODUCT", "waiting")).stdout)
    client = start(site.line("sync PRODUCT --watch --wait-for-active", "waiting"))
    client.says("Another will be asked for when it has ended")
    site.service.allow("waiting")
    said = client.end(0)
    assert the_id(said) != active
    assert "unchanged 60" in said
    listed = json.loads(run(site.line("history --json", "waiting")).stdout)["data"]
    assert [each["id"] for each in listed] == [the_id(said), active]


def test_a_sync_that_is_cancelled_while_it_is_watched_ends_the_watching_with_5(
    site: Site, run: Callable[..., Done], start: Callable[[str], Client]
) -> None:
    """The cancel command prints the sync that it cancelled. A second cancel finds no active sync."""
    site.shop("cancelled")
    client = start(site.line("sync PRODUCT --watch", "cancelled"))
    site.service.allow("cancelled", 1)
    client.says("10 of 60 records, 16 %")
    cancelled = run(site.line("cancel PRODUCT", "cancelled"))
    said = client.end(5)
    assert the_id(cancelled.stdout) == the_id(said)
    for each in (cancelled.stdout, said):
        assert "CANCELLED after " in each
        assert "10 of 60 records, 16 %" in each
        assert "created 10, " in each
    assert "nothing to cancel" in run(site.line("cancel PRODUCT", "cancelled"), 1).stderr
    site.service.allow("cancelled")


@pytest.mark.parametrize(("bad", "status", "ended"), [(4, 0, "SUCCEEDED"), (60, 4, "FAILED")])
def test_rejected_records_are_named_by_what_is_wrong_with_them(
    site: Site, run: Callable[..., Done], gateway: Merchant, bad: int, status: int, ended: str
) -> None:
    """Also in a sync that failed for them: with the reason, and what to mend."""
    shop = f"rejected-{bad}"
    shirts, hats = ([item(f"{name}-{n:02}") for n in range(60)] for name in ("shirt", "hat"))
    gateway.says(page_of(*shirts, *[{**each, "listPrice": "fifty"} for each in hats[:bad]]))
    site.shop(shop, gateway.url)
    done = run(site.line("sync PRODUCT --watch", shop), status)
    assert f" of PRODUCT {ended} after " in done.stdout
    assert f"rejected {bad}\n" in done.stdout
    assert ("TOO_MANY_REJECTED: " in done.stdout) is (status == 4)
    assert f"    WRONG_TYPE: {bad}\n      'hat-00' at /listPrice: listPrice is the string `fifty`; write" in done.stdout
    assert f"\n      and {bad - 3} more\n" in done.stdout
    status_said = run(site.line("status PRODUCT", shop)).stdout
    assert f"{ended} after " in status_said
    assert ("no sync has succeeded yet" in status_said) is (status == 4)
    assert ("TOO_MANY_REJECTED" in run(site.line("history", shop)).stdout) is (status == 4)


def test_a_gateway_that_is_killed_and_comes_back_does_not_end_the_watching(
    site: Site, start: Callable[[str], Client]
) -> None:
    """A deployment of the gateway is no reason to leave."""
    site.shop("killed")
    with site.deployment.process("serve", "--port", "0") as server:
        url = server.url()
        client = start(site.line("sync PRODUCT --watch", "killed", url))
        site.service.allow("killed", 1)
        client.says("10 of 60 records, 16 %")
        server.send(signal.SIGKILL)
        server.wait()
        client.says(r"The connection to 127\.0\.0\.1 was refused\. Trying again for up to 60 s\.")
    site.service.allow("killed")
    with site.deployment.process("serve", "--port", url.rpartition(":")[2]):
        assert "SUCCEEDED" in client.end(0)


def test_ctrl_c_leaves_the_sync_running_and_says_how_to_go_on(
    site: Site, run: Callable[..., Done], start: Callable[[str], Client]
) -> None:
    """The command that it prints brings the same sync, even after its end."""
    site.shop("left")
    client = start(site.line("sync PRODUCT --watch", "left"))
    client.says("is IN_PROGRESS|is QUEUED")
    client.interrupt()
    assert client.end(130) == ""
    assert "goes on. To watch it again, and to cancel it:" in client.err
    watch, cancel = (shlex.split(each) for each in client.err.splitlines()[-2:])
    assert watch[0] == cancel[0] == "product-gateway"
    assert " ".join(cancel[1:]) == site.line("cancel PRODUCT", "left")
    assert "of PRODUCT is " in run(site.line("status PRODUCT", "left")).stdout
    site.service.allow("left")
    for _ in range(2):
        assert the_id(run(" ".join(watch[1:])).stdout) == the_id(client.err)


@contextmanager
def in_a_terminal(site: Site, line: str, **more: str) -> Iterator[str]:
    """What a terminal would get, to the command's end with 0."""
    parent, child = pty.openpty()
    environment = {**site.deployment.environment, "TERM": "xterm-256color", "COLUMNS": "100", **more}
    popen = subprocess.Popen(
        [sys.executable, "-m", "product_gateway", *line.split()],
        env=environment,
        cwd=site.deployment.folder,
        stdin=child,
        stdout=child,
        stderr=child,
    )
    os.close(child)
    got = b""
    try:
        while chunk := os.read(parent, 65536):
            got += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    finally:
        os.close(parent)
    assert popen.wait(PATIENCE) == 0, got
    yield got.decode()


def test_a_terminal_gets_a_bar_in_colour_and_its_cursor_back(site: Site) -> None:
    """Who looks at it sees it move."""
    site.shop("seen")
    site.service.allow("seen")
    with in_a_terminal(site, site.line("sync PRODUCT --watch", "seen")) as said:
        assert "━" in said
        assert "60 of 60 records, 100 %" in said
        assert "\x1b[32mSUCCEEDED" in said
        assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l"), "the cursor stays hidden"


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_colour_gets_none(site: Site, setting: dict[str, str]) -> None:
    """no-color.org; and one that can do nothing but print gets lines."""
    name = f"plain-{next(iter(setting)).lower()}"
    site.shop(name)
    site.service.allow(name)
    with in_a_terminal(site, site.line("sync PRODUCT --watch", name), **setting) as said:
        assert "SUCCEEDED after" in said
        assert not re.search(r"\x1b\[[\d;]*3[0-8][\d;]*m", said)
        assert ("\x1b" in said) is ("TERM" not in setting)


def test_the_status_is_in_words_and_before_the_first_sync_that_is_said(site: Site, run: Callable[..., Done]) -> None:
    """It is no error for a person; for a program it is the server's 404."""
    site.shop("status")
    never = run(site.line("status PRODUCT", "status"))
    assert never.stdout.startswith(
        "PRODUCT: no sync has succeeded yet.\nNone was requested. Request one: product-gateway sync"
    )
    as_json = run(site.line("status PRODUCT --json", "status"), 1)
    assert json.loads(as_json.stdout)["error"][0]["status"] == "404"
    run(site.line("sync PRODUCT", "status"))
    now = run(site.line("status PRODUCT", "status")).stdout
    assert re.search(rf"UTC: Sync {ID.pattern} of PRODUCT is (QUEUED|IN_PROGRESS): no record", now)
    site.service.allow("status")
    run(site.line("sync PRODUCT --watch", "status"))
    there = run(site.line("status PRODUCT", "status")).stdout
    assert re.match(r"PRODUCT: 60 records, last updated [\d-]{10} [\d:]{8} UTC\.\n", there)
    body = json.loads(run(site.line("status PRODUCT --json", "status")).stdout)
    assert body["data"]["numRecords"] == RECORDS
    assert body["meta"]["sync"]["status"] == "SUCCEEDED"


def test_the_history_is_a_table_newest_first(site: Site, run: Callable[..., Done]) -> None:
    """Filtered, and no longer than was asked for."""
    site.shop("history")
    site.service.allow("history")
    ids = [
        the_id(run(site.line(f"sync {each} --watch", "history")).stdout)
        for each in ("PRODUCT", "COLLECTION", "PRODUCT")
    ]
    listed = run(site.line("history", "history")).stdout
    assert max(map(len, listed.splitlines())) <= 80
    assert ID.findall(listed) == ids[::-1]
    assert ID.findall(run(site.line("history --limit 2", "history")).stdout) == ids[:0:-1]
    assert ID.findall(run(site.line("history --entity-type COLLECTION", "history")).stdout) == [ids[1]]
    assert ID.findall(run(site.line("history --status FAILED", "history")).stdout) == []
    assert run(site.line("history --status FAILED --json", "history")).stdout == '{"data": [], "meta": {}}\n'


def test_what_the_gateway_refuses_is_said_with_its_title_detail_and_request_id(
    site: Site, run: Callable[..., Done]
) -> None:
    """The id is what its operator looks for."""
    site.shop("refused")
    token = site.deployment.folder / "refused.token"
    reader = keys.issue_token(site.deployment.settings(), "refused", ["sync:read"], timedelta(hours=1))
    for text, words in (("no.such.token", "401 Unauthorized: "), (reader, "403 Forbidden: The token does not carry")):
        token.write_text(text)
        done = run(site.line("sync PRODUCT", "refused"), 1)
        assert f"The gateway answered {words}" in done.stderr
        assert re.search(
            r"\(X-Request-Id: [0-9a-f-]{36}\)( The token comes from the file refused\.token\.)?\n$", done.stderr
        )
        assert done.stdout == ""
        assert text not in done.stderr
    run(f"status PRODUCT --url {site.url} --token-file -", 0, typed=reader + "\n")


def test_what_is_no_gateway_is_told_as_such(site: Site, run: Callable[..., Done], gateway: Merchant) -> None:
    """Most often the address is wrong. A 404 of anybody's is not the status of a shop that was never synced."""
    site.shop("astray")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        away = f"http://127.0.0.1:{closed.getsockname()[1]}"
    assert "was refused" in run(site.line("status PRODUCT", "astray", away), 1).stderr
    for answer in (404, {"hello": "world"}, b"<html>", {"data": {"id": "x"}}, 500):
        gateway.says(answer)
        said = run(site.line("status PRODUCT", "astray", gateway.url), 1)
        assert "but not as a product gateway does. Check the address: --url." in said.stderr
    gateway.says(301)
    gateway.answers[0].headers["Location"] = "https://elsewhere.example/\x9b2J"
    said = run(site.line("status PRODUCT", "astray", gateway.url), 1)
    assert r"leads to https://elsewhere.example/\x9b2J, which is not followed" in said.stderr


USAGE = {
    "sync PRODUCT": "--token-file",
    "sync PRODUCT --token-file missing.token": "there is no file 'missing.token'",
    "sync ORDER --token-file once.token": "ORDER",
    "sync PRODUCT --token-file once.token --url ftp://shop": "not the address of a gateway",
    "sync PRODUCT --token-file once.token --url http://u:p@shop": "not the address of a gateway",
    "sync PRODUCT --token-file once.token --idempotency-key é": "1 to 255 visible ASCII characters",
    "history --token-file once.token --limit 0": "--limit",
}


@pytest.mark.parametrize("line", USAGE)
def test_wrong_usage_ends_with_2_and_says_what_to_do(site: Site, run: Callable[..., Done], line: str) -> None:
    """Nothing is sent."""
    (site.deployment.folder / "once.token").touch()
    said = " ".join(run(line, 2).stderr.replace("│", " ").split())
    assert USAGE[line] in said


def test_the_help_tells_the_exit_statuses(run: Callable[..., Done]) -> None:
    """A script's author looks there first."""
    for command in ("sync", "status", "cancel", "history"):
        said = " ".join(run(f"{command} --help").stdout.split())
        assert "0 done, 1 refused or the gateway cannot be reached, 2 wrong usage" in said
        more = ", 3 a sync is active already, 4 the sync FAILED, 5 it was CANCELLED, 130 stopped with Ctrl-C"
        assert (more in said) is (command == "sync")


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


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\nSync done\u202e\u009b1m"


def test_no_text_of_a_gateway_can_command_the_terminal_or_make_up_a_line(
    site: Site, run: Callable[..., Done], gateway: Merchant
) -> None:
    """It comes from merchants' services, or from a gateway that is not one's own."""
    site.shop("hostile")
    failed = one("FAILED", finishedAt="2026-11-23T10:00:09Z", failure={"code": HOSTILE, "detail": HOSTILE})
    failed["data"]["result"] = {**failed["data"]["result"], "rejected": 5}
    problems = [
        {"code": HOSTILE, "count": 5, "samples": [{"recordId": HOSTILE, "pointer": HOSTILE, "message": HOSTILE}]}
    ]
    error = {"error": [{"status": "403", "title": HOSTILE, "detail": HOSTILE}]}
    listed = {"data": [failed["data"]], "meta": {"nextCursor": HOSTILE}}
    for line, status, answers in (
        ("sync PRODUCT --watch", 4, (one(), failed, {"data": problems, "meta": {}})),
        ("sync PRODUCT --watch --json", 4, (one(), failed)),
        ("history", 0, (listed,)),
        ("cancel PRODUCT", 1, (error,)),
        ("status PRODUCT --json", 1, (error,)),
    ):
        gateway.says(*answers)
        gateway.answers[0].status_code = 403 if answers[0] is error else 200
        said = run(site.line(line, "hostile", gateway.url), status)
        text = said.stdout + said.stderr
        assert text.replace("\n", "").isprintable(), line
        assert not re.search(r"^Sync done", text, re.MULTILINE)
        assert "owned" in text
    for levels, status in ((253, 0), (254, 1), (1000, 1), (5000, 1), (100_000, 1)):
        gateway.says(b'{"x":' + b"[" * levels + b"]" * levels + b"," + json.dumps(one()).encode()[1:])
        for line in ("cancel PRODUCT --json", "cancel PRODUCT"):
            said = run(site.line(line, "hostile", gateway.url), status)
            assert ("The answer nests objects and arrays more than 254 levels deep." in said.stderr) == bool(status)


def test_pages_of_the_history_are_followed_up_to_the_limit_and_never_in_a_circle(
    site: Site, run: Callable[..., Done], gateway: Merchant
) -> None:
    """A gateway may send less than it was asked for."""
    site.shop("pages")
    two = {"data": [a_sync(), a_sync()]}
    gateway.says({**two, "meta": {"nextCursor": "c1"}}, {**two, "meta": {"nextCursor": "c2"}}, {**two, "meta": {}})
    listed = json.loads(run(site.line("history --json --limit 5", "pages", gateway.url)).stdout)
    assert (len(listed["data"]), listed["meta"]) == (5, {})
    asked = [(each.query_params.get("cursor"), each.query_params["page_size"]) for each in gateway.asked]
    assert asked == [(None, "5"), ("c1", "3"), ("c2", "1")]
    gateway.says({**two, "meta": {"nextCursor": "again"}})
    run(site.line("history --limit 1000", "pages", gateway.url))
    assert len(gateway.asked) == 2


def refusing(gateway: Merchant, *statuses: int, **headers: str) -> None:
    """Makes error bodies of a gateway out of the script's statuses."""
    for answer in gateway.answers:
        if answer.status_code in statuses:
            body = json.dumps({"error": [{"status": str(answer.status_code), "title": "No", "detail": "Not now."}]})
            answer.body = body.encode()
            answer.headers.update({"Content-Length": str(len(answer.body)), **headers})


def test_a_request_is_only_made_again_where_that_is_safe(
    site: Site, run: Callable[..., Done], gateway: Merchant
) -> None:
    """An idempotency key makes a PUT safe to retry. A second DELETE could cancel a newer sync."""
    site.shop("again")
    gateway.says(503, 503, one("QUEUED"))
    refusing(gateway, 503, **{"Retry-After": "1"})
    run(site.line("sync PRODUCT", "again", gateway.url))
    assert [each.method for each in gateway.asked] == ["PUT"] * 3
    assert len({each.headers["Idempotency-Key"] for each in gateway.asked}) == 1
    gateway.says(503)
    refusing(gateway, 503)
    assert "503 No: Not now." in run(site.line("cancel PRODUCT", "again", gateway.url), 1).stderr
    assert len(gateway.asked) == 1
    gateway.says(503)
    refusing(gateway, 503, **{"Retry-After": "3600"})
    run(site.line("status PRODUCT", "again", gateway.url), 1)
    assert len(gateway.asked) == 1, "the client does not wait for an hour"


def test_watching_ends_at_a_401_at_once_and_at_an_outage_when_patience_does(
    site: Site, run: Callable[..., Done], gateway: Merchant
) -> None:
    """The first will not pass by itself; the sync goes on in both cases, and how to go on is said."""
    site.shop("ended")
    for status, least, most in ((401, 2, 2), (503, 3, 20)):
        gateway.says(one(), status)
        refusing(gateway, status)
        said = run(site.line("sync PRODUCT --watch --patience 1", "ended", gateway.url), 1).stderr
        assert least <= len(gateway.asked) <= most
        assert f"The gateway answered {status} No: Not now. (X-Request-Id: none)" in said
        assert ("Trying again for up to 1 s." in said) is (status == 503)
        assert f"Watching ended: sync {UUID(int=7)} of PRODUCT goes on. To watch it again" in said


def test_a_gateway_that_can_is_asked_to_answer_when_the_sync_ends(
    site: Site, run: Callable[..., Done], gateway: Merchant
) -> None:
    """With `Prefer: wait` (RFC 7240), the client waits for the end of the sync without polling."""
    site.shop("prefer")
    gateway.says(one(), one(), one("SUCCEEDED", finishedAt="2026-11-23T10:00:09Z"))
    gateway.answers[1].headers.update({"Preference-Applied": "wait=20", "Retry-After": "1"})
    run(site.line("sync PRODUCT --watch", "prefer", gateway.url))
    assert [each.headers.get("Prefer") for each in gateway.asked] == [None, "wait=20", "wait=20"]
