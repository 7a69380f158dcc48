"""check-service: finds nothing in a service that keeps the contract, and every misbehaviour in one that does not."""

import time
from collections.abc import Iterator

import pytest

from product_gateway import settings
from product_gateway.check_service.dry_run import Catalog
from product_gateway.check_service.fuzzing import MAX_UNANSWERED, Fuzzing
from product_gateway.check_service.recording_client import RecordingClient, Service
from product_gateway.check_service.results import CheckResults, ListResults, Outcome, Result
from product_gateway.check_service.runner import Plan, run
from product_gateway.check_service.traversal import ListTraversal
from product_gateway.model.syncs import EntityType
from product_gateway.settings import Settings
from tests.support import hostile_service
from tests.support.hostile_service import HONEST, MISBEHAVIOURS, Hostile
from tests.support.product_service_faults.regressions import FOUND, TOKEN, HonestButForOne

PAGE_SIZE = 5
OF_A_BUSY_MACHINE = {"speed", "first-try"}  # a page may take long here for other reasons


@pytest.fixture(scope="module")
def service() -> Iterator[Hostile]:
    """One server for the whole file."""
    with hostile_service.serve(HonestButForOne) as server:
        yield server


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Small limits and little patience, as in test_hostile_service."""
    return settings.load(
        data_dir=tmp_path_factory.mktemp("impatient"),
        allow_private_addresses=True,
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
    """A run for products, with small pages and without made-up requests."""
    plan = Plan(url, TOKEN, (EntityType.PRODUCT,), page_size=PAGE_SIZE, max_pages=30, examples=0)
    results = CheckResults(TOKEN, plan.only)
    await run(plan, made, results, Catalog())
    return results


def failed(results: CheckResults) -> dict[str, Outcome]:
    """What failed, by the rule's code."""
    return {each.rule.code: each for each in results.outcomes() if each.result is Result.FAILED}


async def test_nothing_is_found_where_nothing_is_wrong(service: Hostile, impatient: Settings) -> None:
    """Else what is found with a misbehaviour would not be its doing."""
    results = await checked(service.url(HONEST), impatient)
    assert set(failed(results)) - OF_A_BUSY_MACHINE == set()


def test_every_misbehaviour_has_a_check_that_finds_it() -> None:
    """A new misbehaviour needs a line in hostile_found.FOUND."""
    assert set(FOUND) == set(MISBEHAVIOURS)


@pytest.mark.parametrize("name", MISBEHAVIOURS)
async def test_a_misbehaviour_is_found(name: str, service: Hostile, impatient: Settings) -> None:
    """By the check that is there for it; and nothing is found that is not so."""
    expected = FOUND[name].split()
    noise = OF_A_BUSY_MACHINE - {expected[0]}
    results = await checked(service.url(name), impatient)
    found = set(failed(results)) - noise
    assert expected[0] in found, f"{name} is not found by {expected[0]}, but by {sorted(found)}"
    assert found == set(expected) - noise
    assert not [each for each in results.outcomes() if each.reason.startswith("the run was stopped")]


async def test_it_waits_as_long_as_the_service_says(service: Hostile, impatient: Settings) -> None:
    """A kit that hammers a service that asks for a pause tests something else."""
    started = time.monotonic()
    results = await checked(service.url("rate-limited-once"), impatient)
    assert time.monotonic() - started >= 1, "Retry-After: 1 was not heeded"
    assert "answered 429" in failed(results)["first-try"].findings[0].seen


async def test_made_up_requests_end_soon_where_nobody_answers(impatient: Settings) -> None:
    """Each would cost a time-out."""
    results = CheckResults(TOKEN, (EntityType.PRODUCT,))
    async with RecordingClient(impatient, TOKEN) as recorder:
        nobody = Service(recorder, "http://127.0.0.1:1", TOKEN, impatient)
        of_list = ListResults(results, EntityType.PRODUCT)
        await Fuzzing(nobody, of_list, ListTraversal(PAGE_SIZE), 1000).run(1)
        assert len(recorder.exchanges) == MAX_UNANSWERED * impatient.request_attempts
    assert "fuzz-failures" in failed(results)
