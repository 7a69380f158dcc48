"""The model of both entity types of a merchant, with the workers that they share, as states of one integer each.

A worker runs one sync at a time, of either entity type: it may claim a sync only while it has none of the other one.
Apart from that, a step concerns one entity type. So a state is a pair of numbers of `model.State`s, and the steps from
each of those are computed once.
"""

import functools
from collections.abc import Iterator

from tests.model_checking.model import Actions, Bounds, Rules, State, Step, broken_rule

NAMES = ("PRODUCT", "COLLECTION")
# Steps that need no client and no fault: with them alone, every sync must be able to end.
OF_WORKERS = ("claim", "give up", "expire", "find nothing", "prepare", "page", "end", "hand back", "refused")
_BITS = 24
_SECOND = (1 << _BITS) - 1
# The bits of a PUT between its look-up and its insert, and of a background loop between its reading and its writing.
_PUT, _LOOP = 1 << 16, 1 << 17
_Move = tuple[int, int, bool]
"""By how much a step changes the number of a State, what it needs idle, as bits, and whether it is of a worker."""


class Product:
    """The steps of a pair of entity types, or of one with `entity_types=1`."""

    def __init__(self, bounds: Bounds = Bounds(), rules: Rules = Rules()) -> None:  # noqa: B008 - immutable
        self.bounds = bounds
        self._actions = Actions(bounds, rules)
        self._numbers: dict[State, int] = {}
        self._states: list[State] = []
        self._busy: list[int] = []  # the workers with a claim and a PUT, as bits
        self._active: list[bool] = []
        self._broken: list[str] = []
        self._changes = functools.cache(self._find_changes)
        self._moves = functools.cache(self._find_moves)
        self._number(self._actions.initial)
        self.initial = 0

    def successors(self, state: int, of_workers: bool = False) -> list[int]:
        """Return the states after all steps from this one."""
        first, second = state >> _BITS, state & _SECOND
        busy = self._busy
        found = [state + change for change in self._changes(first, busy[second], _BITS, of_workers)]
        if self.bounds.entity_types > 1:
            found += [state + change for change in self._changes(second, busy[first], 0, of_workers)]
        return found

    def successors_of_workers(self, state: int) -> list[int]:
        """Return the states after the steps that need no client and no fault."""
        return self.successors(state, of_workers=True)

    def broken(self, state: int) -> str:
        """Return the rule that the state breaks, or an empty text."""
        return self._broken[state >> _BITS] or self._broken[state & _SECOND]

    def is_settled(self, state: int) -> bool:
        """Return whether no sync is active."""
        return not (self._active[state >> _BITS] or self._active[state & _SECOND])

    def states(self) -> list[State]:
        """Return all states of one entity type that were found."""
        return self._states

    def steps(self, state: State) -> Iterator[Step]:
        """Return the steps of one entity type, before they are tidied."""
        return self._actions.steps(state)

    def describe(self, before: int, after: int) -> str:
        """Return the step between two states as a line."""
        first = before >> _BITS != after >> _BITS
        was, becomes = (self._states[each >> _BITS if first else each & _SECOND] for each in (before, after))
        step = next(each for each in self._actions.steps(was) if self._actions.tidy(each.after) == becomes)
        who = "" if step.worker is None else f"worker {step.worker + 1} "
        of = f"{NAMES[not first]}: " if self.bounds.entity_types > 1 else ""
        syncs = [each.status for each in step.after.syncs if each.is_active] or [
            each.status for each in step.after.syncs[:1]
        ]
        return f"{of}{who}{step.text} -> {', '.join(syncs) or 'no sync'}"

    def _find_changes(self, number: int, busy: int, bits: int, of_workers: bool) -> list[int]:
        """Return by how much the possible steps of one entity type change the state, while the other uses `busy`."""
        moves = self._moves(number)
        return [change << bits for change, needs, of_worker in moves if not needs & busy and of_worker >= of_workers]

    def _find_moves(self, number: int) -> list[_Move]:
        found: dict[_Move, None] = {}
        for step in self._actions.steps(self._states[number]):
            change = self._number(self._actions.tidy(step.after)) - number
            found[change, self._needs(step), step.action in OF_WORKERS] = None
        return [move for move in found if move[0]]

    @staticmethod
    def _needs(step: Step) -> int:
        if step.action in ("look up", "list"):
            return _PUT if step.action == "look up" else _LOOP
        return 1 << step.worker if step.action in ("claim", "give up") and step.worker is not None else 0

    def _number(self, state: State) -> int:
        number = self._numbers.setdefault(state, len(self._states))
        if number == len(self._states):
            self._states.append(state)
            workers = sum(1 << worker for worker, claim in enumerate(state.claims) if claim)
            self._busy.append(workers | (_PUT if state.looked_up else 0) | (0 if state.listed is None else _LOOP))
            self._active.append(state.has_active)
            self._broken.append(broken_rule(state))
        return number
