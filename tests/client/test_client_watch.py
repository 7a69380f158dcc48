"""Watching a sync to its end by `sync --watch`, against a real gateway with a worker."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest

from tests.support.client_site import ID, PATIENCE, Client, Site, one, refusing, the_id
from tests.support.commands import Done
from tests.support.scripted_answers import Merchant


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
    counts = "  created 60, updated 0, unchanged 0, deleted 0, rejected 0\n  Published generation 1.\n"
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
