"""Runs of the conformance kit: the order of the checks, and the command's reports and exit status."""

import asyncio
import contextlib
import importlib.util
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from product_gateway import data_directory, gc_tuning
from product_gateway.check_service import auth_checks, dry_run
from product_gateway.check_service.dry_run import Catalog
from product_gateway.check_service.list_checks import ListChecks
from product_gateway.check_service.record_checks import RecordChecks
from product_gateway.check_service.recording_client import ALLOW_PRIVATE_ADDRESSES, Service
from product_gateway.check_service.reports import console, files
from product_gateway.check_service.results import CheckResults, ListResults, Result
from product_gateway.check_service.rules import RULES
from product_gateway.check_service.traversal import ListTraversal, traverse
from product_gateway.db.database import open_database
from product_gateway.errors import SettingsError
from product_gateway.merchants import administration
from product_gateway.model.syncs import EntityType
from product_gateway.settings import Settings

FUZZ = tuple(code for code in RULES if code.startswith("fuzz-"))
LATER = ("members-known", "dry-run", *FUZZ)  # rules that are checked last, or not with the list alone
SERVICE_RULES = ("reachable", "first-try", "token-kept")
UNANSWERED = ("answers-whole", "reachable")  # each further request would end in a time-out, too


@dataclass(frozen=True, slots=True)
class Plan:
    """What to check. `max_pages` limits each traversal, `examples` the generated requests of each operation.

    The dry run compares with the catalog of `merchant`; without it, with an empty one.
    """

    url: str
    token: str
    only: tuple[EntityType, ...] = tuple(EntityType)
    max_pages: int = 300
    examples: int = 40
    seed: int = 1
    merchant: str | None = None


def execute(plan: Plan, settings: Settings, junit: Path | None, json: Path | None) -> int:
    """Check the service, write the reports and return the exit status. Raise SettingsError for wrong options."""
    if plan.examples and importlib.util.find_spec("schemathesis") is None:
        raise SettingsError(
            "Generated requests need Schemathesis. Install it: pip install 'product-gateway[check]', or do without "
            "them: --examples 0."
        )
    url = administration.checked_url(settings, plan.url, ALLOW_PRIVATE_ADDRESSES)
    results = check(replace(plan, url=url), settings)
    if junit is not None:
        files.write_junit(results, junit)
    if json is not None:
        files.write_json(results, json)
    console.show(results, results.plain(url), plan.seed if plan.examples else None)
    return console.status(results)


def check(plan: Plan, settings: Settings) -> CheckResults:
    """Run the checks in an event loop. Ctrl-C stops them and adds a note to the results. Raises SettingsError."""
    gc_tuning.freeze_startup_objects()
    results = CheckResults(plan.token, plan.only)
    try:
        asyncio.run(run(plan, settings, results))
    except KeyboardInterrupt:
        results.note("The run was stopped early. These are the results so far.")
        results.stopped = True
    return results


async def run(plan: Plan, settings: Settings, results: CheckResults) -> None:
    """Check the service and add the outcomes to the results, even if the run is cancelled. Raises SettingsError."""
    products: set[str] | None = None
    collections: RecordChecks | None = None
    async with contextlib.AsyncExitStack() as stack:
        baseline = Catalog()
        if plan.merchant is not None:
            data_directory.require(settings)
            database = stack.enter_context(open_database(settings.database, may_create=False))
            baseline = dry_run.catalog_of(database, plan.merchant)
        service = await stack.enter_async_context(Service(settings, plan.url, plan.token))
        try:
            for entity_type in plan.only:
                records = RecordChecks(of_list := ListResults(results, entity_type))
                first = await _check_list(plan, service, of_list, records, baseline)
                if not service.is_reachable:
                    break
                if entity_type is EntityType.PRODUCT and first.ended:
                    products = set(first.ids)
                if entity_type is EntityType.COLLECTION:
                    collections = records
            if collections is not None:
                collections.check_members(products)
        finally:
            auth_checks.check_exchanges(service, results)
            results.note(f"Requests made: {len(service.exchanges)}.")
            silent = service.exchanges and not service.is_reachable
            reason = "the service could not be reached" if silent else "the run was stopped before"
            for entity_type in plan.only:
                of_list = ListResults(results, entity_type)
                of_list.not_checked(reason, *_rules(of_list), result=Result.NOT_REACHED)


async def _check_list(
    plan: Plan, service: Service, results: ListResults, records: RecordChecks, baseline: Catalog
) -> ListTraversal:
    first = await traverse(service, results, service.settings.page_size, plan.max_pages, records.add)
    records.finish()
    broken = first.broken
    if not service.is_reachable:
        return first
    end = f"NOT to the end: --max-pages is {plan.max_pages}. Later pages were not checked."
    if first.ended:
        end = "to the end."
    elif broken is not None:
        end = f"until {broken.code} stopped it."
    results.all.note(f"{results.subject}: read {first.size} records, pages: {len(first.pages)}, {end}")
    if broken is not None and not first.pages:
        reason = f"the list could not be read ({broken.code})"
        results.not_checked(reason, *_rules(results), result=Result.NOT_REACHED)
        return first
    if first.size:
        results.passed("not-empty")
    else:
        results.failed("not-empty", "The list has no records.", first.pages[0].exchange)
    await auth_checks.check(service, results)
    checks = ListChecks(service, results, first)
    if first.size and broken is None:
        await checks.run()
    if first.size:
        await checks.run_by_id()
    if not first.size:
        results.not_checked("the list is empty", *_rules(results, but=LATER))
    elif broken is not None:
        reason = f"page {len(first.pages) + 1} could not be read ({broken.code})"
        results.not_checked(reason, *_rules(results, but=LATER), result=Result.NOT_REACHED)
    if broken is not None and broken.code in UNANSWERED:
        results.not_checked(f"page {len(first.pages) + 1} never came", "dry-run", *FUZZ, result=Result.NOT_REACHED)
        return first
    kept = await dry_run.run(service, results, baseline, max_pages=plan.max_pages)
    if len(first.fit) > 1 and broken is None:
        checks.same_order(kept, "in the dry run")
    if plan.examples == 0:
        results.not_checked("--examples is 0", *FUZZ)
    else:
        from product_gateway.check_service.fuzzing import Fuzzing  # an optional dependency

        await Fuzzing(service, results, first, plan.examples).run(plan.seed)
    return first


def _rules(results: ListResults, but: Collection[str] = ()) -> list[str]:
    """Return the codes of the rules that apply to the list, but for some."""
    others = (*SERVICE_RULES, "prices" if results.subject is EntityType.COLLECTION else "members-known", *but)
    return [code for code in RULES if code not in others]
