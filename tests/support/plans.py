"""The database's plans of the statements that a function executes."""

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, event, text

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


def set_statistics(connection: Connection, rows: int) -> None:
    """Let SQLite's planner believe that each value of an index's columns, but for the last, is in `rows` rows."""
    connection.execute(text("ANALYZE"))  # creates the table
    connection.execute(text("DELETE FROM sqlite_stat1"))
    indexes = connection.execute(
        text(
            "SELECT t.name AS of, l.name, l.origin, (SELECT count(*) FROM pragma_index_info(l.name)) AS columns"
            " FROM sqlite_master t, pragma_index_list(t.name) l WHERE t.type = 'table'"
        )
    ).all()
    for index in indexes:
        stat = " ".join(map(str, [1000, *[rows] * (index.columns - 1), 1]))
        for name in {index.name, index.of if index.origin == "pk" else index.name}:  # tables WITHOUT ROWID
            values = {"of": index.of, "name": name, "stat": stat}
            connection.execute(text("INSERT INTO sqlite_stat1 VALUES (:of, :name, :stat)"), values)
    connection.execute(text("ANALYZE sqlite_master"))  # reads them
