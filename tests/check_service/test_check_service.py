"""check-service against an honest service and against services with one fault each."""

import time
from collections.abc import Iterator

import pytest

from product_gateway import settings
from product_gateway.check_service.fuzzing import MAX_UNANSWERED, Fuzzing
from product_gateway.check_service.recording_client import Service
from product_gateway.check_service.results import CheckResults, ListResults, Outcome, Result
from product_gateway.check_service.runner import Plan, run
from product_gateway.check_service.traversal import ListTraversal
from product_gateway.model.syncs import EntityType
from product_gateway.settings import Settings
from tests.support import hostile_service
from tests.support.hostile_service import HONEST, MISBEHAVIOURS, Hostile
from tests.support.product_service_faults.regressions import FOUND, TOKEN, HonestButForOne

PAGE_SIZE = 5
TIMING_RULES = {"speed", "first-try"}  # a busy machine breaks them, too


@pytest.fixture(scope="module")
def service() -> Iterator[Hostile]:
    """One server for all tests of this module."""
    with hostile_service.serve(HonestButForOne) as server:
        yield server


@pytest.fixture(scope="module")
def short_timeouts(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings with small limits and short timeouts."""
    return settings.load(
        data_dir=tmp_path_factory.mktemp("short_timeouts"),
        allow_private_addresses=True,
        page_size=PAGE_SIZE,
        max_page_size=PAGE_SIZE,
        max_pages=20,
        connect_timeout_seconds=1,
        read_timeout_seconds=1,
        request_timeout_seconds=1,
        request_attempts=2,
        retry_wait_seconds=0.01,
        max_page_bytes=2**18,
        max_record_bytes=10_000,
    )


async def checked(url: str, made: Settings, **more: object) -> CheckResults:
    """Check the products with small pages and without generated requests."""
    plan = Plan(url, TOKEN, (EntityType.PRODUCT,), max_pages=30, examples=0)
    results = CheckResults(TOKEN, plan.only)
    await run(plan, made, results)
    return results


def failed(results: CheckResults) -> dict[str, Outcome]:
    """Return the failed outcomes by code."""
    return {each.rule.code: each for each in results.outcomes() if each.result is Result.FAILED}


async def test_an_honest_service_has_no_findings(service: Hostile, short_timeouts: Settings) -> None:
    """Otherwise a finding would not prove that the check detects the fault."""
    results = await checked(service.url(HONEST), short_timeouts)
    assert set(failed(results)) - TIMING_RULES == set()


def test_every_misbehaviour_has_an_expected_rule() -> None:
    """A new misbehaviour needs a line in regressions.FOUND."""
    assert set(FOUND) == set(MISBEHAVIOURS)


@pytest.mark.parametrize("name", MISBEHAVIOURS)
async def test_a_misbehaviour_breaks_exactly_its_rules(name: str, service: Hostile, short_timeouts: Settings) -> None:
    """A missing finding hides a fault, and an extra one misleads the merchant."""
    expected = FOUND[name].split()
    noise = TIMING_RULES - {expected[0]}
    results = await checked(service.url(name), short_timeouts)
    found = set(failed(results)) - noise
    assert expected[0] in found, f"{name} is not found by {expected[0]}, but by {sorted(found)}"
    assert found == set(expected) - noise
    assert not [each for each in results.outcomes() if each.reason.startswith("the run was stopped")]


async def test_retry_after_is_respected(service: Hostile, short_timeouts: Settings) -> None:
    """The gateway waits too, so requests without a pause would test something else."""
    started = time.monotonic()
    results = await checked(service.url("rate-limited-once"), short_timeouts)
    assert time.monotonic() - started >= 1, "Retry-After: 1 was ignored"
    assert "answered 429" in failed(results)["first-try"].findings[0].seen


async def test_fuzzing_stops_after_a_few_unanswered_requests(short_timeouts: Settings) -> None:
    """Each of them takes a timeout."""
    results = CheckResults(TOKEN, (EntityType.PRODUCT,))
    async with Service(short_timeouts, "http://127.0.0.1:1", TOKEN) as unreachable:
        of_list = ListResults(results, EntityType.PRODUCT)
        await Fuzzing(unreachable, of_list, ListTraversal(PAGE_SIZE), 1000).run(1)
        assert len(unreachable.exchanges) == MAX_UNANSWERED * short_timeouts.request_attempts
    assert "fuzz-failures" in failed(results)
