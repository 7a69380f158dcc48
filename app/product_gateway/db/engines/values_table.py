"""A parameterised VALUES table: one statement for any number of rows, which travel in one parameter a column.

json_each on SQLite (one parameter for all columns), unnest on PostgreSQL.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ARRAY, Connection, String, Text, Uuid, bindparam, func
from sqlalchemy.sql.selectable import FromClause


class ValuesTable:
    """A table of values for each dialect. Columns whose name ends in `id` hold UUIDs, all others text."""

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

    def parameters(self, connection: Connection, rows: Sequence[Sequence[str | UUID | None]]) -> dict[str, Any]:
        """Return the parameters of a statement that uses this table."""
        if connection.dialect.name == "sqlite":
            return {"sent": orjson.dumps([[_text(value) for value in row] for row in rows]).decode()}
        columns = zip(*rows, strict=True)
        return {f"sent_{name}": list(column) for name, column in zip(self._names, columns, strict=True)}


def _text(value: str | UUID | None) -> str | None:
    return value.hex if isinstance(value, UUID) else value
