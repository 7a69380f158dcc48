"""Statements that differ between the two databases."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Connection,
    String,
    Table,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    cast,
    column,
    func,
    select,
    true,
)
from sqlalchemy.sql.selectable import FromClause

T = TypeVar("T")


class PerDialect(dict[str, T]):
    """A lazy map from a dialect's name to `make(dialect)`: a process builds only its own database's statements."""

    def __init__(self, make: Callable[[str], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, dialect: str) -> T:
        made = self[dialect] = self._make(dialect)
        return made


_ids = bindparam("ids", type_=Text)
SENT_IDS: dict[str, Any] = {
    "sqlite": func.json_each(_ids).table_valued("key", column("value", Text), name="sent"),
    "postgresql": func.json_array_elements_text(cast(_ids, JSON))
    .table_valued(column("value", Text), with_ordinality="key", name="sent")
    .render_derived(),
}
"""A table of ids, by dialect. They travel as one JSON text, the parameter `ids`."""


def is_sent(connection: Connection, record_id: Any, ids: Sequence[str]) -> tuple[ColumnElement[bool], dict[str, str]]:
    """Return the condition that the column is one of the ids, and the parameters of a statement that uses it."""
    dialect = connection.dialect.name
    sent = select(SENT_IDS[dialect].c.value)
    # An array: PostgreSQL then reads the rows by an index, even without statistics.
    found = record_id.in_(sent) if dialect == "sqlite" else record_id == any_(func.array(sent.scalar_subquery()))
    return found, {"ids": orjson.dumps(ids).decode()}


def insert_into(dialect: str, table: Table) -> Any:
    """Return an INSERT that supports ON CONFLICT, which is not standard SQL."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)  # imports only this dialect


def is_among(dialect: str, column: ColumnElement[Any], values: str = "merchants") -> ColumnElement[bool]:
    """Return the condition that the column has one of the values, which is redundant beside a join with them.

    A distributed PostgreSQL reads a table that is joined to a list of values by an outer join as a whole, and only this
    condition says which of its rows. SQLite's planner needs no help.
    """
    if dialect == "sqlite":
        return true()
    return column == any_(bindparam(values, type_=ARRAY(Uuid if values.endswith("id") else Text)))


class ValuesTable:
    """A parameterised VALUES table: one statement for any number of rows, which travel in one parameter a column.

    json_each on SQLite (one parameter for all columns), unnest on PostgreSQL. Columns whose name ends in `id` hold
    UUIDs, all others text.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        each = func.json_each(bindparam("sent", type_=Text)).table_valued("key", "value", name="sent")
        unnested = func.unnest(
            *(bindparam(f"sent_{name}", type_=ARRAY(Uuid if name.endswith("id") else Text)) for name in names)
        )
        row = unnested.table_valued(*names, with_ordinality="key", name="sent").render_derived()
        self.tables: dict[str, FromClause] = {"sqlite": each, "postgresql": row}
        self.columns: dict[str, list[Any]] = {
            "sqlite": [func.json_extract(each.c.value, f"$[{at}]", type_=String) for at in range(len(names))],
            "postgresql": [row.c[name] for name in names],
        }
        self.place: dict[str, Any] = {"sqlite": each.c.key, "postgresql": row.c.key}  # the row's position

    def is_one(self, dialect: str, **columns: ColumnElement[Any]) -> ColumnElement[bool]:
        """Return the condition that each of the columns has a value of this table's column of that name: `is_among`."""
        return and_(true(), *(is_among(dialect, column, f"sent_{name}") for name, column in columns.items()))

    def parameters(self, connection: Connection, rows: Sequence[Sequence[str | UUID | None]]) -> dict[str, Any]:
        """Return the parameters of a statement that uses this table."""
        if connection.dialect.name == "sqlite":
            return {"sent": orjson.dumps([[_text(value) for value in row] for row in rows]).decode()}
        columns = zip(*rows, strict=True)
        return {f"sent_{name}": list(column) for name, column in zip(self._names, columns, strict=True)}


def _text(value: str | UUID | None) -> str | None:
    return value.hex if isinstance(value, UUID) else value
