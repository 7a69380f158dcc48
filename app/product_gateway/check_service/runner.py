"""Runs of the conformance kit: the order of the checks, and the command's reports and exit status."""

import asyncio
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from product_gateway import data_directory, gc_tuning
from product_gateway.check_service import auth_checks, dry_run
from product_gateway.check_service.dry_run import Catalog
from product_gateway.check_service.id_checks import ID_RULES, IdChecks
from product_gateway.check_service.list_checks import PAGE_SIZE_RULES, PAGING_RULES, ListChecks
from product_gateway.check_service.record_checks import RECORD_RULES, RecordChecks
from product_gateway.check_service.recording_client import RecordingClient, Service
from product_gateway.check_service.reports import console, files
from product_gateway.check_service.results import CheckResults, ListResults
from product_gateway.check_service.rules import RULES
from product_gateway.check_service.traversal import TRAVERSAL_RULES, ListTraversal, traverse
from product_gateway.db.database import open_database
from product_gateway.errors import SettingsError
from product_gateway.merchants import administration
from product_gateway.model.syncs import EntityType
from product_gateway.settings import Settings

FUZZ = tuple(code for code in RULES if code.startswith("fuzz-"))
SERVICE_RULES = ("reachable", "first-try", "token-kept")
UNANSWERED = ("answers-whole", "reachable")  # each further request would end in a time-out, too


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments and options of the command."""

    url: str
    token_file: Path
    only: tuple[EntityType, ...]
    max_pages: int
    examples: int
    seed: int
    merchant: str | None
    junit: Path | None
    json: Path | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to check. `max_pages` limits each traversal, `examples` the generated requests of each operation."""

    url: str
    token: str
    only: tuple[EntityType, ...] = tuple(EntityType)
    page_size: int = 250
    max_pages: int = 300
    examples: int = 40
    seed: int = 1


def overrides(allow_private_addresses: bool, page_size: int | None, timeout: float | None) -> dict[str, Any]:
    """Return the settings that the command's options set."""
    values: dict[str, Any] = {"allow_private_addresses": True} if allow_private_addresses else {}
    if page_size is not None:
        values["page_size"] = page_size
    if timeout is not None:
        values |= {"read_timeout_seconds": timeout, "request_timeout_seconds": timeout}
    return values


def execute(options: Options, settings: Settings) -> int:
    """Check the service, write the reports and return the exit status. Raise SettingsError for wrong options."""
    if options.examples and importlib.util.find_spec("schemathesis") is None:
        raise SettingsError(
            "Generated requests need Schemathesis. Install it: pip install 'product-gateway[check]', or do without "
            "them: --examples 0."
        )
    url = str(administration.validated(settings, options.url, None, None, None)["product_service_url"])
    token = administration.token_in(options.token_file)
    only = tuple(dict.fromkeys(options.only))
    plan = Plan(url, token, only, settings.page_size, options.max_pages, options.examples, options.seed)
    results = CheckResults(token, only)
    check(plan, settings, results, options.merchant)
    if options.junit is not None:
        files.write_junit(results, options.junit)
    if options.json is not None:
        files.write_json(results, options.json)
    console.show(results, results.plain(url), options.seed if options.examples else None)
    return console.status(results)


def check(plan: Plan, settings: Settings, results: CheckResults, merchant: str | None = None) -> None:
    """Run the checks in an event loop, against the catalog of `merchant` if given. Raises SettingsError.

    Ctrl-C stops the run and adds a note to the results.
    """
    gc_tuning.freeze_startup_objects()
    try:
        asyncio.run(_run_against(merchant, plan, settings, results))
    except KeyboardInterrupt:
        results.note("The run was stopped early. These are the results so far.")
        results.stopped = True


async def _run_against(merchant: str | None, plan: Plan, settings: Settings, results: CheckResults) -> None:
    if merchant is None:
        await run(plan, settings, results, Catalog())
        return
    data_directory.require(settings)
    with open_database(settings.database, may_create=False) as database:
        await run(plan, settings, results, await dry_run.catalog_of(database, merchant))


async def run(plan: Plan, settings: Settings, results: CheckResults, baseline: Catalog) -> None:
    """Check the service and add the outcomes to the results, even if the run is cancelled."""
    products: set[str] | None = None
    collections: RecordChecks | None = None
    async with RecordingClient(settings, plan.token) as recorder:
        service = Service(recorder, plan.url, plan.token, settings)
        try:
            for entity_type in plan.only:
                records = RecordChecks(of_list := ListResults(results, entity_type))
                first = await _check_list(plan, service, of_list, records, baseline)
                if entity_type is EntityType.PRODUCT and first.ended:
                    products = set(first.ids)
                if entity_type is EntityType.COLLECTION:
                    collections = records
            if collections is not None:
                collections.check_members(products)
        finally:
            auth_checks.check_exchanges(service, results)
            results.note(f"Requests made: {len(recorder.exchanges)}.")
            for entity_type in plan.only:
                results.not_reached(entity_type, "the run was stopped before", *_list_rules(entity_type))


async def _check_list(
    plan: Plan, service: Service, results: ListResults, records: RecordChecks, baseline: Catalog
) -> ListTraversal:
    first = await traverse(service, results, plan.page_size, plan.max_pages, records.add)
    records.finish()
    results.all.note(_describe(plan, results.entity_type, first))
    broken = first.broken
    if broken is not None and not first.pages:
        results.not_reached(f"the list could not be read ({broken.code})", *_list_rules(results.entity_type))
        return first
    if first.size:
        results.passed("not-empty")
    else:
        results.failed("not-empty", "The list has no records.", first.pages[0].exchange)
    await auth_checks.check(service, results)
    checks = ListChecks(service, results, first)
    if not first.size:
        codes = ("total-number", *PAGING_RULES, *PAGE_SIZE_RULES, *ID_RULES, *RECORD_RULES[results.entity_type])
        results.skipped("the list is empty", *codes)
    elif broken is not None:
        reason = f"page {len(first.pages) + 1} could not be read ({broken.code})"
        results.not_reached(reason, *TRAVERSAL_RULES, *PAGING_RULES, *PAGE_SIZE_RULES, "total-number")
    else:
        await checks.run()
    if first.size:
        await IdChecks(service, results, first).run()
    if broken is not None and broken.code in UNANSWERED:
        results.not_reached(f"page {len(first.pages) + 1} never came", "dry-run", *FUZZ)
        return first
    kept = await dry_run.run(service, results, baseline, page_size=plan.page_size, max_pages=plan.max_pages)
    if len(first.fit) > 1 and broken is None:
        checks.same_order(kept, "in the dry run")
    if plan.examples == 0:
        results.skipped("--examples is 0", *FUZZ)
    else:
        from product_gateway.check_service.fuzzing import Fuzzing  # an optional dependency

        await Fuzzing(service, results, first, plan.examples).run(plan.seed)
    return first


def _describe(plan: Plan, entity_type: EntityType, first: ListTraversal) -> str:
    what = f"{entity_type}: read {first.size} records, pages: {len(first.pages)}"
    if first.ended:
        return f"{what}, to the end."
    if first.broken is None:
        return f"{what}, NOT to the end: --max-pages is {plan.max_pages}. Later pages were not checked."
    return f"{what}, until {first.broken.code} stopped it."


def _list_rules(entity_type: EntityType) -> list[str]:
    """Return the codes of the rules that apply to a list."""
    others = (*SERVICE_RULES, "prices" if entity_type is EntityType.COLLECTION else "members-known")
    return [code for code in RULES if code not in others]
