"""Statements that the two databases want in different words: made for the one that a process has."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from sqlalchemy import Table

T = TypeVar("T")


class PerDialect(dict[str, T]):
    """`make(dialect)` by the dialect's name, made when it is first wanted: nobody waits for the other's at a start."""

    def __init__(self, make: Callable[[str], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, dialect: str) -> T:
        made = self[dialect] = self._make(dialect)
        return made


def insert_into(dialect: str, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT, which is no part of standard SQL."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)  # the other one's would only take its time
