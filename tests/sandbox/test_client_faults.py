"""Clients that each lack one tolerance are broken by the mutations for it, and a correct client by none."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from product_gateway.sandbox.mutation import Kind, Mutation
from product_gateway.sandbox.mutations import MUTATIONS
from product_gateway.sandbox.runner import Options
from product_gateway.sandbox.tolerance import Tolerance
from product_gateway.sandbox.tolerance_report import sandbox
from tests.support.tolerant_client import READING, WAITING, Client, fault_of
from tests.support.webhook_receivers import receiving
from tests.tools.client_tours import prepare

SANDBOXES = 4  # at the same time: the clients wait more than they compute
Faults = dict[str, list[str]]
"""By the client's class, the faults that were found, each with the mutation."""


@pytest.fixture(scope="module")
def faults() -> Iterator[dict[str, Faults]]:
    """What each client could not handle, by mutation and client."""
    with ThreadPoolExecutor(SANDBOXES) as pool:
        results = pool.map(faults_under, MUTATIONS.values())
        yield dict(zip(MUTATIONS, results, strict=True))


def faults_under(mutation: Mutation) -> Faults:
    """Run all clients against one sandbox with the mutation."""
    found: Faults = {}
    tolerance = Tolerance([])
    with receiving() as hooks:
        options = Options(sync_seconds=0.1, slow_seconds=1.6, tolerance=tolerance, webhook=f"{hooks.url}/ok")
        with sandbox(options) as environment:
            prepare(environment)
            tolerance.mutations = (mutation,)
            cache: dict[str, Any] = {}
            correct = Client(environment, hooks, cache)
            runs = [("Client", correct.wait), ("Client", correct.read)]
            runs += [(each.__name__, each(environment, hooks, cache).read) for each in READING]
            if mutation.kind not in (Kind.VALUE, Kind.BODY):  # faults in waiting concern headers and messages
                runs += [(each.__name__, each(environment, hooks).wait) for each in WAITING]
            for name, run in runs:
                fault = fault_of(run)
                if fault is not None:
                    found.setdefault(name, []).append(fault)
    return found


def test_a_correct_client_survives_every_mutation(faults: dict[str, Faults]) -> None:
    """No false alarm."""
    assert {name: found["Client"] for name, found in faults.items() if "Client" in found} == {}


@pytest.mark.parametrize("client", [*READING, *WAITING], ids=lambda each: each.__name__)
def test_a_fault_is_found_by_the_mutations_for_it_and_by_no_other(
    faults: dict[str, Faults], client: type[Client]
) -> None:
    """The names of the mutations lead to the fault."""
    expected = {**READING, **WAITING}[client]
    assert {name for name, found in faults.items() if client.__name__ in found} == expected


def test_more_than_ten_faults_are_planted() -> None:
    """All of another kind."""
    assert len(READING) + len(WAITING) >= 10
