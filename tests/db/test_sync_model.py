"""The sync table and the catalog against a small model, for any sequence of operations."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, func, literal, select, update

from product_gateway.db import catalog_removal, catalog_write, claims, generations, syncs, tables, types
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import InvalidRequest, LeaseLost, NoActiveSync, SyncAlreadyActive, SyncNotFound
from product_gateway.model.catalog import Page, Record, Rejection
from product_gateway.model.syncs import Claim, EntityType, SyncStatus
from tests.support.sync_model import Model, Row

MERCHANTS = ("shop", "other")
MAX_LOST_WORKERS = 2
LEASE = 3600.0  # leases run out here when a rule says so, not when the machine is slow
EXAMPLES = int(os.environ.get("SYNC_MODEL_EXAMPLES") or 30)

merchants = st.sampled_from(MERCHANTS)
kinds = st.sampled_from(list(EntityType))
ids = st.sampled_from("abcdef")
keys = st.sampled_from([None, None, "one", "two"])


@st.composite
def pages(draw: st.DrawFn) -> Page:
    """A page of a few records, most of them good."""
    good = draw(st.dictionaries(ids, st.sampled_from(["1", "2"]), max_size=3))
    bad = draw(st.lists(st.none() | ids.filter(lambda each: each not in good), max_size=1))
    return Page(
        tuple(Record(key, value) for key, value in good.items()),
        tuple(Rejection("WRONG_TYPE", each, "/sku", "no string") for each in bad),
        draw(st.sampled_from(["next", "further", None])),
        draw(st.none() | st.integers(0, 9)),
    )


class Machine(RuleBasedStateMachine):
    """Clients, workers that live, die and come back, time that passes, and the operator."""

    database: Database
    held: Bundle[Claim] = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.database.call(empty)

    @rule(merchant=merchants, kind=kinds, key=keys)
    def enqueue(self, merchant: str, kind: EntityType, key: str | None) -> None:
        """A PUT."""
        known, active = self.model.of_key(merchant, key), self.model.active((merchant, kind))
        try:
            sync = self.database.call(enqueue, merchant, kind, key)
        except SyncAlreadyActive as refused:
            assert known is None
            assert (active and active.id) == refused.active.id  # noqa: PT017 - one of three ways that it may go
        except InvalidRequest:
            assert known is not None
            assert known.of[1] is not kind
        else:
            if known is not None:
                assert (sync.id, sync.status) == (known.id, known.status)
                return
            assert active is None
            self.model.enqueued(sync, key)
            time.sleep(0.002)  # SQLite's clock has milliseconds, and the order is part of the model

    @rule(merchant=merchants, kind=kinds)
    def cancel(self, merchant: str, kind: EntityType) -> None:
        """A DELETE."""
        active = self.model.active((merchant, kind))
        try:
            sync = self.database.call(syncs.cancel, merchant, kind)
        except NoActiveSync:
            assert active is None
        else:
            assert active is not None
            assert active.id == sync.id
            self.model.end(active, SyncStatus.CANCELLED)

    @initialize(target=held, kinds=st.permutations([(m, k) for m in MERCHANTS for k in EntityType]))
    def begin(self, kinds: list[tuple[str, EntityType]]) -> Any:
        """Hypothesis leaves out some rules in every example: without a queue, little would happen in many of them."""
        for merchant, kind in kinds[:3]:
            self.enqueue(merchant, kind, None)
        return self.claim(2, None)

    @rule(target=held, at_once=st.sampled_from([1, 2, 2]), lost=st.none() | held)
    def claim(self, at_once: int, lost: Claim | None) -> Any:
        """A worker looks for work, in some cases after another one was lost."""
        if lost is not None:
            self.expire(lost)
        claim = self.database.call(claims.claim, "tester", LEASE, MAX_LOST_WORKERS, at_once)
        run = self.model.claim(MAX_LOST_WORKERS, at_once)
        if claim is None or run is None:
            assert (claim, run) == (None, None)
            return multiple()
        assert (claim.sync_id, claim.merchant, claim.entity_type) == (run.id, *run.of)
        assert (claim.token, claim.attempt, claim.cursor) == (run.token, run.token, run.cursor)
        assert (claim.pages_read, claim.records_read, claim.rejected) == (run.pages, run.read, run.counts.rejected)
        assert claim.pull_complete == run.complete
        return claim

    @rule(claim=held)
    def expire(self, claim: Claim) -> None:
        """The worker sends no heartbeat for longer than a lease."""
        run = self.model.owner(claim)
        if run is not None:
            run.ran_out = True
            self.database.call(change, run.id, lease_expires_at=long_ago)

    @rule(claim=held)
    def heartbeat(self, claim: Claim) -> None:
        """Write as a worker does. A worker that has lost its claim changes nothing."""
        if self.write(claim, claims.heartbeat, LEASE):
            self.model.runs[claim.sync_id].ran_out = False

    @rule(claim=held, page=pages())
    def write_page(self, claim: Claim, page: Page) -> None:
        """A page of records, and the cursor behind it."""
        if self.write(claim, catalog_write.write_page, page, LEASE):
            self.model.page(self.model.runs[claim.sync_id], page)

    @rule(claim=held)
    def remove_missing(self, claim: Claim) -> None:
        """Only behind a complete pull; a worker that comes back late may believe to have one."""
        run = self.model.owner(claim)
        may = self.database.call(claims.may_remove, claim)
        assert may == (run is not None and run.complete and run.unidentified == 0)
        if run is None:
            self.write(claim, catalog_removal.remove_missing, "", 10)
        elif may:
            after: str | None = ""
            while after is not None:
                after = self.database.call(catalog_removal.remove_missing, claim, after, 2)
            self.model.remove_missing(run)

    @rule(claim=held)
    def release(self, claim: Claim) -> None:
        """A sync gives its slot to another merchant, and moves to the end of the queue."""
        if self.write(claim, claims.release):
            time.sleep(0.002)
            self.model.release(self.model.runs[claim.sync_id])
            time.sleep(0.002)

    @rule(claim=held)
    def succeed(self, claim: Claim) -> None:
        """The sync succeeds."""
        if self.write(claim, generations.succeed):
            self.model.end(self.model.runs[claim.sync_id], SyncStatus.SUCCEEDED)

    @rule(claim=held, pages=st.lists(pages(), max_size=2), last=pages())
    def pull(self, claim: Claim, pages: list[Page], last: Page) -> None:
        """Most of what a worker does in peace, in one step: so that there is a past for others to meet."""
        for each in pages:
            self.write_page(claim, each)
        self.write_page(claim, replace(last, next_cursor=None))
        self.remove_missing(claim)
        self.succeed(claim)

    @rule(claim=held)
    def fail(self, claim: Claim) -> None:
        """The sync fails."""
        if self.write(claim, claims.fail, "INVALID_PAGE", "No JSON."):
            self.model.end(self.model.runs[claim.sync_id], SyncStatus.FAILED, "INVALID_PAGE")

    @rule(claim=held)
    def hand_back(self, claim: Claim) -> None:
        """A worker that is told to stop."""
        if self.write(claim, claims.hand_back):
            run = self.model.runs[claim.sync_id]
            run.status, run.ran_out = SyncStatus.QUEUED, False

    @rule(merchant=merchants)
    def forget_seen(self, merchant: str) -> None:
        """What workers do behind a sync."""
        while self.database.call(catalog_removal.delete_seen, merchant, 3):
            pass
        self.model.forget_seen(merchant)

    @precondition(lambda self: any(not run.is_active for run in self.model.runs.values()))
    @rule(data=st.data())
    def prune(self, data: st.DataObject) -> None:
        """Some of those that ended are old by now."""
        ended = [run for run in self.model.runs.values() if not run.is_active]
        for run in data.draw(st.lists(st.sampled_from(ended), min_size=1, unique_by=lambda run: run.id)):
            run.aged = True
            self.database.call(change, run.id, finished_at=long_ago)
        gone = set(self.model.runs)
        assert self.database.call(syncs.prune, 1.0, 1000) == self.model.prune()
        for each in gone - set(self.model.runs):
            for merchant in MERCHANTS:
                with pytest.raises(SyncNotFound):
                    self.database.call(syncs.get, merchant, each)

    @invariant()
    def database_and_model_agree(self) -> None:
        """Nothing lost, nothing made up, nothing changed that had ended; every record there, and counted."""
        held, records, counted = self.database.call(everything)
        assert held == sorted(run.row() for run in self.model.runs.values())
        catalogs = {of: wanted for of, wanted in self.model.catalogs.items() if wanted}
        assert records == sorted((*of, key, value) for of in catalogs for key, value in catalogs[of].items())
        assert {of: number for of, (number, _) in counted.items() if number} == {
            of: len(catalogs[of]) for of in catalogs
        }
        assert {of for of, (_, updated_at) in counted.items() if updated_at} == set(self.model.succeeded)

    @invariant()
    def one_at_most_is_active(self) -> None:
        """Of each merchant and entity type; so of the database's too, where the two agree."""
        active = [run.of for run in self.model.runs.values() if run.is_active]
        assert len(active) == len(set(active))

    def write(self, claim: Claim, transition: Callable[..., Any], *arguments: Any) -> bool:
        """Return whether the claim is valid in the model and in the database."""
        holds = self.model.owner(claim) is not None
        with suppress(LeaseLost):
            self.database.call(transition, claim, *arguments)
            assert holds, "a lost claim wrote"
            return True
        assert not holds, "a claim that holds was refused"
        return False


long_ago = types.now(literal(-864000))


def empty(connection: Connection) -> None:
    """All tables but the merchants'."""
    for table in reversed(tables.metadata.sorted_tables):
        if table is not tables.merchants:
            connection.execute(table.delete())


def change(connection: Connection, sync_id: UUID, /, **values: Any) -> None:
    """Move the recorded times back: no function of the product does this."""
    connection.execute(update(tables.syncs).where(tables.syncs.c.id == sync_id).values(**values))


def everything(connection: Connection) -> tuple[list[Row], list[Row], dict[Any, tuple[int, Any]]]:
    """All syncs with their counts of problems and seen ids, all records, and the stored size of each catalog."""
    s, p, n = tables.syncs.c, tables.sync_problems.c, tables.seen_records.c
    problems = select(func.coalesce(func.sum(p["count"]), 0)).where(p.sync_id == s.id).scalar_subquery()
    seen = select(func.count()).where(n.sync_id == s.id).scalar_subquery()
    counts = (s.created, s.updated, s.unchanged, s.deleted, s.rejected, s.failure_code, problems, seen)
    of = (s.id, s.merchant, s.entity_type, s.idempotency_key, s.status, s.lease_token, s.lost_workers)
    pull = (s.cursor, s.pull_complete, s.unidentified, s.pages_read, s.records_read)
    r, c = tables.catalog_records.c, tables.catalog_counts.c
    records = connection.execute(select(r.merchant, r.entity_type, r.record_id, r.document))
    sizes = connection.execute(select(r.merchant, r.entity_type, func.sum(r.size)).group_by(r.merchant, r.entity_type))
    expected_bytes = {(merchant, kind): size for merchant, kind, size in sizes}
    counted_bytes = connection.execute(select(c.merchant, c.entity_type, c.num_bytes))
    assert all(size == expected_bytes.get((merchant, kind), 0) for merchant, kind, size in counted_bytes)
    counted = connection.execute(select(c.merchant, c.entity_type, c.num_records, c.updated_at))
    return (
        sorted(tuple(row) for row in connection.execute(select(*of, *pull, *counts))),
        sorted(tuple(row) for row in records),
        {(merchant, kind): (number, updated_at) for merchant, kind, number, updated_at in counted},
    )


def test_the_database_matches_the_model_for_any_sequence_of_operations(database: Database) -> None:
    """Never two active, never two owners, nothing lost, final states final, all counts right."""
    machine = type("MachineOfThisTest", (Machine,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            derandomize="SYNC_MODEL_EXAMPLES" not in os.environ,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
