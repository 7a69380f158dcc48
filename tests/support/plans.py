"""The database's plans of the statements that a function executes."""

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import event

from product_gateway.db.database import Database

QUERIES = ("SELECT", "WITH")


def plans(
    database: Database, work: Callable[..., Any], *arguments: Any, by: str = "", of: tuple[str, ...] = QUERIES
) -> str:
    """Return the plans of the statements of `work` that start with one of `of`. `by` is another EXPLAIN."""
    word = by or ("EXPLAIN QUERY PLAN" if database.engine.dialect.name == "sqlite" else "EXPLAIN")
    found: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, values: Any, *__: Any) -> None:
        if statement.startswith(of):
            cursor.execute(f"{word} {statement}", values)
            lines = [row[-1] for row in cursor.fetchall()]
            found.extend(line if isinstance(line, str) else json.dumps(line) for line in lines)

    event.listen(database.engine, "before_cursor_execute", explain)
    try:
        database.call(work, *arguments)
    finally:
        event.remove(database.engine, "before_cursor_execute", explain)
    return "\n".join(found)
