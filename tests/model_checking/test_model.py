"""The model of the one-active rule: all states of a small version, the mutants, and changes of real databases."""

import importlib
import inspect
import re
from typing import Any

import pytest
from sqlalchemy import Connection, literal, text, update

from product_gateway.db import claims, generations, reverts, syncs, tables, types
from product_gateway.db.database import Database
from product_gateway.errors import LeaseLost
from product_gateway.model.syncs import EntityType
from tests.model_checking import model, recorder
from tests.model_checking.checker import first_stuck, search
from tests.model_checking.conformance import Verdict, judge
from tests.model_checking.model import Bounds
from tests.model_checking.mutants import MUTANTS, SMALL, SURVIVES, Mutant, counterexample
from tests.model_checking.product import Product
from tests.support import pulls
from tests.support.databases import url_of
from tests.support.markdown import TOP

PAGE = (TOP / "docs" / "one-active.md").read_text()
FORGED = {
    "an ended sync runs again": "UPDATE syncs SET status = 'IN_PROGRESS', publication = NULL, finished_at = NULL, "
    "lease_expires_at = queued_at WHERE publication = 'STAGED'",
    "a token grows without a claim": "UPDATE syncs SET lease_token = lease_token + 1 WHERE publication = 'DISCARDED'",
    "a discarded result is published": "UPDATE syncs SET publication = 'PUBLISHED' WHERE publication = 'DISCARDED'",
    "a queued sync succeeds": "UPDATE syncs SET status = 'SUCCEEDED', publication = 'PUBLISHED', "
    "finished_at = queued_at WHERE status = 'QUEUED'",
    "a generation is published without a sync": "UPDATE catalog_counts SET generation = generation + 2 "
    "WHERE entity_type = 'PRODUCT'",
}
GRAPH = {1: [2, 3], 2: [4], 3: [4, 5], 4: [2], 5: [5, 6], 6: []}


def test_the_checker_finds_a_shortest_trace() -> None:
    """A trace with a detour hides what matters."""
    found = search(1, GRAPH.__getitem__, lambda state: "six" if state == 6 else "")
    assert (found.rule, found.violation, found.depth) == ("six", 6, 3)
    assert found.trace(6) == [1, 3, 5, 6]


def test_the_checker_finds_the_first_state_without_a_path_to_a_goal() -> None:
    """A cycle that is never left is such a state, and a dead end."""
    assert first_stuck(GRAPH, GRAPH.__getitem__, lambda state: state == 6) == 2
    assert first_stuck(GRAPH, GRAPH.__getitem__, lambda state: state in (4, 6)) is None
    assert first_stuck(GRAPH, GRAPH.__getitem__, lambda state: state == 4) == 5


def test_no_state_of_the_small_model_breaks_a_rule() -> None:
    """`make model` checks all states of the large one."""
    product = Product(SMALL)
    found = search(product.initial, product.successors, product.broken)
    assert found.rule == ""
    assert first_stuck(found.parents, product.successors_of_workers, product.is_settled) is None


def test_every_action_is_possible_in_some_state() -> None:
    """An action that is never possible checks nothing."""
    product = Product(Bounds(entity_types=1, workers=1, stale_lists=True))
    search(product.initial, product.successors, product.broken)
    taken = {step.action for state in product.states() for step in product.steps(state)}
    assert taken == set(re.findall(r'Step\(\s*"([a-z ]+)"', inspect.getsource(model))) | {"prepare"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_checker_kills_a_mutant_by_the_trace_in_the_document(mutant: Mutant) -> None:
    """A check that no mutant needs would be superfluous, or not in the model."""
    found = counterexample(mutant)
    assert not found.endswith(SURVIVES)
    assert found in PAGE


def test_every_action_names_functions_of_the_gateway() -> None:
    """The model is of this code: a function that is renamed must be found in the model."""
    names = set(re.findall(r"`((?:db|sync)\.[\w.]+)`", inspect.getsource(model)))
    assert len(names) > 15
    for name in names:
        package, module, *path = name.split(".")
        found: Any = importlib.import_module(f"product_gateway.{package}.{module}")
        for each in path:
            found = getattr(found, each)


def lived(database: Database) -> None:
    """Run syncs through most of their states, with a worker that is lost and a result that is discarded."""
    pulls.pull(database, pulls.page({"a": "1"}, cursor="next"), pulls.page({"b": "1"}))
    late = pulls.started(database)
    pulls.write(database, late, pulls.page({"a": "2"}))
    database.call(expire)
    claim = database.call(claims.claim, "other", pulls.LEASE, *pulls.RULES)
    assert claim is not None
    with pytest.raises(LeaseLost):
        database.call(generations.succeed, late)
    database.call(claims.hand_back, claim)
    database.call(syncs.cancel, "shop", EntityType.PRODUCT)
    staged = pulls.started(database, publish="MANUAL")
    pulls.pull(database, pulls.page({"c": "1"}), claim=staged)
    database.call(generations.discard, "shop", staged.sync_id)
    pulls.pull(database, pulls.page({"e": "1"}), claim=pulls.started(database, "shop", pulls.COLLECTION, "MANUAL"))
    last = pulls.started(database)
    pulls.pull(database, pulls.page({"d": "1"}), claim=last)
    database.call(reverts.request, "shop", last.sync_id)


def expire(connection: Connection) -> None:
    """Let all leases expire."""
    running = tables.syncs.c.status == "IN_PROGRESS"
    connection.execute(update(tables.syncs).where(running).values(lease_expires_at=types.now(literal(-1))))


def verdict(database: Database) -> Verdict:
    """Judge what was recorded."""
    return database.call(lambda connection: judge(recorder.recorded(connection)))


def test_the_model_accepts_the_changes_of_a_real_database(database: Database) -> None:
    """On both databases."""
    recorder.install(url_of(database))
    lived(database)
    found = verdict(database)
    assert found.refused == []
    assert found.accepted["IN_PROGRESS -> PUBLISHED"] == 2
    assert found.accepted.total() > 40


def test_the_model_refuses_a_forged_change(database: Database) -> None:
    """A change that no function of the gateway makes, and alone."""
    recorder.install(url_of(database))
    lived(database)
    for name, statement in FORGED.items():
        assert len(database.call(refused_after, statement)) == 1, name
    assert verdict(database).refused == []


def refused_after(connection: Connection, statement: str) -> list[str]:
    """Return what is refused after the statement, which is rolled back."""
    with connection.begin_nested() as savepoint:
        connection.execute(text(statement))
        refused = judge(recorder.recorded(connection)).refused
        savepoint.rollback()
    return refused


def test_the_model_refuses_a_change_after_a_missing_one(database: Database) -> None:
    """A recorder that misses changes proves nothing."""
    recorder.install(url_of(database))
    lived(database)
    changes = list(database.call(lambda connection: list(recorder.recorded(connection))))
    place = next(n for n, each in enumerate(changes) if each.was is not None)
    assert len(judge(changes[:place] + changes[place + 1 :]).refused) >= 1
