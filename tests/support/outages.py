"""The behaviour of a gateway without its database, seen by clients and a load balancer, and its recovery."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2

from product_gateway.db.errors import AWAY, NOT_KNOWN
from tests.support.contract import error
from tests.support.deployment import API, within

LONGEST_ANSWER = 3.0  # seconds: 2, and one more for a busy machine
SECONDS_TO_RECOVER = 8.0  # 5, and some more for a busy machine
CROWD = 36  # more than there are threads for the database
PUT, GET = f"{API}/sync/COLLECTION", f"{API}/syncs"


def survives(caller: httpx2.Client, outage: AbstractContextManager[object], *, reads: int, detail: str = AWAY) -> None:
    """Assert that no request waits long during the outage, and that no accepted sync is lost.

    `detail` is that of the refused writes. With NOT_KNOWN, the database may have stored some of them.
    """
    accepted = caller.put(f"{API}/sync/PRODUCT")
    assert accepted.status_code == 202, accepted.text
    within(SECONDS_TO_RECOVER, lambda: is_ready(caller, 200))
    with outage:
        assert detail in refuses(caller, reads, may_be_stored=detail == NOT_KNOWN)
        within(LONGEST_ANSWER, lambda: is_ready(caller, 503))
    recovers(caller)
    sync = accepted.json()["data"]["id"]
    assert caller.get(f"{GET}/{sync}").json()["data"]["status"] == "QUEUED", "an accepted sync is lost"


def refuses(caller: httpx2.Client, reads: int, *, may_be_stored: bool) -> set[str]:
    """Send many requests at once, assert that each is answered in time, and return the details of the writes.

    A write whose commit is not confirmed in time gets 503. PostgreSQL cancels only the wait for the standby: the sync
    is stored and visible from then on. A later PUT meets it, and its 429 is true if that sync can be read.
    """
    calls: list[Callable[[], httpx2.Response]] = [
        lambda: caller.put(PUT),
        lambda: caller.get(GET),
        lambda: caller.get("/health/live"),
    ]
    with ThreadPoolExecutor(CROWD) as threads:
        answers = list(threads.map(in_time, calls * (CROWD // len(calls))))
    puts, gets, alive = answers[::3], answers[1::3], answers[2::3]
    assert [each.status_code for each in gets] == [reads] * len(gets), [each.text for each in gets]
    assert {each.status_code for each in alive} == {200}
    assert all("retry-after" in each.headers for each in (*puts, *gets) if each.status_code == 503)
    met = [each for each in puts if each.status_code == 429]
    assert may_be_stored or not met, [each.text for each in met]
    for url in {each.links["monitor"]["url"] for each in met}:
        assert caller.get(url).json()["data"]["status"] == "QUEUED"
    return {error(each, 503) for each in puts if each not in met}


def recovers(caller: httpx2.Client) -> None:
    """Assert that all requests succeed again without a restart, and keep succeeding."""
    began = time.monotonic()

    def goes() -> bool:
        put, read = caller.put(PUT), caller.get(GET)
        return put.status_code in (202, 429) and read.status_code == 200 and is_ready(caller, 200)

    within(SECONDS_TO_RECOVER, goes)
    print(f"recovered after {time.monotonic() - began:.2f} s")
    assert all(goes() for _ in range(10)), "it went once, and then it did not"


def in_time(call: Callable[[], httpx2.Response]) -> httpx2.Response:
    """Return the response; fail if it takes too long."""
    began = time.monotonic()
    answer = call()
    seconds = time.monotonic() - began
    assert seconds < LONGEST_ANSWER, f"{answer.request.method} {answer.url.path} was answered after {seconds:.1f} s"
    return answer


def is_ready(caller: httpx2.Client, status: int) -> bool:
    """Return whether readiness has this state."""
    return in_time(lambda: caller.get("/health/ready")).status_code == status


def is_quiet(log: str) -> None:
    """Assert that the log has no unexpected error. A failure shows the first, with what comes before and after."""
    for unexpected in ("Traceback", "status=500"):
        before, found, after = log.partition(unexpected)
        assert not found, before[-1000:] + found + after[:6000]


def idles(pid: int) -> None:
    """Assert that an idle process uses almost no CPU."""
    before, seconds = _seconds_of_cpu(pid), 1.5
    time.sleep(seconds)
    used = _seconds_of_cpu(pid) - before
    assert used < 0.3 * seconds, f"{used:.2f} s of CPU in {seconds} s"


def _seconds_of_cpu(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
