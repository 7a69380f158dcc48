"""Generations of the catalog: publication, roll back, the feed of changes, reverts, staging and pruning."""

import random
from uuid import UUID

import pytest
from sqlalchemy import Connection, func, select, text

from product_gateway.db import catalog, changes, claims, generations, reverts, syncs, tables
from product_gateway.db.database import Database
from product_gateway.errors import GenerationGone, NotPublishable, SyncAlreadyActive
from product_gateway.model.catalog import ChangeKind, ChangePosition
from product_gateway.model.syncs import Counts, Publication, SyncStatus
from tests.support.plans import set_statistics
from tests.support.pulls import LEASE, PRODUCT, RULES, page, pull, started, write

CREATED, UPDATED, DELETED = ChangeKind


Net = tuple[ChangeKind, str, str | None]


def feed(database: Database, place: ChangePosition, limit: int = 3) -> tuple[list[Net], ChangePosition]:
    """Read the feed to its end. Return kind, id and content of each change, and the place to continue at."""
    found: list[Net] = []
    while True:
        read = database.call(changes.since, "shop", PRODUCT, place, limit)
        found += [
            (each.kind, each.record_id, None if each.record is None else each.record.document.strip('"'))
            for each in read.changes
        ]
        place = read.place
        if read.is_last and read.is_newest:
            return found, place


def run_revert(database: Database, sync_id: UUID, step: int = 2) -> Counts:
    """Request a revert of the sync and run it as the worker does, `step` records at once. Return its counts."""
    requested = database.call(reverts.request, "shop", sync_id)
    claim = database.call(claims.claim, "tester", LEASE, *RULES)
    assert claim is not None
    assert claim.restores is not None
    write(database, claim)
    after: str | None = ""
    while after is not None:
        after = database.call(reverts.restore, claim, claim.restores, after, LEASE, step)
    database.call(generations.succeed, claim)
    done = database.call(syncs.get, "shop", requested.id)
    assert (done.reverts, done.publication) == (sync_id, Publication.PUBLISHED)
    return done.counts


def history_size(connection: Connection) -> int:
    """Return the number of versions in the history."""
    return connection.execute(select(func.count()).select_from(tables.catalog_history)).scalar_one()


def paged(database: Database, generation: int | None = None, limit: int = 2) -> dict[str, str]:
    """Read a generation page by page."""
    found: dict[str, str] = {}
    after = ""
    while True:
        listing = database.call(catalog.page, "shop", PRODUCT, after, limit, generation)
        found |= {each.id: each.document.strip('"') for each in listing.records}
        if listing.next_after is None:
            return found
        after = listing.next_after


def test_readers_see_the_published_generation_while_a_sync_writes(database: Database) -> None:
    """Lists, single records and the number of records are those of one generation, whole."""
    pull(database, page({"a": "1", "b": "1", "d": "1"}))
    claim = started(database)
    write(database, claim, page({"a": "2", "c": "1"}, cursor="2"))
    assert paged(database) == {"a": "1", "b": "1", "d": "1"}
    found, generation = database.call(catalog.get, "shop", PRODUCT, "a")
    assert (found.document, generation) == ('"1"', 1)
    assert [each.id for each in database.call(catalog.find, "shop", PRODUCT, ["c", "b"])] == ["b"]
    assert database.call(catalog.state, "shop", PRODUCT).num_records == 3
    pull(database, page({"b": "1"}), claim=claim)
    assert paged(database) == {"a": "2", "b": "1", "c": "1"}
    state = database.call(catalog.state, "shop", PRODUCT)
    assert (state.num_records, state.generation) == (3, 2)


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_what_a_sync_wrote_that_did_not_succeed_is_rolled_back_in_small_steps(database: Database, end: str) -> None:
    """No reader sees it, neither before nor after."""
    before = dict.fromkeys("abcdefg", "1")
    pull(database, page(before))
    claim = started(database)
    write(database, claim, page({"a": "2", "b": "2", "c": "2", "x": "1", "y": "1"}, cursor="2"))
    if end == "failed":
        database.call(claims.fail, claim, "INVALID_PAGE", "No JSON.")
    else:
        database.call(syncs.cancel, "shop", PRODUCT)
    assert database.call(generations.left_behind) == [("shop", PRODUCT, claim.sync_id)]
    steps = 0
    while not database.call(generations.roll_back, "shop", PRODUCT, claim.sync_id, 2):
        steps += 1
        assert paged(database) == before
    assert steps == 5  # 5 written versions and 3 replaced ones, two at a time
    assert database.call(generations.left_behind) == []
    assert paged(database) == before
    assert database.call(history_size) == 0
    assert pull(database, page(before)) == Counts(unchanged=7)


def test_two_syncs_are_never_unpublished_at_once(database: Database) -> None:
    """A writer that forgets to prepare is refused by the database."""
    claim = started(database)
    write(database, claim, page({"a": "1"}, cursor="2"))
    database.call(claims.fail, claim, "INVALID_PAGE", "No JSON.")
    late = started(database)
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        database.call(generations.add, late, 1, 1)


def test_an_unchanged_sync_writes_no_version(database: Database) -> None:
    pull(database, page({"a": "1", "b": "1"}))
    assert pull(database, page({"a": "1", "b": "1"})) == Counts(unchanged=2)
    assert database.call(history_size) == 0
    assert database.call(catalog.state, "shop", PRODUCT).generation == 2


def test_a_list_stays_in_the_generation_of_its_first_page(database: Database) -> None:
    """Also if syncs are published meanwhile, and while another one writes."""
    pull(database, page({"a": "1", "b": "1", "c": "1", "d": "1"}))
    first = database.call(catalog.page, "shop", PRODUCT, "", 2)
    pull(database, page({"b": "2", "c": "2", "e": "1"}))
    write(database, started(database), page({"d": "3", "c": "3"}, cursor="2"))
    rest = database.call(catalog.page, "shop", PRODUCT, "b", 10, first.generation)
    assert [each.document for each in (*first.records, *rest.records)] == ['"1"'] * 4
    assert paged(database, 1) == dict.fromkeys("abcd", "1")
    assert paged(database) == {"b": "2", "c": "2", "e": "1"}


def test_the_feed_returns_net_changes_in_order(database: Database) -> None:
    """Each record at most once per window, in its version at the end of the window."""
    pull(database, page({"a": "1", "b": "1", "c": "1"}))
    found, place = feed(database, ChangePosition(0))
    assert found == [(CREATED, "a", "1"), (CREATED, "b", "1"), (CREATED, "c", "1")]
    assert feed(database, place) == ([], place)
    pull(database, page({"a": "2", "b": "1", "d": "1"}))
    pull(database, page({"a": "3", "c": "9"}))
    found, after = feed(database, place)
    assert found == [(UPDATED, "a", "3"), (DELETED, "b", None), (UPDATED, "c", "9")]
    assert after == ChangePosition(3)
    assert database.call(changes.since, "shop", PRODUCT, place, 9).changes[0].generation == 3


def test_a_window_stays_the_same_while_syncs_are_published(database: Database) -> None:
    pull(database, page({"a": "1", "b": "1", "c": "1"}))
    first = database.call(changes.since, "shop", PRODUCT, ChangePosition(0), 2)
    pull(database, page({"b": "2", "d": "1", "e": "1"}))
    write(database, started(database), page({"b": "3"}, cursor="2"))
    second = database.call(changes.since, "shop", PRODUCT, first.place, 2)
    assert [each.record and each.record.document for each in second.changes] == ['"1"']
    assert (second.is_last, second.is_newest, second.until) == (True, False, 1)
    found, _ = feed(database, second.place)
    kinds = (DELETED, UPDATED, DELETED, CREATED, CREATED)
    assert [each[:2] for each in found] == list(zip(kinds, "abcde", strict=True))


def test_a_sync_shows_its_own_changes(database: Database) -> None:
    pull(database, page({"a": "1", "b": "1"}))
    pull(database, page({"a": "2", "c": "1"}))
    second = database.call(syncs.latest, "shop", PRODUCT)
    assert second is not None
    pull(database, page({}))
    entity_type, shown = database.call(changes.of_sync, "shop", second.id, None, 10)
    kinds = [(each.kind, each.record_id) for each in shown.changes]
    assert (entity_type, kinds) == (PRODUCT, [(UPDATED, "a"), (DELETED, "b"), (CREATED, "c")])


def test_a_revert_restores_the_catalog_as_it_was_before_the_sync(database: Database) -> None:
    before = {"a": "1", "b": "1", "c": "1", "d": "1", "e": "1"}
    pull(database, page(before))
    _, place = feed(database, ChangePosition(0))
    pull(database, page({"a": "2", "b": "1", "f": "1", "g": "1"}))
    bad = database.call(syncs.latest, "shop", PRODUCT)
    assert bad is not None
    pull(database, page({"a": "3", "b": "1", "c": "7", "f": "1"}))
    assert run_revert(database, bad.id) == Counts(created=2, updated=2, deleted=1)
    assert paged(database) == before
    assert database.call(catalog.state, "shop", PRODUCT).generation == 4
    assert {each[1] for each in feed(database, place)[0]} <= set("acdefg")
    assert pull(database, page(before)) == Counts(unchanged=5)
    first = database.call(syncs.history, "shop", None, None, None, 10)[0][-1]
    run_revert(database, first.id)
    assert paged(database) == {}


def test_a_revert_is_exact_whatever_statistics_the_database_has(database: Database) -> None:
    """With those of a smaller catalog, SQLite 3.40 restored records that the generation does not have (OP_SeekScan)."""
    first, grown = {"m": "1"}, {"m": "2", "y": "1", "z": "1"}
    pull(database, page(first))
    pull(database, page(grown))
    reverted = database.call(syncs.latest, "shop", PRODUCT)
    assert reverted is not None
    pull(database, page({"m": "3"}))
    pull(database, page(grown))
    if database.engine.dialect.name == "sqlite":
        database.call(set_statistics, 5)
    counts = run_revert(database, reverted.id, step=500)
    assert paged(database) == first
    assert (counts.updated, counts.deleted) == (1, 2)
    assert database.call(catalog.state, "shop", PRODUCT).num_records == 1


def test_a_revert_obeys_the_one_active_rule(database: Database) -> None:
    pull(database, page({"a": "1"}))
    done = database.call(syncs.latest, "shop", PRODUCT)
    assert done is not None
    claim = started(database)
    with pytest.raises(SyncAlreadyActive):
        database.call(reverts.request, "shop", done.id)
    database.call(claims.fail, claim, "INVALID_PAGE", "No JSON.")
    with pytest.raises(NotPublishable):
        database.call(reverts.request, "shop", claim.sync_id)


def test_a_staged_result_is_published_as_it_was_reviewed(database: Database) -> None:
    pull(database, page({"a": "1", "b": "1"}))
    claim = started(database, publish="MANUAL")
    pull(database, page({"a": "2"}), claim=claim)
    staged = database.call(syncs.get, "shop", claim.sync_id)
    assert (staged.status, staged.publication, staged.generation) == (SyncStatus.SUCCEEDED, Publication.STAGED, 2)
    assert paged(database) == {"a": "1", "b": "1"}
    _, shown = database.call(changes.of_sync, "shop", claim.sync_id, None, 10)
    assert [(each.kind, each.record_id) for each in shown.changes] == [(UPDATED, "a"), (DELETED, "b")]
    published = database.call(generations.publish, "shop", claim.sync_id)
    assert published.publication is Publication.PUBLISHED
    assert paged(database) == {"a": "2"}
    with pytest.raises(NotPublishable):
        database.call(generations.publish, "shop", claim.sync_id)


@pytest.mark.parametrize("how", ["discarded", "by the next sync"])
def test_a_staged_result_is_dropped(database: Database, how: str) -> None:
    pull(database, page({"a": "1"}))
    claim = started(database, publish="MANUAL")
    pull(database, page({"a": "2", "b": "2"}), claim=claim)
    if how == "discarded":
        database.call(generations.discard, "shop", claim.sync_id)
        assert database.call(generations.left_behind) == [("shop", PRODUCT, claim.sync_id)]
    else:
        later = started(database)
        with pytest.raises(NotPublishable):
            database.call(generations.publish, "shop", claim.sync_id)
        assert database.call(generations.left_behind) == []
        database.call(claims.hand_back, later)
        again = database.call(claims.claim, "tester", LEASE, *RULES)
        assert pull(database, page({"a": "1"}), claim=again) == Counts(unchanged=1)
        assert database.call(syncs.get, "shop", claim.sync_id).publication is Publication.DISCARDED
    assert paged(database) == {"a": "1"}
    with pytest.raises(NotPublishable):
        database.call(changes.of_sync, "shop", claim.sync_id, None, 10)


def test_old_generations_are_pruned_in_small_steps_and_then_gone(database: Database) -> None:
    """Readers get an error, never a generation of which a part is missing."""
    for value in "1234":
        pull(database, page(dict.fromkeys("abcde", value)))
    hour = "datetime('now', '-1 hour')" if database.engine.dialect.name == "sqlite" else "now() - interval '1 hour'"
    old = text(f"UPDATE catalog_generations SET published_at = {hour} WHERE generation <= 3")
    database.call(lambda connection: connection.execute(old))
    assert database.call(history_size) == 15
    steps = 0
    while database.call(generations.prune, 0.01, 4):
        steps += 1
        with pytest.raises(GenerationGone):
            paged(database, 2)
        assert paged(database, 3) == dict.fromkeys("abcde", "3")
        assert steps < 9
    assert database.call(history_size) == 5
    with pytest.raises(GenerationGone):
        database.call(changes.since, "shop", PRODUCT, ChangePosition(2), 10)
    assert len(feed(database, ChangePosition(3))[0]) == 5
    assert len(feed(database, ChangePosition(0))[0]) == 5
    second = database.call(syncs.history, "shop", None, None, None, 10)[0][2]
    assert second.generation == 2
    with pytest.raises(GenerationGone):
        database.call(reverts.request, "shop", second.id)


@pytest.mark.parametrize("seed", range(4))
def test_a_replica_that_follows_the_feed_equals_the_catalog(database: Database, seed: int) -> None:
    """After random syncs: creates, updates, deletes, failures, cancels, reverts and staged results."""
    chance = random.Random(seed)
    ids = [f"{n:02}" for n in range(12)]
    replica: dict[str, str] = {}
    place = ChangePosition(0)
    known: dict[int, dict[str, str]] = {0: {}}
    for step in range(12):
        values = {each: str(chance.randrange(3)) for each in ids if chance.random() < 0.6}
        end = chance.choice(["succeeds"] * 5 + ["fails", "is cancelled", "is reverted", "is staged"])
        if end == "is reverted" and len(known) > 1:
            done = [
                s for s in database.call(syncs.history, "shop", None, None, None, 50)[0] if s.publication == "PUBLISHED"
            ]
            chosen = chance.choice(done)
            run_revert(database, chosen.id)
            assert chosen.generation is not None
            assert paged(database, limit=5) == known[chosen.generation - 1]
        else:
            claim = started(database, publish="MANUAL" if end == "is staged" else "AUTOMATIC")
            if end in ("fails", "is cancelled"):
                write(database, claim, page(values, cursor="2"))
                if end == "fails":
                    database.call(claims.fail, claim, "INVALID_PAGE", "No JSON.")
                else:
                    database.call(syncs.cancel, "shop", PRODUCT)
            else:
                pull(database, page(values), claim=claim)
                if end == "is staged":
                    assert paged(database, limit=5) == known[max(known)]
                    if chance.random() < 0.5:
                        database.call(generations.publish, "shop", claim.sync_id)
        state = database.call(catalog.state, "shop", PRODUCT)
        known[state.generation] = paged(database, limit=5)
        assert state.num_records == len(known[state.generation])
        assert all(paged(database, each, limit=7) == known[each] for each in known)
        if chance.random() < 0.6:
            found, place = feed(database, place, chance.randrange(1, 6))
            assert len({each[1] for each in found}) == len(found)
            for kind, record_id, content in found:
                assert (record_id in replica) == (kind != CREATED), (step, kind, record_id)
                if content is None:
                    del replica[record_id]
                else:
                    replica[record_id] = content
            assert replica == known[state.generation]
