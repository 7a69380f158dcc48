"""Counters that several processes share, with real processes."""

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkProcess

import pytest

from product_gateway.errors import RateLimited
from product_gateway.http.middleware.rate_limit import RateLimiter
from product_gateway.http.middleware.shared_rate_limit import SharedStorage
from product_gateway.http.shared_counters import SharedCounters

NEVER = 4e9  # a Unix time
ENDS_WITHIN = 60


def forked(work: Callable[[], object]) -> ForkProcess:
    """Run the work in a process that shares the counters."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_no_addition_of_several_processes_is_lost() -> None:
    """Each has a column of its own, so that they need no lock."""
    counters = SharedCounters(4)
    counters.add("shop", NEVER, 0, 0)

    def count(process: int) -> None:
        for _ in range(5000):
            counters.add("shop", NEVER, 1, process)

    processes = [forked(partial(count, number)) for number in range(4)]
    for each in processes:
        each.join(ENDS_WITHIN)
    assert [each.exitcode for each in processes] == [0] * 4
    assert counters.get("shop") == 20_000


def test_processes_share_a_limit_which_outlives_each_of_them() -> None:
    """A client cannot reset its count by a request that kills a process."""
    counters = SharedCounters(2)

    def limiter(process: int) -> RateLimiter:
        return RateLimiter("10/day", "merchant", storage=SharedStorage(counters, process))

    def ask_and_die() -> None:
        for _ in range(6):
            limiter(1).hit("shop")
        signal.raise_signal(signal.SIGKILL)

    killed = forked(ask_and_die)
    killed.join(ENDS_WITHIN)
    assert killed.exitcode == -signal.SIGKILL
    here = limiter(0)
    for _ in range(4):
        here.hit("shop")
    for each in (here, limiter(1)):
        with pytest.raises(RateLimited, match="has made more than 10 requests in 1 day"):
            each.hit("shop")
    here.hit("other")


def test_a_limit_holds_for_requests_at_the_same_moment() -> None:
    """But for a few: the processes take no lock, which a suspended one would hold."""
    counters, passed = SharedCounters(4), SharedCounters(4)

    def ask(process: int) -> None:
        limit = RateLimiter("1000/day", "merchant", storage=SharedStorage(counters, process))
        for _ in range(500):
            with contextlib.suppress(RateLimited):
                limit.hit("shop")
                passed.add("all", NEVER, 1, process)

    passed.add("all", NEVER, 0, 0)
    processes = [forked(partial(ask, number)) for number in range(4)]
    for each in processes:
        each.join(ENDS_WITHIN)
    assert 1000 <= passed.get("all") <= 1010


def test_a_full_set_forgets_what_expires_first() -> None:
    """Memory is bounded: names cost an attacker nothing."""
    counters, now = SharedCounters(2, most=8), time.time()
    for number in range(20):
        counters.add(str(number), now + 60 + number, 1, 0)
    assert [counters.get(str(number)) for number in range(20)] == [0] * 12 + [1] * 8
    counters.remove("19")
    assert counters.get("19") == 0
    assert counters.expiry("19") is None
    assert counters.expiry("18") == now + 78


def test_an_expired_count_is_not_counted() -> None:
    """Its place is taken first."""
    counters = SharedCounters(2, most=8)
    counters.add("shop", time.time() - 1, 5, 0)
    assert counters.get("shop") == 0
    assert counters.add("shop", NEVER, 1, 1) == 1
