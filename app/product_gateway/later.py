"""Modules that a library imports and we have no use for, left for whoever uses one after all."""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any


class _Finder(MetaPathFinder):
    """Finds them as any import does, and leaves their code for their first use."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for every other module: the next finder is asked."""
        found = PathFinder.find_spec(fullname, path, target) if fullname in self._names else None
        if found is not None and found.loader is not None:
            found.loader = LazyLoader(found.loader)
        return found


class _StandIn(ModuleType):
    """Whatever is taken out of it is a function that calls the real one."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **more: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*arguments, **more)

        return call


@contextmanager
def leaving(*modules: str, parts_of: Sequence[str] = ()) -> Iterator[None]:
    """What is imported inside: `modules` that are imported as a whole are loaded at their first use.

    Of `parts_of`, single names are imported, which would be a use. They have stand-ins until the block ends.
    """
    finder, stand_ins = _Finder(modules), [each for each in parts_of if each not in sys.modules]
    sys.meta_path.insert(0, finder)
    sys.modules.update({each: _StandIn(each) for each in stand_ins})
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for each in stand_ins:
            del sys.modules[each]
