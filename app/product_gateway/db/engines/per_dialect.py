"""Statements that differ between the two databases."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from sqlalchemy import Table

T = TypeVar("T")


class PerDialect(dict[str, T]):
    """A lazy map from a dialect's name to `make(dialect)`: a process builds only its own database's statements."""

    def __init__(self, make: Callable[[str], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, dialect: str) -> T:
        made = self[dialect] = self._make(dialect)
        return made


def insert_into(dialect: str, table: Table) -> Any:
    """Return an INSERT that supports ON CONFLICT, which is not standard SQL."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)  # imports only this dialect
