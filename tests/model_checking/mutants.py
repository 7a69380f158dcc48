"""The model without one of its checks at a time. The checker must find what goes wrong, by a shortest trace."""

from typing import NamedTuple

from tests.model_checking.checker import Search, first_stuck, search
from tests.model_checking.model import NEVER_ENDS, Bounds, Rules
from tests.model_checking.product import Product

SURVIVES = "SURVIVES"
SMALL = Bounds(entity_types=1, workers=2, stale_lists=True)


class Mutant(NamedTuple):
    """What the statements lack, and the rules that remain."""

    name: str
    rules: Rules


MUTANTS = (
    Mutant("no unique index on active syncs", Rules(unique_index=False)),
    Mutant("writes do not check the fencing token", Rules(writes_check_token=False)),
    Mutant("writes do not check that the sync is in progress", Rules(writes_check_status=False)),
    Mutant("the end does not check the fencing token", Rules(end_checks_token=False)),
    Mutant("a claim does not check that the lease has expired", Rules(claims_check_lease=False)),
    Mutant("a claim does not increase the fencing token", Rules(claims_increase_token=False)),
    Mutant("a claim takes only queued syncs", Rules(claims_take_over=False)),
    Mutant("the end and the publication are two transactions", Rules(end_publishes=False)),
    Mutant("the catalog does not note whose records are unpublished", Rules(writer_is_noted=False)),
    Mutant("a result can be published after it was discarded", Rules(publish_checks_staged=False)),
    Mutant("a roll back does not check whose records are unpublished", Rules(roll_back_checks_sync=False)),
    Mutant("a page's cursor is committed before its records", Rules(page_is_one_transaction=False)),
)


def counterexample(mutant: Mutant) -> str:
    """Return the rule that the mutant breaks and a shortest trace, as docs/one-active.md shows them."""
    product = Product(SMALL, mutant.rules)
    found = search(product.initial, product.successors, product.broken)
    rule, state = found.rule, found.violation
    if state is None:
        rule, state = NEVER_ENDS, first_stuck(found.parents, product.successors_of_workers, product.is_settled)
    trace = [SURVIVES] if state is None else [rule, *lines(product, found, state)]
    return "\n  ".join([f"{mutant.name}: {trace[0]}", *trace[1:]])


def lines(product: Product, found: Search[int], state: int) -> list[str]:
    """Return the steps to a state, numbered."""
    trace = found.trace(state)
    steps = map(product.describe, trace, trace[1:])
    return [f"{number}. {step}" for number, step in enumerate(steps, 1)]
