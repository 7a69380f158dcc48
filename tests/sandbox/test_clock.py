"""The sandbox's clock: what depends on time happens as soon as a client advances it."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from product_gateway.sandbox.pytest_plugin import Sandbox
from product_gateway.webhooks.dispatcher import LONGEST_WAIT
from tests.support import webhook_receivers
from tests.support.deployment import within
from tests.support.sandbox_process import started
from tests.support.webhook_receivers import Hooks

FIRST_WAIT, GIVE_UP = 5.0, 72 * 3600  # docs/webhooks.md
PATIENCE = 30


@pytest.fixture(scope="module")
def receiver() -> Iterator[Hooks]:
    """A webhook receiver that refuses each message."""
    with webhook_receivers.receiving() as found:
        yield found


@pytest.fixture(scope="module")
def sandbox(receiver: Hooks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One sandbox for all tests. Its clock only goes on."""
    folder = tmp_path_factory.mktemp("clock") / "temporary"
    folder.mkdir()
    options = (
        "--sync-seconds",
        "0",
        "--slow-seconds",
        "4",
        "--webhook",
        f"{receiver.url}/500",
        "--max-age",
        "COLLECTION=400d",
    )
    with started(folder, *options) as (_, found):
        yield found


@pytest.fixture(autouse=True)
def _no_test_leaves_an_active_sync(sandbox: Sandbox) -> Iterator[None]:
    yield
    for entity_type in ("PRODUCT", "COLLECTION"):
        sandbox.request("DELETE", f"/sync/{entity_type}")


def clock(sandbox: Sandbox, method: str = "GET", **more: Any) -> httpx2.Response:
    return httpx2.request(method, f"{sandbox.base_url}/sandbox/clock", timeout=60, **more)


def synced(sandbox: Sandbox, receiver: Hooks, entity_type: str = "PRODUCT") -> str:
    """Run a sync, and wait for the first attempt of its message. Return its Location."""
    location = sandbox.enqueue(entity_type)
    assert sandbox.wait(location)["status"] == "SUCCEEDED"
    within(PATIENCE, lambda: attempts(receiver, location) > 0)
    return location


def attempts(receiver: Hooks, sync: str) -> int:
    """Return how often the message about the sync has come."""
    bodies = [json.loads(each.body) for each in list(receiver.messages)]
    return sum(each["data"].get("id") == sync.rpartition("/")[2] for each in bodies)


def most_and_fewest() -> tuple[int, int]:
    """Return the numbers of attempts within three days, with the shortest and the longest waits."""
    found = []
    for jitter in (0.75, 1.25):
        count, at = 1, 0.0
        while (at := at + jitter * min(FIRST_WAIT * 2 ** (count - 1), LONGEST_WAIT)) <= GIVE_UP:
            count += 1
        found.append(count)
    return found[0], found[1]


def test_three_days_of_retries_pass_in_seconds(sandbox: Sandbox, receiver: Hooks) -> None:
    """All attempts come one after another, each signed, with the id of the message. Then it is given up."""
    sync = synced(sandbox, receiver)
    began = time.monotonic()
    sandbox.advance("72h")
    seconds = time.monotonic() - began
    most, fewest = most_and_fewest()
    assert fewest <= attempts(receiver, sync) <= most
    before = attempts(receiver, sync)
    sandbox.advance("72h")
    assert attempts(receiver, sync) == before
    assert seconds < 30  # 0.6 to 1.3 on a quiet machine
    print(f"{before} attempts within 72 h took {seconds:.2f} s")


def test_each_retry_comes_at_its_documented_time(sandbox: Sandbox, receiver: Hooks) -> None:
    """Each wait is twice as long as the one before, plus or minus a quarter, until it is 6 h long."""
    sync = synced(sandbox, receiver)
    longest = 2.0  # seconds since the last attempt, at most: real time counts, too
    count = 1
    while (wait := FIRST_WAIT * 2 ** (count - 1)) < LONGEST_WAIT:
        before = int(0.75 * wait - longest)
        if before > 0:
            sandbox.advance(f"{before}s")
            assert attempts(receiver, sync) == count, f"attempt {count + 1} came too early"
        after = int(1.25 * wait - max(before, 0)) + 1
        sandbox.advance(f"{after}s")
        count += 1
        assert attempts(receiver, sync) == count, f"attempt {count} did not come once within {wait * 1.25} s"
        longest = longest + max(before, 0) + after - 0.75 * wait + 1.0
    assert count == 14


def test_a_sync_whose_worker_is_silent_is_taken_over_within_a_second(sandbox: Sandbox) -> None:
    """Its lease of 30 seconds expires. A heartbeat of the worker may come first; then the lease expires again."""
    sync = sandbox.enqueue(script="slow")
    within(PATIENCE, lambda: state(sandbox, sync)["status"] == "IN_PROGRESS")
    for _ in range(3):
        sandbox.advance("31s")
        began = time.monotonic()
        while state(sandbox, sync)["attempt"] == 1 and time.monotonic() - began < 1:
            time.sleep(0.02)
        if state(sandbox, sync)["attempt"] > 1:
            break
    assert state(sandbox, sync)["attempt"] > 1
    assert sandbox.wait(sync)["status"] == "SUCCEEDED"


def state(sandbox: Sandbox, sync: str) -> dict[str, Any]:
    """Return the sync."""
    found: dict[str, Any] = sandbox.request("GET", sync).body["data"]
    return found


def test_retry_after_is_estimated_by_the_clock(sandbox: Sandbox) -> None:
    """A page that took 20 seconds longer means a longer rest."""
    sync = sandbox.enqueue(script="slow")
    within(PATIENCE, lambda: 25 <= (state(sandbox, sync)["progress"]["percent"] or 0) < 100)
    before = int(sandbox.request("PUT", "/sync/PRODUCT").headers["retry-after"])
    sandbox.advance("20s")
    refused = sandbox.request("PUT", "/sync/PRODUCT")
    assert (refused.status, int(refused.headers["retry-after"]) > before) == (429, True)
    sandbox.request("DELETE", "/sync/PRODUCT")


def test_tokens_expire_and_the_clock_gives_new_ones(sandbox: Sandbox) -> None:
    """The announced tokens are valid for a day."""
    old = dict(sandbox.tokens)
    sandbox.advance("25h")
    new = dict(sandbox.tokens)
    sandbox.tokens.update(old)
    assert sandbox.request("GET", "/syncs").status == 401
    sandbox.tokens.update(new)
    assert sandbox.request("GET", "/syncs").status == 200
    assert sandbox.request("GET", "/syncs", who="expired").status == 401


def test_old_syncs_and_their_idempotency_keys_are_pruned(sandbox: Sandbox, receiver: Hooks) -> None:
    """After the retention of 90 days. The latest sync stays."""
    url, key = f"{sandbox.api_url}/sync/PRODUCT", {"Idempotency-Key": "once"}

    def put() -> str:
        return httpx2.put(url, headers={"Authorization": f"Bearer {sandbox.tokens['byop']}", **key}).headers["Location"]

    first = put()
    sandbox.wait(first)
    latest = synced(sandbox, receiver)
    assert put() == first
    sandbox.advance("91d")
    assert sandbox.request("GET", first).status == 404
    assert sandbox.request("GET", latest).status == 200
    assert put() not in (first, latest)


def test_a_catalog_becomes_stale(sandbox: Sandbox, receiver: Hooks) -> None:
    """A message says so, once."""
    synced(sandbox, receiver, "COLLECTION")
    assert sandbox.request("GET", "/sync/COLLECTION").body["meta"]["fresh"] is True
    sandbox.advance("366d")
    sandbox.advance("35d")
    assert sandbox.request("GET", "/sync/COLLECTION").body["meta"]["fresh"] is False
    bodies = [json.loads(each.body) for each in receiver.messages]
    assert len({each["id"] for each in bodies if each["type"] == "catalog.stale"}) == 1


def test_the_clock_tells_its_time(sandbox: Sandbox) -> None:
    """GET changes nothing. The API's times are those of the clock."""
    before = clock(sandbox).json()["data"]
    sandbox.advance("1h")
    after = clock(sandbox).json()["data"]
    assert after["advancedSeconds"] - before["advancedSeconds"] == 3600
    assert clock(sandbox, "HEAD").status_code == 200
    queued = state(sandbox, sandbox.enqueue("PRODUCT"))["queuedAt"]
    assert after["now"] <= queued < clock(sandbox).json()["data"]["now"][:-1] + "~"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"advance": 72}', '{"advance": "-1h"}', '{"advance": "367d"}', '{"advance": "1w"}', "x" * 2000],
)
def test_a_wrong_body_is_refused(sandbox: Sandbox, content: str) -> None:
    """The detail shows a right one."""
    answer = clock(sandbox, "POST", content=content)
    assert (answer.status_code, answer.json()["error"][0]["status"]) == (400, "400")
    assert '{"advance": "72h"}' in answer.json()["error"][0]["detail"]
    assert clock(sandbox, "DELETE").headers["Allow"] == "GET, HEAD, POST"
