"""Column types, and the database's clock."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, String, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import FunctionElement


class Instant(TypeDecorator[datetime]):
    """A point in time, always with an offset in Python: timestamptz on PostgreSQL, UTC text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC for SQLite, which stores no offset."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        """Return a function from what the driver read to an instant in UTC. Each sync has two to four of them."""
        return _from_sqlite if dialect.name == "sqlite" else _from_postgresql


def _from_sqlite(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(f"{value}+00:00")


def _from_postgresql(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)


class now(ColumnElement[datetime]):  # noqa: N801 - used like a function of SQL
    """The database's clock when the statement began, plus `seconds`. The clocks of other machines do not matter.

    STABLE on PostgreSQL, so that an UPDATE of a distributed table may have it. A statement that has waited for a lock
    has an earlier time. Where that matters, a statement of its own locks the row first.
    """

    inherit_cache = True
    type = Instant()
    _traverse_internals = []  # noqa: RUF012

    def __init__(self, seconds: ColumnElement[Any] | None = None) -> None:
        self.seconds = seconds


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: Any, **kwargs: Any) -> str:
    if element.seconds is None:
        return "statement_timestamp()"
    return f"statement_timestamp() + make_interval(secs => {compiler.process(element.seconds, **kwargs)})"


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: Any, **kwargs: Any) -> str:
    later = "" if element.seconds is None else f", {compiler.process(element.seconds, **kwargs)} || ' seconds'"
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now'{later})"


class later(FunctionElement[datetime]):  # noqa: N801 - used like a function of SQL
    """The instant of the first argument, plus the seconds of the second."""

    inherit_cache = True
    type = Instant()


@compiles(later, "postgresql")
def _later_postgresql(element: later, compiler: Any, **kwargs: Any) -> str:
    instant, seconds = (compiler.process(each, **kwargs) for each in element.clauses)
    return f"({instant} + make_interval(secs => {seconds}))"


@compiles(later, "sqlite")
def _later_sqlite(element: later, compiler: Any, **kwargs: Any) -> str:
    instant, seconds = (compiler.process(each, **kwargs) for each in element.clauses)
    return f"strftime('%Y-%m-%d %H:%M:%f000', {instant}, {seconds} || ' seconds')"


# Ordered by code point on both databases, as the cursors of the catalog require.
RecordId = String(255).with_variant(String(255, collation="C"), "postgresql")
MerchantName = String(128).with_variant(String(128, collation="C"), "postgresql")
