"""What released versions say to the database: statements that later migrations must go on understanding.

`tests/released/REVISION.DIALECT.jsonl` holds them in the order in which a version at that revision said them, one a
line, with the number of rows that each answered. `record_statements.py` makes such files.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy import Connection

FOLDER = Path(__file__).parent / "released"
DIALECTS = ("sqlite", "postgresql")


class Statement(NamedTuple):
    """SQL, one or many sets of parameters, and how many rows it answered or changed."""

    sql: str
    parameters: list[Any]
    rows: int


def path(revision: str, dialect: str) -> Path:
    """Where they are kept."""
    return FOLDER / f"{revision}.{dialect}.jsonl"


def replay(connection: Connection, statements: Iterable[Statement]) -> list[Statement]:
    """Says them again, in one transaction; the same statements with the numbers of rows as they are now."""
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
