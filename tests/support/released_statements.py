"""The SQL statements of released versions, which later migrations must keep working.

`tests/compatibility/released/REVISION.DIALECT.jsonl` holds them in their order, one a line, with the rows of each.
`record_statements.py` makes these files.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy import Connection

FOLDER = Path(__file__).parents[1] / "compatibility" / "released"
DIALECTS = ("sqlite", "postgresql")


class Statement(NamedTuple):
    """A statement, its sets of parameters, and the number of rows that it returned or changed."""

    sql: str
    parameters: list[Any]
    rows: int


def path(revision: str, dialect: str) -> Path:
    """Return the file of a revision and dialect."""
    return FOLDER / f"{revision}.{dialect}.jsonl"


def replay(connection: Connection, statements: Iterable[Statement]) -> list[Statement]:
    """Run the statements in one transaction, and return them with the current numbers of rows."""
    return [each._replace(rows=_rows(connection, each)) for each in statements]


def _rows(connection: Connection, statement: Statement) -> int:
    one_set = len(statement.parameters) == 1
    result = connection.exec_driver_sql(statement.sql, statement.parameters[0] if one_set else statement.parameters)
    return len(result.all()) if result.returns_rows else result.rowcount


def dumped(statement: Statement) -> str:
    """As a line of a file."""
    return json.dumps(statement._asdict(), default=_marked) + "\n"


def loaded(line: str) -> Statement:
    """From a line of a file."""
    read = json.loads(line, object_hook=_unmarked)
    sets = [tuple(each) if isinstance(each, list) else each for each in read["parameters"]]
    return Statement(read["sql"], sets, read["rows"])


def _marked(value: object) -> dict[str, str]:
    if isinstance(value, bytes | memoryview):
        return {"$bytes": value.hex()}
    if isinstance(value, psycopg.Binary):
        return _marked(value.obj)
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, UUID):
        return {"$uuid": str(value)}
    raise TypeError(f"{type(value)} has no form in a file of statements yet: give it one here.")


def _unmarked(read: dict[str, Any]) -> Any:
    match read:
        case {"$bytes": text}:
            return bytes.fromhex(text)
        case {"$datetime": text}:
            return datetime.fromisoformat(text)
        case {"$uuid": text}:
            return UUID(text)
    return read
