"""The sync table and the generations of the catalog against a small model, for any sequence of operations."""

import os
import time
from collections.abc import Callable, Sequence
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

from product_gateway.db import (
    catalog,
    catalog_removal,
    catalog_write,
    changes,
    claims,
    generations,
    reverts,
    syncs,
    tables,
    types,
)
from product_gateway.db.database import Database
from product_gateway.db.enqueue import EnqueueRequest, enqueue_many
from product_gateway.errors import (
    GenerationGone,
    InvalidRequest,
    LeaseLost,
    NoActiveSync,
    NotPublishable,
    PullFailed,
    SyncAlreadyActive,
    SyncNotFound,
)
from product_gateway.model.catalog import Change, ChangeKind, ChangePosition, Page, Record, Rejection
from product_gateway.model.syncs import Claim, EntityType, Publication, Sync, SyncStatus
from tests.support.sync_model import Contents, Kind, Model, Row, Run

MERCHANTS = ("shop", "other")
MAX_LOST_WORKERS = 2
LEASE = 3600.0  # leases run out here when a rule says so, not when the machine is slow
EXAMPLES = int(os.environ.get("SYNC_MODEL_EXAMPLES") or 30)

merchants = st.sampled_from(MERCHANTS)
kinds = st.sampled_from(list(EntityType))
ids = st.sampled_from("abcdef")
keys = st.sampled_from([None, None, "one", "two"])
limits = st.integers(1, 4)


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
        self.replicas: dict[Kind, tuple[ChangePosition, dict[str, str]]] = {}
        self.lists: dict[Kind, tuple[int, str, dict[str, str]]] = {}
        self.database.call(empty)

    @rule(merchant=merchants, kind=kinds, key=keys, publish=st.sampled_from(["AUTOMATIC", "AUTOMATIC", "MANUAL"]))
    def enqueue(self, merchant: str, kind: EntityType, key: str | None, publish: str) -> None:
        """A PUT."""
        known, active = self.model.of_key(merchant, key), self.model.active((merchant, kind))
        [sync] = self.database.call(enqueue_many, [EnqueueRequest(merchant, kind, key, publish=publish)])
        if isinstance(sync, SyncAlreadyActive):
            assert known is None
            assert (active and active.id) == sync.active.id
        elif isinstance(sync, InvalidRequest):
            assert known is not None
            assert known.of[1] is not kind
        else:
            assert isinstance(sync, Sync)
            if known is not None:
                assert (sync.id, sync.status) == (known.id, known.status)
                return
            assert active is None
            self.model.enqueued(sync, key, is_manual=publish == "MANUAL")
            time.sleep(0.002)  # SQLite's clock has milliseconds, and the order is part of the model

    @precondition(lambda self: self.model.runs)
    @rule(data=st.data())
    def revert(self, data: st.DataObject) -> None:
        """A client undoes a sync."""
        run = self.any_run(data)
        active, kept = self.model.active(run.of), self.model.catalog(run.of)
        may = run.publication is Publication.PUBLISHED and run.generation is not None
        gone = may and run.generation not in (1, None) and not kept.is_kept(run.generation - 1)
        try:
            sync = self.database.call(reverts.request, run.of[0], run.id)
        except NotPublishable:
            assert not may
        except GenerationGone:
            assert gone
        except SyncAlreadyActive:
            assert may
            assert active
        else:
            assert may
            assert not gone
            assert not active
            assert run.generation is not None
            made = self.model.enqueued(sync, None)
            made.reverts, made.restores = run.id, run.generation - 1
            time.sleep(0.002)

    @precondition(lambda self: self.model.runs)
    @rule(data=st.data(), publish=st.booleans())
    def end_review(self, data: st.DataObject, publish: bool) -> None:
        """A client publishes or discards what a sync has staged."""
        run = self.any_run(data)
        staged = run.publication is Publication.STAGED
        end = generations.publish if publish else generations.discard
        may = self.model.may_publish(run) if publish else staged
        try:
            sync = self.database.call(end, run.of[0], run.id)
        except NotPublishable:
            assert not may
        else:
            assert may
            if publish:
                self.model.publish(run)
            else:
                run.publication = Publication.DISCARDED
            assert sync.publication is run.publication

    @rule(merchant=merchants, kind=kinds, steps=limits, limit=limits)
    def roll_back(self, merchant: str, kind: EntityType, steps: int, limit: int) -> None:
        """What the worker does in the background with what syncs have left behind."""
        left = self.database.call(generations.left_behind)
        assert set(left) == self.model.left_behind()
        for key in left:
            if key[:2] == (merchant, kind):
                for _ in range(steps):
                    done = self.database.call(generations.roll_back, *key, limit)
                    known = self.model.catalog(key[:2])
                    assert done == (known.unpublished is None or known.roll_back(limit))

    @rule(merchant=merchants, kind=kinds, data=st.data(), steps=limits, limit=limits)
    def prune_history(self, merchant: str, kind: EntityType, data: st.DataObject, steps: int, limit: int) -> None:
        """Time passes, and the worker prunes some of what is too old."""
        known = self.model.catalog((merchant, kind))
        known.aged = max(known.aged, data.draw(st.integers(0, known.published)))
        self.database.call(age, merchant, kind, known.aged)
        more = True
        for _ in range(steps):
            more = more and self.database.call(generations.prune, 1.0, limit)
        kept = self.database.call(oldest)
        for of, each in self.model.catalogs.items():
            assert each.oldest <= kept.get(of, 0) <= each.aged
            each.oldest = kept.get(of, 0)
            assert more or each.oldest == each.aged

    @rule(merchant=merchants, kind=kinds, limit=limits)
    def follow(self, merchant: str, kind: EntityType, limit: int) -> None:
        """A replica reads the next page of the feed. At the end of a window it has one generation, whole."""
        of, known = (merchant, kind), self.model.catalog((merchant, kind))
        place, replica = self.replicas.get(of, (ChangePosition(0), {}))
        wanted = {place.since, known.published if place.until is None else place.until} - {0}
        try:
            read = self.database.call(changes.since, merchant, kind, place, limit)
        except GenerationGone:
            assert not all(known.is_kept(each) for each in wanted)
            self.replicas.pop(of)
            return
        assert all(known.is_kept(each) for each in wanted)
        apply(replica, read.changes)
        self.replicas[of] = (read.place, replica)
        assert read.is_newest == (read.until == known.published)
        if read.is_last:
            assert replica == documents(known.generations[read.until])

    @rule(merchant=merchants, kind=kinds, limit=limits)
    def read_on(self, merchant: str, kind: EntityType, limit: int) -> None:
        """A client reads the next page of a list. The whole list is of the generation of its first page."""
        of, known = (merchant, kind), self.model.catalog((merchant, kind))
        generation, after, found = self.lists.pop(of, (known.published, "", {}))
        try:
            read = self.database.call(catalog.page, merchant, kind, after, limit, generation if after else None)
        except GenerationGone:
            assert not known.is_kept(generation)
            return
        assert read.generation == generation
        assert known.is_kept(generation)
        found |= {each.id: each.document for each in read.records}
        if read.next_after is None:
            assert list(found.items()) == sorted(documents(known.generations[generation]).items())
        else:
            self.lists[of] = (generation, read.next_after, found)

    @rule(merchant=merchants, kind=kinds, data=st.data(), limit=limits)
    def compare_generations(self, merchant: str, kind: EntityType, data: st.DataObject, limit: int) -> None:
        """The feed from any generation leads that catalog to the present one, by net changes."""
        known = self.model.catalog((merchant, kind))
        start = data.draw(st.integers(0, known.published))
        place, found = ChangePosition(start), list[Change]()
        try:
            while place.since != known.published or place.until is not None or not found:
                read = self.database.call(changes.since, merchant, kind, place, limit)
                found += read.changes
                place = read.place
                if read.is_last:
                    break
        except GenerationGone:
            assert start
            assert not known.is_kept(start)
            return
        assert not start or known.is_kept(start)
        assert place == ChangePosition(known.published)
        check_changes(found, known.generations[start], known.shown)

    @precondition(lambda self: self.model.runs)
    @rule(data=st.data())
    def review(self, data: st.DataObject) -> None:
        """The changes of one sync."""
        run = self.any_run(data)
        known = self.model.catalog(run.of)
        shows = run.generation is not None and run.publication is not Publication.DISCARDED
        try:
            _, read = self.database.call(changes.of_sync, run.of[0], run.id, None, 100)
        except NotPublishable:
            assert not shows
        except GenerationGone:
            assert run.generation is not None
            assert not all(known.is_kept(each) for each in {run.generation, run.generation - 1} - {0})
        else:
            assert shows
            assert run.generation is not None
            later = [*known.generations, known.working][run.generation]
            check_changes(list(read.changes), known.generations[run.generation - 1], later)

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
            self.enqueue(merchant, kind, None, "AUTOMATIC")
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
        assert (claim.pull_complete, claim.is_staged, claim.restores) == (run.complete, run.is_manual, run.restores)
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

    @rule(claim=held, steps=limits, limit=limits)
    def prepare(self, claim: Claim, steps: int, limit: int) -> None:
        """The first steps of a worker: roll back what another sync has left unpublished."""
        for _ in range(steps):
            self.prepare_once(claim, limit)

    def prepare_once(self, claim: Claim, limit: int) -> bool:
        """Return whether the claim may write. A lost one may believe so, and be refused."""
        run = self.model.owner(claim)
        earlier = self.database.call(generations.unpublished_by_another, claim)
        unpublished = self.model.catalog((claim.merchant, claim.entity_type)).unpublished
        assert earlier == (None if unpublished == claim.sync_id else unpublished)
        if earlier is None:
            return True
        try:
            done = self.database.call(generations.prepare, claim, earlier, LEASE, limit)
        except LeaseLost:
            assert run is None
            return True
        assert run is not None
        assert done == self.model.prepare(run, limit)
        return bool(done)

    @rule(claim=held, page=pages())
    def write_page(self, claim: Claim, page: Page) -> None:
        """A page of records, and the cursor behind it; or a step of a revert."""
        while not self.prepare_once(claim, 3):
            pass
        if claim.restores is not None:
            self.restore(claim, 1 + len(page.records))
        elif self.write(claim, catalog_write.write_page, page, LEASE):
            self.model.page(self.model.runs[claim.sync_id], page)

    def restore(self, claim: Claim, limit: int) -> bool:
        """A step of a revert. Return whether it was the last."""
        assert claim.restores is not None
        run = self.model.owner(claim)
        after = (run.cursor if run else claim.cursor) or ""
        known = self.model.catalog((claim.merchant, claim.entity_type))
        gone = claim.restores > 0 and not known.is_kept(claim.restores)
        try:
            place = self.database.call(reverts.restore, claim, claim.restores, after, LEASE, limit)
        except LeaseLost:
            assert run is None
            return True
        except PullFailed:
            assert run is not None
            assert gone
            return True
        assert run is not None
        assert not gone
        done = self.model.restore(run, limit)
        assert done == (place is None)
        run.cursor = run.cursor if place is None else place
        assert not done or documents(known.working) == documents(known.generations[claim.restores])
        return done

    @rule(claim=held)
    def remove_missing(self, claim: Claim) -> None:
        """Only behind a complete pull; a worker that comes back late may believe to have one."""
        run = self.model.owner(claim)
        while not self.prepare_once(claim, 3):
            pass
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
        while not self.prepare_once(claim, 3):
            pass
        if self.write(claim, generations.succeed):
            self.model.succeed(self.model.runs[claim.sync_id])

    @rule(claim=held, pages=st.lists(pages(), max_size=2), last=pages())
    def pull(self, claim: Claim, pages: list[Page], last: Page) -> None:
        """Most of what a worker does in peace, in one step: so that there is a past for others to meet."""
        for each in pages:
            self.write_page(claim, each)
        self.write_page(claim, replace(last, next_cursor=None))
        while claim.restores is not None and not self.restore(claim, 2):
            pass
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
        held, records, history, counts = self.database.call(everything)
        assert held == sorted(run.row() for run in self.model.runs.values())
        catalogs = self.model.catalogs
        assert records == sorted((*of, key, *each) for of in catalogs for key, each in catalogs[of].working.items())
        wanted = {(*of, *each) for of in catalogs for each in catalogs[of].history()}
        # Of the generations before the oldest, some versions may be left.
        assert set(history) <= wanted
        kept = {(*of, *each) for of in catalogs for each in catalogs[of].history() if each.to > catalogs[of].oldest}
        assert kept <= set(history)
        for of, known in catalogs.items():
            row = counts.get(of, (0, 0, 0, None, 0, None))
            was_published, working = row[3] is not None, row[4]
            assert (row[0], row[1], row[2]) == (known.published, len(known.shown), known.oldest)
            assert was_published == (known.published > 0)
            assert row[5] == known.unpublished
            assert known.rolls_back or working == len(known.working)
            assert known.unpublished or documents(known.working) == documents(known.shown)

    @invariant()
    def readers_see_the_last_published_generation(self) -> None:
        """Whole, while syncs write, and while records are rolled back or pruned."""
        for (merchant, kind), known in self.model.catalogs.items():
            read = self.database.call(catalog.page, merchant, kind, "", 100)
            assert read.generation == known.published
            assert {each.id: each.document for each in read.records} == documents(known.shown)
            state = self.database.call(catalog.state, merchant, kind)
            assert (state.generation, state.num_records) == (known.published, len(known.shown))

    @invariant()
    def one_at_most_is_active(self) -> None:
        """Of each merchant and entity type; so of the database's too, where the two agree."""
        active = [run.of for run in self.model.runs.values() if run.is_active]
        assert len(active) == len(set(active))

    def any_run(self, data: st.DataObject) -> Run:
        """Return a sync, most often one of the last."""
        return data.draw(st.sampled_from(list(reversed(self.model.runs.values()))), label="sync")

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


def age(connection: Connection, merchant: str, kind: EntityType, last: int) -> None:
    """The generations up to the last one were published long ago."""
    g = tables.catalog_generations.c
    these = (g.merchant == merchant) & (g.entity_type == kind) & (g.generation <= last)
    connection.execute(update(tables.catalog_generations).where(these).values(published_at=long_ago))


def oldest(connection: Connection) -> dict[Kind, int]:
    """The oldest generations of which everything is kept."""
    c = tables.catalog_counts.c
    rows = connection.execute(select(c.merchant, c.entity_type, c.oldest_generation))
    return {(merchant, EntityType(kind)): number for merchant, kind, number in rows}


def documents(contents: Contents) -> dict[str, str]:
    """The records' contents, without the generations."""
    return {key: version.document for key, version in contents.items()}


def apply(replica: dict[str, str], found: Sequence[Change]) -> None:
    """What a replica does with changes. Each must fit what it has."""
    for each in found:
        assert (each.record_id in replica) == (each.kind is not ChangeKind.CREATED)
        if each.record is None:
            assert each.kind is ChangeKind.DELETED
            del replica[each.record_id]
        else:
            replica[each.record_id] = each.record.document


def check_changes(found: Sequence[Change], before: Contents, after: Contents) -> None:
    """Check that these are the net changes: each changed record once, and no other."""
    ids = [each.record_id for each in found]
    assert sorted(ids) == sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    replica = documents(before)
    apply(replica, found)
    assert replica == documents(after)
    assert all(each.generation == after[each.record_id].generation for each in found if each.record)


def everything(connection: Connection) -> tuple[list[Row], list[Row], list[Row], dict[Kind, Any]]:
    """All syncs with their counts of problems and seen ids, all records, the history, and each catalog's counts."""
    s, p, n = tables.syncs.c, tables.sync_problems.c, tables.seen_records.c
    problems = select(func.coalesce(func.sum(p["count"]), 0)).where(p.sync_id == s.id).scalar_subquery()
    seen = select(func.count()).where(n.sync_id == s.id).scalar_subquery()
    told = (s.created, s.updated, s.unchanged, s.deleted, s.rejected, s.failure_code, problems, seen)
    of = (s.id, s.merchant, s.entity_type, s.idempotency_key, s.status, s.lease_token, s.lost_workers)
    pull = (s.cursor, s.pull_complete, s.unidentified, s.pages_read, s.records_read)
    result = (s.publication, s.generation, s.reverts, s.restores)
    r, h, c = tables.catalog_records.c, tables.catalog_history.c, tables.catalog_counts.c
    records = connection.execute(select(r.merchant, r.entity_type, r.record_id, r.document, r.generation))
    versions = (h.merchant, h.entity_type, h.record_id, h.from_generation, h.to_generation, h.document)
    columns = (c.generation, c.num_records, c.oldest_generation, c.updated_at, c.working_records, c.unpublished_sync)
    sizes = (c.num_bytes, c.working_bytes)
    counts = {}
    for merchant, kind, *row, num_bytes, working_bytes in connection.execute(
        select(c.merchant, c.entity_type, *columns, *sizes)
    ):
        assert (num_bytes, working_bytes) == (row[1], row[4])  # the documents here have one byte each
        counts[merchant, EntityType(kind)] = row
    return (
        sorted(tuple(row) for row in connection.execute(select(*of, *pull, *result, *told))),
        sorted(tuple(row) for row in records),
        sorted(tuple(row) for row in connection.execute(select(*versions))),
        counts,
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
