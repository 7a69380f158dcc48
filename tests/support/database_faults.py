"""Unexpected errors from a real database, which the gateway does not classify."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlalchemy import make_url

from tests.support import databases

TRIGGER = "unexpected"
OPERATIONS = ("INSERT", "UPDATE", "DELETE")
# SQLSTATE 22012 stands for all that the gateway does not expect of its own statements.
FUNCTION = """
CREATE OR REPLACE FUNCTION raise_unexpectedly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF random() < {share} THEN RAISE EXCEPTION 'injected' USING ERRCODE = '22012'; END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END $$
"""


@contextmanager
def raising(url: str, *tables: str, share: float = 1.0) -> Iterator[None]:
    """Let this share of the writes to the tables fail until the block ends."""
    start_raising(url, *tables, share=share)
    try:
        yield
    finally:
        stop_raising(url, *tables)


def start_raising(url: str, *tables: str, share: float = 1.0) -> None:
    """Add triggers that raise at random."""
    if is_postgresql(url):
        _run(url, FUNCTION.format(share=share))
    for table in tables:
        if is_postgresql(url):
            timing = f"BEFORE {' OR '.join(OPERATIONS)} ON {table} FOR EACH ROW"
            _run(url, f"CREATE TRIGGER {TRIGGER} {timing} EXECUTE FUNCTION raise_unexpectedly()")
            continue
        for each in OPERATIONS:
            at_random = f"WHEN abs(random() % 1000) < {int(share * 1000)}"
            body = "BEGIN SELECT RAISE(ABORT, 'injected'); END"
            _run(url, f"CREATE TRIGGER {TRIGGER}_{table}_{each} BEFORE {each} ON {table} {at_random} {body}")


def stop_raising(url: str, *tables: str) -> None:
    """Drop the triggers."""
    for table in tables:
        if is_postgresql(url):
            _run(url, f"DROP TRIGGER IF EXISTS {TRIGGER} ON {table}")
            continue
        for each in OPERATIONS:
            _run(url, f"DROP TRIGGER IF EXISTS {TRIGGER}_{table}_{each}")


@contextmanager
def renamed(url: str, table: str, column: str) -> Iterator[None]:
    """Rename the column until the block ends. PostgreSQL's error for it is one that the gateway does not classify."""
    _run(url, f"ALTER TABLE {table} RENAME COLUMN {column} TO {column}_renamed")
    try:
        yield
    finally:
        _run(url, f"ALTER TABLE {table} RENAME COLUMN {column}_renamed TO {column}")


def is_postgresql(url: str) -> bool:
    return make_url(url).get_backend_name() == "postgresql"


def _run(url: str, statement: str) -> None:
    if is_postgresql(url):
        databases.run(url, statement)
        return
    with closing(sqlite3.connect(str(make_url(url).database), timeout=20)) as connection:
        connection.execute(statement)
        connection.commit()
