"""sync, status, cancel and history as people and scripts use them, against a real gateway with a worker."""

import json
import re
import socket
from collections.abc import Callable
from datetime import timedelta

import pytest

from product_gateway.auth import keys
from product_gateway.db.database import open_database
from tests.support.client_site import ID, PATIENCE, Site, a_sync, one, refusing, the_id
from tests.support.commands import Done
from tests.support.deployment import within
from tests.support.max_ages import set_back
from tests.support.paced_service import RECORDS
from tests.support.scripted_answers import Merchant, item, page_of


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
    site.deployment.run("merchant", "update", "status", "--max-age", "PRODUCT=24h")
    assert "UTC.\nFresh until 2" in run(site.line("status PRODUCT", "status")).stdout
    with open_database(site.deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]) as database:
        set_back(database, 2 * 86400)
    assert "UTC.\nStale since 2" in run(site.line("status PRODUCT", "status")).stdout
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
    "sync PRODUCT --token-file missing.token": "there is no file missing.token",
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
