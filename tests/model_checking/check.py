"""`make model`: check all states of the models of syncs, then kill the mutants."""

import sys
import time
from pathlib import Path

from tests.model_checking.checker import first_stuck, search
from tests.model_checking.model import Bounds
from tests.model_checking.mutants import MUTANTS, SURVIVES, counterexample, lines
from tests.model_checking.product import Product

PAGE = Path(__file__).parents[2] / "docs" / "one-active.md"
CHECKS = {
    "two entity types, three workers": Bounds(),
    "one entity type, two pages, stale lists": Bounds(entity_types=1, pages=2, stale_lists=True),
    "one entity type, lost claims in full": Bounds(entity_types=1, workers=2, forgets_lost_claims=False),
}


def check(name: str, bounds: Bounds) -> str:
    """Check all states, and return their number and that of steps as a row of the page. Exit if a rule breaks."""
    began = time.process_time()
    product = Product(bounds)
    found = search(product.initial, product.successors, product.broken)
    if found.violation is not None:
        sys.exit("\n  ".join([f"{name}: {found.rule}:", *lines(product, found, found.violation)]))
    stuck = first_stuck(found.parents, product.successors_of_workers, product.is_settled)
    if stuck is not None:
        sys.exit("\n  ".join([f"{name}: workers alone cannot end every sync:", *lines(product, found, stuck)]))
    row = f"| {name} | {len(found.parents):,} | {found.steps:,} | {found.depth} |"
    print(f"{row} {time.process_time() - began:.0f} s", flush=True)
    return row


def main() -> None:
    """Exit with 1 if a rule is broken, a mutant survives, or the page has other numbers."""
    rows = [check(name, bounds) for name, bounds in CHECKS.items()]
    for mutant in MUTANTS:
        found = counterexample(mutant)
        print(found, flush=True)
        if found.endswith(SURVIVES):
            sys.exit(1)
    missing = [row for row in rows if row not in PAGE.read_text()]
    if missing:
        sys.exit("docs/one-active.md needs:\n" + "\n".join(missing))


if __name__ == "__main__":
    main()
