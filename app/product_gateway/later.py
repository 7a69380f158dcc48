"""Modules that a library imports and we have no use for, left for whoever uses one after all."""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader, find_spec, module_from_spec
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
        return _lazy(PathFinder.find_spec(fullname, path, target)) if fullname in self._names else None


def _lazy(spec: ModuleSpec | None) -> ModuleSpec | None:
    if spec is not None and spec.loader is not None:
        spec.loader = LazyLoader(spec.loader)
    return spec


class _StandIn(ModuleType):
    """Whatever is taken out of it is a function that calls the real one; the modules in it are the real ones."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        found = find_spec(name)
        if found is not None and found.submodule_search_locations is not None:
            self.__path__ = found.submodule_search_locations

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **more: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*arguments, **more)

        return call

    def make_way(self) -> None:
        """For the real one, which is loaded when it is imported; a package that has modules already, when it is used."""
        del sys.modules[self.__name__]
        modules = {name: each for name, each in vars(self).items() if isinstance(each, ModuleType)}
        spec = _lazy(find_spec(self.__name__)) if modules else None
        if spec is not None and spec.loader is not None:
            real = sys.modules[self.__name__] = module_from_spec(spec)
            vars(real).update(modules)
            spec.loader.exec_module(real)


@contextmanager
def leaving(*modules: str, parts_of: Sequence[str] = ()) -> Iterator[None]:
    """What is imported inside: `modules` that are imported as a whole are loaded at their first use.

    Of `parts_of`, single names are imported, which would be a use. They have stand-ins until the block ends.
    """
    finder, stand_ins = _Finder(modules), []
    for name in parts_of:
        if name not in sys.modules:
            sys.modules[name] = stand_in = _StandIn(name)
            stand_ins.append(stand_in)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for each in stand_ins:
            each.make_way()
