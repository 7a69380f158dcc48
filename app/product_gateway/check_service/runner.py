"""A whole run: which checks there are for a list, in which order, and what stands in the way of which."""

import asyncio
from dataclasses import dataclass

from product_gateway import data_directory, gc_tuning
from product_gateway.check_service import auth_checks
from product_gateway.check_service.dry_run import Baseline, DryRun, stock_of
from product_gateway.check_service.id_checks import OF_IDS, IdChecks
from product_gateway.check_service.list_checks import OF_PAGE_SIZES, OF_PAGING, ListChecks
from product_gateway.check_service.record_checks import OF_RECORDS, Contents
from product_gateway.check_service.recording_client import RecordingClient, Service
from product_gateway.check_service.results import CheckResults
from product_gateway.check_service.rules import RULES
from product_gateway.check_service.traversal import OF_A_READING, ListTraversal, read
from product_gateway.db.database import open_database
from product_gateway.model.syncs import EntityType
from product_gateway.settings import Settings

FUZZ = tuple(code for code in RULES if code.startswith("fuzz-"))
ONCE = ("reachable", "first-try", "token-kept")  # for the service as a whole
NOT_WHOLE = ("answers-whole", "reachable")  # what costs a time-out each time


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be checked. `max_pages` bounds each reading, `examples` the made-up requests of each operation."""

    url: str
    token: str
    only: tuple[EntityType, ...] = tuple(EntityType)
    page_size: int = 250
    max_pages: int = 300
    examples: int = 40
    seed: int = 1


async def run(plan: Plan, settings: Settings, sheet: CheckResults, stock: Baseline) -> None:
    """Checks the service; what comes out is in the sheet, also of a run that is cancelled."""
    contents: dict[EntityType, Contents] = {}
    readings: dict[EntityType, ListTraversal] = {}
    async with RecordingClient(settings, plan.token) as recorder:
        service = Service(recorder, plan.url, plan.token, settings)
        try:
            for entity_type in plan.only:
                contents[entity_type] = Contents(sheet, entity_type)
                readings[entity_type] = await _list(plan, service, sheet, entity_type, contents[entity_type], stock)
            if EntityType.COLLECTION in contents:
                contents[EntityType.COLLECTION].members_known(_ids(readings.get(EntityType.PRODUCT)))
        finally:
            auth_checks.look_back(service, sheet)
            sheet.note(f"Requests made: {len(recorder.exchanges)}.")
            for entity_type in plan.only:
                sheet.not_reached(entity_type, "the run was stopped before", *_of_lists(entity_type))


async def _list(
    plan: Plan, service: Service, sheet: CheckResults, entity_type: EntityType, contents: Contents, stock: Baseline
) -> ListTraversal:
    first = await read(service, sheet, entity_type, plan.page_size, plan.max_pages, contents.look)
    contents.finish()
    _say_how_far(plan, sheet, entity_type, first)
    broken = first.broken
    if broken is not None and not first.pages:
        sheet.not_reached(entity_type, f"the list could not be read ({broken.code})", *_of_lists(entity_type))
        return first
    if first.size:
        sheet.passed(entity_type, "not-empty")
    else:
        sheet.failed("not-empty", entity_type, "The list has no records.", first.pages[0].exchange.curl)
    await auth_checks.check(service, sheet, entity_type)
    if not first.size:
        sheet.skipped(
            entity_type,
            "the list is empty",
            "total-number",
            *OF_PAGING,
            *OF_PAGE_SIZES,
            *OF_IDS,
            *OF_RECORDS[entity_type],
        )
    elif broken is not None:
        reason = f"page {len(first.pages) + 1} could not be read ({broken.code})"
        sheet.not_reached(entity_type, reason, *OF_A_READING, *OF_PAGING, *OF_PAGE_SIZES, "total-number")
    else:
        await (checks := ListChecks(service, sheet, entity_type, first)).run()
    if first.size:
        await IdChecks(service, sheet, entity_type, first).run()
    if broken is not None and broken.code in NOT_WHOLE:
        reason = f"page {len(first.pages) + 1} never came"
        sheet.not_reached(entity_type, reason, "dry-run", *FUZZ)
        return first
    dry_run = DryRun(service, entity_type, stock, plan.page_size)
    await dry_run.run(sheet, plan.max_pages)
    if first.size and broken is None:
        _compare_order(checks, first, dry_run)
    await _fuzz(plan, service, sheet, entity_type, first)
    return first


async def _fuzz(
    plan: Plan, service: Service, sheet: CheckResults, entity_type: EntityType, first: ListTraversal
) -> None:
    if plan.examples == 0:
        sheet.skipped(entity_type, "no made-up requests were asked for (--examples 0)", *FUZZ)
        return
    from product_gateway.check_service.fuzzing import Fuzzing  # the extra is needed here and nowhere else

    await Fuzzing(service, sheet, first, entity_type, plan.examples).run(plan.seed)


def _compare_order(checks: ListChecks, first: ListTraversal, dry_run: DryRun) -> None:
    if len(first.fit) > 1:
        checks.same_order(dry_run.fit, "in the dry run")


def _say_how_far(plan: Plan, sheet: CheckResults, entity_type: EntityType, first: ListTraversal) -> None:
    what = f"{entity_type}: read {first.size} records, pages: {len(first.pages)}"
    if first.ended:
        sheet.note(f"{what}, to the end.")
    elif first.broken is None:
        sheet.note(f"{what}, NOT to the end: --max-pages is {plan.max_pages}, and what is behind was not looked at.")
    else:
        sheet.note(f"{what}, until {first.broken.code} stopped it.")


def _ids(reading: ListTraversal | None) -> set[str] | None:
    return set(reading.ids) if reading is not None and reading.ended else None


def _of_lists(entity_type: EntityType) -> list[str]:
    """The rules that there are for a list."""
    not_here = (*ONCE, "prices") if entity_type is EntityType.COLLECTION else (*ONCE, "members-known")
    return [code for code in RULES if code not in not_here]


def check(plan: Plan, settings: Settings, sheet: CheckResults, merchant: str | None = None) -> None:
    """The same as `run`, for code without an event loop, against a merchant's catalog where one is named.

    Ctrl-C ends it, with a note in the sheet. Raises SettingsError.
    """
    gc_tuning.freeze_startup_objects()
    try:
        asyncio.run(_with_stock(plan, settings, sheet, merchant))
    except KeyboardInterrupt:
        sheet.note("It was stopped before its end: this is what was found so far.")
        sheet.stopped = True


async def _with_stock(plan: Plan, settings: Settings, sheet: CheckResults, merchant: str | None) -> None:
    if merchant is None:
        await run(plan, settings, sheet, Baseline())
        return
    data_directory.require(settings)
    with open_database(settings.database, may_create=False) as database:
        await run(plan, settings, sheet, await stock_of(database, merchant))
