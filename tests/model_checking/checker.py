"""An explicit-state model checker: a breadth-first search of all reachable states, with shortest counterexamples.

It knows nothing of syncs. A model gives the initial state, the successors of a state, and the rule that a state breaks.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
Successors = Callable[[S], Iterable[S]]


@dataclass(frozen=True)
class Search(Generic[S]):
    """The outcome of a search. `parents` has each state that was found, with the state before it, in the order found.

    `steps` counts the transitions and `depth` the longest of the shortest paths. If a state breaks a rule, the search
    ends with it: `violation` is that state, and `rule` the rule.
    """

    parents: dict[S, S]
    steps: int
    depth: int
    violation: S | None = None
    rule: str = ""

    def trace(self, state: S) -> list[S]:
        """Return a shortest path from the initial state to this one."""
        return _path(self.parents, state)[::-1]


def search(initial: S, successors: Successors[S], broken: Callable[[S], str]) -> Search[S]:
    """Find all reachable states, level by level. `broken` returns the rule that a state breaks, or an empty text."""
    parents, level, steps, depth = {initial: initial}, [initial], 0, 0
    while level:
        following: list[S] = []
        for state in level:
            for each in successors(state):
                steps += 1
                if each in parents:
                    continue
                parents[each] = state
                following.append(each)
                if rule := broken(each):
                    return Search(parents, steps, depth + 1, each, rule)
        depth += bool(following)
        level = following
    return Search(parents, steps, depth)


def first_stuck(states: Iterable[S], successors: Successors[S], is_goal: Callable[[S], bool]) -> S | None:
    """Return the first of the states from which no path leads to a goal; None: all have such a path.

    A depth-first search from each state ends at the first state that is known to have a path.
    """
    can_reach: set[S] = set()
    for start in states:
        came_from: dict[S, S] = {start: start}
        stack = [start]
        while stack:
            state = stack.pop()
            if state in can_reach or is_goal(state):
                can_reach.update(_path(came_from, state))
                break
            for each in successors(state):
                if each not in came_from:
                    came_from[each] = state
                    stack.append(each)
        else:
            return start
    return None


def _path(came_from: dict[S, S], state: S) -> list[S]:
    """Return the way back from the state to the start, which came from itself."""
    path = [state]
    while came_from[path[-1]] != path[-1]:
        path.append(came_from[path[-1]])
    return path
