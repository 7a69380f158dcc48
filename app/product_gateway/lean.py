"""Imports Connexion without what it brings along for things that the gateway does not do: two more HTTP clients.

To be imported before Connexion itself. Should somebody use one of these modules after all, it is loaded then
(`importlib.util.LazyLoader`). They would be a quarter of a second of every start.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

NOT_USED = ("httpx", "requests")


class _Later(MetaPathFinder):
    """Finds them as any import does, and leaves their code for their first use."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for every other module: the next finder is asked."""
        found = PathFinder.find_spec(fullname, path, target) if fullname in NOT_USED else None
        if found is not None and found.loader is not None:
            found.loader = LazyLoader(found.loader)
        return found


_later = _Later()
sys.meta_path.insert(0, _later)
try:
    import connexion  # noqa: F401
finally:
    sys.meta_path.remove(_later)
