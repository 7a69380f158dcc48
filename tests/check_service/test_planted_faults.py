"""check-service against faults that no schema shows. Each breaks its own rule."""

from collections.abc import Iterator
from typing import Any

import pytest

from product_gateway import settings
from product_gateway.check_service.results import CheckResults, Result
from product_gateway.check_service.rules import RULES
from product_gateway.check_service.runner import Plan, run
from product_gateway.model.syncs import EntityType
from product_gateway.sample import catalog_file
from product_gateway.settings import Settings
from tests.support.faulty_service import FAULTS, TOKEN, Asked, Crooked, Honest, Told
from tests.support.product_service_faults.regressions import FOUND
from tests.support.serving import serve

# Rules that other tests break.
ELSEWHERE = {"reachable": "test_command.py", "dry-run": "test_dry_run.py"}
ODD_IDS = ["a/b", "50%2F", "größe ☃", "x y", "?", "&=+#"]
FUZZED = [name for name, (code, _) in FAULTS.items() if code.startswith("fuzz-")]


class Mixed(catalog_file.Catalog):
    """Generated records, followed by a few with odd ids."""

    def __init__(self, records: int) -> None:
        self._made = catalog_file.GeneratedCatalog(records)

    def count(self, entity_type: EntityType) -> int:
        """How many records there are."""
        return self._made.count(entity_type) + (len(ODD_IDS) if entity_type is EntityType.PRODUCT else 0)

    def record(self, entity_type: EntityType, index: int) -> dict[str, Any]:
        """The record at the index."""
        plain = self._made.count(entity_type)
        if index < plain:
            return dict(self._made.record(entity_type, index))
        return {"id": ODD_IDS[index - plain], "title": "Odd", "listPrice": 500}

    def index(self, entity_type: EntityType, record_id: str) -> int | None:
        """Where the record is."""
        if entity_type is EntityType.PRODUCT and record_id in ODD_IDS:
            return self._made.count(entity_type) + ODD_IDS.index(record_id)
        return self._made.index(entity_type, record_id)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings with timeouts for a busy machine."""
    return settings.load(
        data_dir=tmp_path_factory.mktemp("planted"),
        allow_private_addresses=True,
        page_size=60,
        max_page_size=60,
        read_timeout_seconds=3.5,
        request_attempts=2,
        retry_wait_seconds=0.01,
        max_page_bytes=3 * 2**20,
        max_record_bytes=2 * 2**20,
    )


async def failed(url: str, made: Settings, *only: EntityType, examples: int = 0) -> set[str]:
    """Return the codes of the broken rules."""
    plan = Plan(url, TOKEN, only or tuple(EntityType), examples=examples)
    results = CheckResults(TOKEN, plan.only)
    await run(plan, made, results)
    return {each.rule.code for each in results.outcomes() if each.result is Result.FAILED}


@pytest.fixture(scope="module")
def honest() -> Iterator[str]:
    """The same service without a fault."""
    with serve(Crooked(Mixed(250), None)) as url:
        yield url


async def test_the_service_without_a_fault_has_no_findings(honest: str, made: Settings) -> None:
    """Even with odd ids, several pages and generated requests."""
    assert await failed(honest, made, examples=20) - {"speed"} == set()


class WithTime(catalog_file.GeneratedCatalog):
    """Generated records that were created at one time, and updated at another."""

    times = ("", "")

    def record(self, entity_type: EntityType, index: int) -> dict[str, Any]:
        """The record at the index."""
        return super().record(entity_type, index) | dict(zip(("createdAt", "updatedAt"), self.times, strict=True))


@pytest.mark.parametrize(
    ("times", "codes"),
    [
        (("2016-12-31T23:59:60Z", "2016-12-31T24:00:00Z"), set()),
        (("2016-12-31t23:59:59z", "2016-12-31T23:59:60Z"), set()),
        (("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"), {"times"}),
        (("2016-12-31T23:59:59", "2016-12-31T23:59:60Z"), {"times"}),
        (("2016-12-31", "2016-12-31T23:59:60Z"), {"times"}),
    ],
)
async def test_times_are_read_as_a_sync_reads_them(made: Settings, times: tuple[str, str], codes: set[str]) -> None:
    """A leap second, for example, is no fault. A time without an offset is one."""
    catalog = WithTime(250)
    object.__setattr__(catalog, "times", times)
    with serve(Crooked(catalog, None)) as url:
        assert await failed(url, made, EntityType.PRODUCT) - {"speed", "first-try"} == codes


PUBLIC_ERRORS = "http://bento-gousto.com/api-docs"  # as Bento's public page writes them
PUBLIC_TYPES = {400: "invalid-request", 401: "unauthorised", 403: "forbidden"}


@pytest.mark.parametrize("content_type", ["application/problem+json", "application/json; charset=utf-8"])
@pytest.mark.parametrize("same_status", [False, True])
async def test_error_bodies_of_the_public_page_are_accepted(
    made: Settings, content_type: str, same_status: bool
) -> None:
    """The page has the string "401" as `status` of every response."""

    async def copied(self: Crooked, asked: Asked, honest: Honest) -> Told:
        told = await honest(asked)
        if told.status == 200:
            return told
        kind = f"{PUBLIC_ERRORS}/{PUBLIC_TYPES.get(told.status, 'invalid-request')}"
        status = str(told.status) if same_status else "401"
        errors = [{"title": "Invalid request", "detail": "What is wrong this time."}]
        body = {"type": kind, "title": "Something went wrong", "status": status, "errors": errors}
        return Told(told.status, body, content_type)

    with serve(Crooked(Mixed(250), copied)) as url:
        assert await failed(url, made, examples=10) - {"speed"} == set()


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_breaks_its_rule(name: str, made: Settings) -> None:
    code, _ = FAULTS[name]
    with serve(Crooked(Mixed(250), name)) as url:
        only = EntityType if code == "members-known" else [EntityType.PRODUCT]
        found = await failed(url, made, *only, examples=15 if name in FUZZED else 0)
    assert code in found, f"{name} is not found by {code}, but by {sorted(found)}"


def test_every_rule_is_broken_by_a_test() -> None:
    """A check that never fails may not check anything."""
    broken = {code for code, _ in FAULTS.values()} | {code for codes in FOUND.values() for code in codes.split()}
    assert broken | set(ELSEWHERE) == set(RULES)
