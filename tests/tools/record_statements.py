"""Record the SQL statements of this version, for the compatibility tests of later versions.

Run it by hand for a release with a new migration:

    .venv/bin/python tests/tools/record_statements.py
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import event, make_url, update

from product_gateway.db import (
    admission,
    catalog,
    catalog_removal,
    catalog_write,
    changes,
    claims,
    events,
    freshness,
    generations,
    merchants,
    migrate,
    monitor,
    readiness,
    reverts,
    sessions,
    syncs,
    tables,
    webhooks,
)
from product_gateway.db.database import Database, open_database
from product_gateway.db.enqueue import EnqueueRequest, enqueue, enqueue_many
from product_gateway.errors import LeaseLost, NotPublishable, SyncAlreadyActive
from product_gateway.model.catalog import ChangePosition, Page, Record, Rejection
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import Claim, EntityType, SyncStatus
from product_gateway.model.webhooks import Delivery
from tests.support import databases
from tests.support.released_statements import FOLDER, Statement, dumped, path, replay

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
LEASE = 600.0
DECADE = 315_360_000  # seconds: a max age that does not pass before the statements are replayed
NO_LEASE = -1.0  # expired at once, so that no test waits
SYNCS_AT_ONCE, WORKERS_LOST = 2, 5
LATER = (datetime(2999, 1, 1, tzinfo=UTC), UUID(int=0))
NOT_OF_THE_CODE = ("BEGIN", "SET LOCAL", "PRAGMA", "SELECT set_config")  # how it connects, not what it says


def live(database: Database) -> None:
    """Do everything that merchants, clients, workers and operators can do."""
    call = database.call
    call(migrate.current)
    _keep_merchants(database)
    _ask_for_syncs(database)
    _run_to_success(database)
    _end_in_other_ways(database)
    _keep_generations(database)
    _operate(database)
    for alone in (1, SYNCS_AT_ONCE):
        call(claims.has_claimable, alone)
    _check_freshness(database)
    _tell(database)
    call(syncs.unfinished)
    _read(database)
    while call(catalog_removal.delete_seen, "shop", 2):
        pass
    call(syncs.prune, 1.0, 200, 0.5)
    call(syncs.prune, -1.0, 200)
    call(webhooks.prune, -1.0, 200)
    call(merchants.remove, "other")
    call(merchants.remove, "shop")


def _keep_merchants(database: Database) -> None:
    call = database.call
    call(merchants.add, "shop", Platform.BYOP, "https://shop.example", "encrypted", "GBP", 20)
    call(merchants.add, "other", Platform.BENTO)
    call(merchants.update_merchant, "other", platform=Platform.BYOP, product_service_url="https://other.example")
    call(merchants.update_merchant, "other", disabled=True)
    call(merchants.update_merchant, "other", disabled=False, currency="EUR", max_rejected_percent=5)
    call(webhooks.put, "shop", url="https://receiver.example", secret="encrypted")
    call(webhooks.put, "shop", url="https://receiver.example/hook")
    call(webhooks.put, "other", url="https://receiver.example", secret="encrypted")
    call(admission.require_active, "shop")
    call(merchants.list_all)


def _ask_for_syncs(database: Database) -> None:
    call = database.call
    call(enqueue, "shop", PRODUCT)
    with contextlib.suppress(SyncAlreadyActive):
        call(enqueue, "shop", PRODUCT)
    call(enqueue, "shop", COLLECTION, "a key")
    call(enqueue, "shop", COLLECTION, "a key")
    call(syncs.cancel, "shop", COLLECTION)
    call(enqueue, "other", PRODUCT)
    call(syncs.cancel, "other", PRODUCT)


def _run_to_success(database: Database) -> None:
    call = database.call
    for first, last in ((0, 30), (20, 33)):  # the second one removes most of it
        claim = claimed(database, PRODUCT)
        call(claims.heartbeat, claim, LEASE)
        for start in range(first, last, 10):
            call(catalog_write.write_page, claim, page(start, min(10, last - start), start + 10 >= last), LEASE)
        call(claims.may_remove, claim)
        call(catalog_removal.missing, claim, 1001)
        call(catalog_removal.count_missing, claim)
        call(catalog_removal.allow_mass_deletion, "shop", PRODUCT)
        after: str | None = ""
        while after is not None:
            after = call(catalog_removal.remove_missing, claim, after, 10)
        call(generations.succeed, claim)


def _end_in_other_ways(database: Database) -> None:
    call = database.call
    claim = claimed(database, COLLECTION)
    record = Record("c1", '{"id": "c1"}', ("p000020", "p000021", "gone"))
    call(catalog_write.write_page, claim, Page((record,), (), None, 1), LEASE)
    call(claims.hand_back, claim)
    call(generations.succeed, claimed(database, COLLECTION))
    call(claims.fail, claimed(database, COLLECTION), "PRODUCT_SERVICE_UNREACHABLE", "No answer.")
    lost = claimed(database, PRODUCT, NO_LEASE)
    found = claimed(database, PRODUCT)
    with contextlib.suppress(LeaseLost):
        call(claims.heartbeat, lost, LEASE)
    call(syncs.cancel, "shop", PRODUCT)
    with contextlib.suppress(LeaseLost):
        call(generations.succeed, found)
    claimed(database, PRODUCT, NO_LEASE)
    call(claims.claim, "worker", LEASE, 1, SYNCS_AT_ONCE)  # gives it up: WORKER_LOST
    call(enqueue, "shop", PRODUCT)
    call(claims.claim, "worker", LEASE, WORKERS_LOST, 1)  # where a merchant's syncs run one after the other


def _check_freshness(database: Database) -> None:
    call = database.call
    call(freshness.put, "shop", {PRODUCT: DECADE, COLLECTION: DECADE})
    call(freshness.put, "shop", {PRODUCT: DECADE + 1})
    call(freshness.of_merchant, "shop")
    call(freshness.of_all)
    ages = tables.max_ages
    aged = update(ages).where(ages.c.merchant == "shop", ages.c.entity_type == COLLECTION)
    earlier = datetime(1990, 1, 1, tzinfo=UTC)  # before the recorded time of a check, whenever this is run again
    call(lambda connection: connection.execute(aged.values(since=earlier, stale_after=earlier)))
    call(freshness.has_due)
    call(freshness.mark, 200)
    call(freshness.count_stale)
    call(freshness.stale, 8)
    call(freshness.put, "shop", {PRODUCT: None})


def _keep_generations(database: Database) -> None:
    call = database.call
    call(syncs.cancel, "shop", PRODUCT)
    found = call(generations.left_behind)
    for key in found:
        while not call(generations.roll_back, *key, 10):
            pass
    for start, end in ((25, generations.publish), (26, generations.discard), (27, generations.publish)):
        claim = _stage(database, start)
        call(catalog.page, "shop", PRODUCT, "p000021", 5)
        call(changes.of_sync, "shop", claim.sync_id, None, 5)
        with contextlib.suppress(NotPublishable):
            call(end, "shop", claim.sync_id)
    call(reverts.request, "shop", claim.sync_id)
    claim = claimed(database, PRODUCT)
    after: str | None = ""
    while after is not None and claim.restores is not None:
        after = call(reverts.restore, claim, claim.restores, after, LEASE, 5)
    call(generations.succeed, claim)
    for since in (0, 1):
        read = call(changes.since, "shop", PRODUCT, ChangePosition(since), 5)
        call(changes.since, "shop", PRODUCT, read.place, 5)
    call(changes.published, [("shop", PRODUCT), ("other", COLLECTION)])
    call(catalog.page, "shop", PRODUCT, "p000021", 5, 1)
    while call(generations.prune, -1.0, 10):
        pass


def _stage(database: Database, start: int) -> Claim:
    call = database.call
    call(enqueue_many, [EnqueueRequest("shop", PRODUCT, publish="MANUAL")])
    claim = claimed(database, PRODUCT)
    earlier = call(generations.unpublished_by_another, claim)
    while earlier and not call(generations.prepare, claim, earlier, LEASE, 10):
        pass
    call(catalog_write.write_page, claim, page(start, 10, last=True), LEASE)
    call(catalog_removal.any_seen, claim)
    call(catalog_removal.remove, claim, ["p000020"])
    call(claims.record_not_removed, claim, 1)
    call(generations.succeed, claim)
    return claim


def _operate(database: Database) -> None:
    call = database.call
    for start, end in ((28, monitor.discard), (29, monitor.publish)):
        staged = _stage(database, start)
        call(end, "shop", staged.sync_id, "the office")
    call(monitor.revert, "shop", staged.sync_id, "the office")
    call(syncs.cancel, "shop", PRODUCT)
    again = call(monitor.run_again, "shop", staged.sync_id)
    call(monitor.allow_mass_deletion, "shop", again.id, "the office")
    call(claims.demand, -60.0, 5)  # whenever the syncs were queued
    call(claims.release, claimed(database, PRODUCT))
    call(monitor.overview)
    call(monitor.cancel, "shop", again.id, "the office")
    call(monitor.sync_detail, "shop", staged.sync_id)
    for merchant in (None, "shop"):
        for entity_type, status, before in ((None, None, None), (PRODUCT, SyncStatus.FAILED, LATER)):
            call(monitor.recent, merchant, entity_type, status, before, 5)
    call(readiness.check_writable)
    call(sessions.end, "a session", LATER[0])
    call(sessions.has_ended, "a session")


def _tell(database: Database) -> None:
    call = database.call
    call(webhooks.has_due, ("other",))
    outcomes: tuple[Callable[[Delivery], bool], ...] = (
        lambda delivery: call(webhooks.succeed, delivery, 200),
        lambda delivery: call(webhooks.retry, delivery, 500, "No.", 60.0),
        lambda delivery: call(webhooks.give_up, delivery, None, "No answer."),
        lambda delivery: call(webhooks.disable_gone, delivery, "https://receiver.example/hook", 410, "Gone."),
    )
    for record_outcome in outcomes:
        found = call(webhooks.claim, LEASE, ("other",))
        assert found is not None
        record_outcome(found[0])
    call(webhooks.pending)
    call(webhooks.latest, "shop", 5)
    call(webhooks.remove, "other")


def _read(database: Database) -> None:
    call = database.call
    for entity_type in EntityType:
        call(catalog.state_and_latest_sync, "shop", entity_type)
        call(catalog.page, "shop", entity_type, "", 5)
        call(catalog.page, "shop", entity_type, "p000021", 5)
    call(catalog.states, [("shop", PRODUCT), ("other", COLLECTION)])
    call(catalog.get, "shop", PRODUCT, "p000021")
    call(catalog.find, "shop", PRODUCT, ["p000021", "p000022"])
    call(catalog.sizes, "shop")
    call(catalog.collection, "shop", "c1", "", 2)
    history, _ = call(syncs.history, "shop", None, None, None, 100)
    call(syncs.history, "shop", PRODUCT, SyncStatus.SUCCEEDED, LATER, 1)
    keys = [(each.merchant, each.id) for each in history]
    call(syncs.get_many, keys)
    call(syncs.ended_among, keys[:1], keys[1:])
    for sync in history:
        call(syncs.get, "shop", sync.id)
        call(syncs.problems, "shop", sync.id)
        call(events.of_sync, "shop", sync.id)
        call(webhooks.of_sync, "shop", sync.id)


def claimed(database: Database, entity_type: EntityType, lease: float = LEASE) -> Claim:
    """Claim the merchant's active sync of that type, or a new one."""
    with contextlib.suppress(SyncAlreadyActive):
        database.call(enqueue, "shop", entity_type)
    claim = database.call(claims.claim, "worker", lease, WORKERS_LOST, SYNCS_AT_ONCE)
    assert claim is not None
    return claim


def page(start: int, size: int, last: bool) -> Page:
    """Write a page with two rejected records."""
    records = tuple(Record(f"p{n:06d}", f'{{"id": "p{n:06d}", "of": {start}}}') for n in range(start, start + size))
    rejections = (Rejection("INVALID", None, "/id", "no id"), Rejection("INVALID", f"x{start}", "/title", "no title"))
    return Page(records, rejections, None if last else str(start), 30)


def said(database: Database) -> Iterator[Statement]:
    """Return the statements that `live` executes."""
    found: list[Statement] = []

    def note(_connection: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, many: bool) -> None:
        if not sql.startswith(NOT_OF_THE_CODE):
            found.append(Statement(sql, list(parameters) if many else [parameters], 0))

    event.listen(database.engine, "before_cursor_execute", note)
    live(database)
    event.remove(database.engine, "before_cursor_execute", note)
    yield from found


def record(dialect: str, living: str, fresh: str) -> None:
    """Count the rows in a second database, without pauses between the statements."""
    with open_database(living) as database:
        database.call(migrate.upgrade)
        statements = list(said(database))
    with open_database(fresh) as database:
        database.call(migrate.upgrade)
        counted = database.call(replay, statements)
    file = path(migrate.newest(), dialect)
    file.write_text("".join(map(dumped, counted)))
    nothing = sum(each.rows == 0 for each in counted)
    print(f"{file.name}: {len(counted)} statements, {nothing} of them about no row")


def main() -> None:
    """Record both databases."""
    FOLDER.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp())
    try:
        record("sqlite", f"sqlite:///{folder / 'living.db'}", f"sqlite:///{folder / 'fresh.db'}")
        with databases.postgresql() as server:
            for name in ("living", "fresh"):
                databases.run(server, f"CREATE DATABASE {name}")
            living, fresh = (make_url(server).set(database=name) for name in ("living", "fresh"))
            record("postgresql", *(each.render_as_string(hide_password=False) for each in (living, fresh)))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
