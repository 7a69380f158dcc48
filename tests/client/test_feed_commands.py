"""changes, revert, publish and discard, against a real gateway with a worker."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from tests.support.client_site import ID, PATIENCE, Client, Site, the_id
from tests.support.commands import Done
from tests.support.deployment import within
from tests.support.scripted_answers import Merchant, item, page_of

Run = Callable[..., Done]


@pytest.fixture
def publish(site: Site, run: Run, gateway: Merchant) -> Callable[..., str]:
    """Sync the records into a shop's catalog; return the id of the sync."""

    def publish(shop: str, *records: Any, more: str = "") -> str:
        if not (site.deployment.folder / f"{shop}.token").exists():
            site.shop(shop, gateway.url)
        gateway.says(page_of(*records))
        return the_id(run(site.line(f"sync PRODUCT --watch{more}", shop)).stdout)

    return publish


def changes_in(text: str) -> list[tuple[str, str, int]]:
    """Return kind, id and generation of each line."""
    return [(each["change"], each["id"], each["generation"]) for each in map(json.loads, text.splitlines())]


def test_the_feed_goes_on_where_the_cursor_file_says(site: Site, run: Run, publish: Callable[..., str]) -> None:
    """Each line is a change as the gateway sent it."""
    publish("fed", item("a"), item("b"))
    line = site.line("changes PRODUCT --cursor-file deep/fed.json", "fed")
    first = run(line)
    assert changes_in(first.stdout) == [("CREATED", "a", 1), ("CREATED", "b", 1)]
    assert json.loads(first.stdout.splitlines()[0])["product"] == {"id": "a", "title": "Hat"}
    assert run(line).stdout == ""
    publish("fed", item("a", title="Cap"), item("c"))
    assert sorted(changes_in(run(line).stdout)) == [("CREATED", "c", 2), ("DELETED", "b", 2), ("UPDATED", "a", 2)]
    assert (site.deployment.folder / "deep/fed.json").stat().st_mode & 0o777 == 0o600
    assert len(changes_in(run(site.line("changes PRODUCT", "fed")).stdout)) == 2, "without a file it starts anew"
    [page] = run(site.line("changes PRODUCT --json", "fed")).stdout.splitlines()
    assert json.loads(page)["meta"]["hasMore"] is False


def test_a_cursor_file_that_does_not_fit_is_refused_and_kept(site: Site, run: Run, publish: Callable[..., str]) -> None:
    """A cursor of another feed could lose changes without notice."""
    publish("files", item("a"))
    publish("others", item("b"))
    file = site.deployment.folder / "c.json"
    run(site.line("changes PRODUCT --cursor-file c.json", "files"))
    stored = json.loads(file.read_text())
    for command, shop, said in (
        ("changes COLLECTION", "files", "for the entityType PRODUCT, not COLLECTION"),
        ("changes PRODUCT", "others", "for the merchant files, not others"),
    ):
        assert said in run(site.line(f"{command} --cursor-file c.json", shop), 1).stderr
    elsewhere = site.line("changes PRODUCT --cursor-file c.json", "files", site.url.replace("127.0.0.1", "localhost"))
    assert f"for the gateway {site.url}, not http://localhost" in run(elsewhere, 1).stderr
    assert json.loads(file.read_text()) == stored
    for corrupt in ("", "{}", '{"cursor": 1}', json.dumps(stored | {"cursor": ""})):
        file.write_text(corrupt)
        done = run(site.line("changes PRODUCT --cursor-file c.json", "files"), 1)
        assert "c.json holds no cursor. If you delete it, the feed starts from the beginning." in done.stderr
        assert file.read_text() == corrupt
    file.write_text(json.dumps(stored | {"cursor": "x"}))
    assert "400 Bad Request" in run(site.line("changes PRODUCT --cursor-file c.json", "files"), 1).stderr
    file.unlink()
    (site.deployment.folder / "not-a-folder").touch()
    said = run(site.line("changes PRODUCT --cursor-file not-a-folder/c.json", "files"), 1).stderr
    assert said.startswith("--cursor-file: ")


def test_following_prints_a_change_when_it_is_published_and_ends_at_ctrl_c(
    site: Site, run: Run, start: Callable[[str], Client], publish: Callable[..., str]
) -> None:
    """After Ctrl-C, the cursor file leads on."""
    publish("followed-feed", item("a"))
    line = site.line("changes PRODUCT --follow --cursor-file follow.json", "followed-feed")
    client = start(line)
    within(PATIENCE, lambda: changes_in(client.out) == [("CREATED", "a", 1)])
    publish("followed-feed", item("a"), item("b"))
    within(PATIENCE, lambda: changes_in(client.out)[1:] == [("CREATED", "b", 2)])
    client.interrupt()
    client.end(130)
    publish("followed-feed", item("b"))
    assert changes_in(run(line.replace("--follow ", "")).stdout) == [("DELETED", "a", 3)]


def test_following_survives_a_gateway_that_is_killed_and_comes_back(
    site: Site, start: Callable[[str], Client], publish: Callable[..., str]
) -> None:
    """A deployment of the gateway is no reason to end."""
    publish("outage", item("a"))
    with site.deployment.process("serve", "--port", "0") as server:
        url = server.url()
        client = start(site.line("changes PRODUCT --follow", "outage", url))
        within(PATIENCE, lambda: changes_in(client.out))
        server.send(signal.SIGKILL)
        server.wait()
        client.says(r"127\.0\.0\.1.*Trying again for up to 60 s\.")
    publish("outage", item("a"), item("b"))
    with site.deployment.process("serve", "--port", url.rpartition(":")[2]):
        within(PATIENCE, lambda: changes_in(client.out) == [("CREATED", "a", 1), ("CREATED", "b", 2)])
    client.kill()


def test_a_reader_that_leaves_ends_the_command_quietly(site: Site, publish: Callable[..., str]) -> None:
    """As in `| head -1`. The cursor of a page that was not read whole is not stored."""
    publish("piped", *(item(f"p{n}", description="x" * 4000) for n in range(100)))
    popen = subprocess.Popen(
        [
            *(sys.executable, "-m", "product_gateway"),
            *site.line("changes PRODUCT --cursor-file piped.json", "piped").split(),
        ],
        env=site.deployment.environment,
        cwd=site.deployment.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert popen.stdout
    assert b"CREATED" in popen.stdout.readline()
    popen.stdout.close()
    assert popen.wait(PATIENCE) == 1
    assert popen.stderr
    assert popen.stderr.read() == b""
    popen.stderr.close()
    assert not (site.deployment.folder / "piped.json").exists()


def test_a_cursor_that_is_too_old_says_to_start_again(site: Site, run: Run, gateway: Merchant) -> None:
    """A script tells 6 from other errors."""
    site.shop("gone")
    error = {"error": [{"status": "410", "title": "Gone", "detail": "The history starts at generation 9."}]}
    gateway.says(error)
    gateway.answers[0].status_code = 410
    done = run(site.line("changes PRODUCT --cursor-file gone.json", "gone", gateway.url), 6)
    assert done.stderr.startswith("The gateway answered 410 Gone: The history starts at generation 9.")
    assert done.stderr.endswith("To start again: empty your copy, delete gone.json, and run the command again.\n")


def test_a_feed_that_repeats_its_cursor_ends(site: Site, run: Run, gateway: Merchant) -> None:
    """A faulty gateway does not cause endless requests."""
    site.shop("circle")
    gateway.says({"data": [], "meta": {"nextCursor": "c", "hasMore": True}})
    done = run(site.line("changes PRODUCT", "circle", gateway.url), 1)
    assert "sends the same cursor again" in done.stderr
    assert len(gateway.asked) == 2


def test_a_revert_restores_the_catalog_and_can_be_watched(site: Site, run: Run, publish: Callable[..., str]) -> None:
    """It is in the history with what it reverts."""
    publish("undone", item("a"))
    second = publish("undone", item("b"))
    done = run(site.line(f"revert {second} --watch", "undone"))
    assert f"\n  Published generation 3, reverts sync {second}.\n" in done.stdout
    assert run(site.line("products", "undone")).stdout == "a  Hat\n"
    listed = run(site.line("history", "undone")).stdout
    assert max(map(len, listed.splitlines())) <= 80
    assert "; published generation 2\n" in listed
    assert f"reverts sync {second}" in " ".join(listed.split())
    unknown = run(site.line(f"revert {UUID(int=7)}", "undone"), 1)
    assert "404 Not Found" in unknown.stderr


def test_a_revert_while_a_sync_is_active_ends_with_3(site: Site, run: Run, start: Callable[[str], Client]) -> None:
    """A revert obeys the one-active rule."""
    site.shop("busy")
    site.service.allow("busy", 6)
    first = the_id(run(site.line("sync PRODUCT --watch", "busy")).stdout)
    active = the_id(run(site.line("sync PRODUCT", "busy")).stdout)
    done = run(site.line(f"revert {first}", "busy"), 3)
    assert active in done.stderr
    assert done.stderr.endswith("Revert again when it has ended.\n")
    run(site.line("cancel PRODUCT", "busy"))
    site.service.allow("busy")


def test_a_staged_result_is_reviewed_then_published_or_discarded(
    site: Site, run: Run, publish: Callable[..., str]
) -> None:
    """Readers see nothing of it before."""
    publish("reviewed", item("a"))
    staged = publish("reviewed", item("a", title="Cap"), item("b"), more=" --publish manual")
    shown = run(site.line(f"show {staged}", "reviewed")).stdout
    assert f"\n  Staged generation 2. To review it: product-gateway show {staged} --changes\n" in shown
    assert run(site.line(f"show {staged} --changes", "reviewed")).stdout == "UPDATED  a  Cap\nCREATED  b  Hat\n"
    one = run(site.line(f"show {staged} --changes --limit 1", "reviewed"))
    assert one.stdout == "UPDATED  a  Cap\n"
    assert one.stderr == "There are more. A larger --limit lists them.\n"
    assert run(site.line("products", "reviewed")).stdout == "a  Hat\n"
    assert "Published generation 2.\n" in run(site.line(f"publish {staged}", "reviewed")).stdout
    assert run(site.line("products", "reviewed")).stdout == "a  Cap\nb  Hat\n"
    again = run(site.line(f"publish {staged}", "reviewed"), 1)
    assert "412 Precondition Failed" in again.stderr
    dropped = publish("reviewed", item("a"), more=" --publish MANUAL")
    assert "Discarded generation 3.\n" in run(site.line(f"discard {dropped}", "reviewed")).stdout
    assert "412 Precondition Failed" in run(site.line(f"show {dropped} --changes", "reviewed"), 1).stderr
    assert run(site.line("products", "reviewed")).stdout == "a  Cap\nb  Hat\n"
    listed = run(site.line("history", "reviewed")).stdout
    assert ID.findall(listed)[:2] == [dropped, staged]
    assert "; discarded generation 3\n" in listed


def test_the_help_of_the_feed_tells_its_exit_statuses(run: Run) -> None:
    """A script's author looks there first."""
    said = " ".join(run("changes --help").stdout.split())
    assert "6 the history no longer reaches back to the cursor: start again" in said
