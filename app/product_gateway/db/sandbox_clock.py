"""The database's clock of the sandbox, which clients advance. Only the sandbox imports this module (import-linter)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from product_gateway.db.tables import max_ages, webhook_deliveries
from product_gateway.db.types import now

_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now'"  # how db/types writes `now` for SQLite

_attempts = sa.select(sa.func.min(webhook_deliveries.c.next_attempt_at)).scalar_subquery()
_lapses = sa.select(sa.func.min(max_ages.c.stale_after)).where(max_ages.c.told_at.is_(None)).scalar_subquery()
_select_due = sa.select(_attempts, _lapses, now())


@contextmanager
def shifted(url: str, offset: Callable[[], float]) -> Iterator[None]:
    """Add `offset` seconds to the clock in this process's statements to the SQLite file at the URL."""
    file = sa.make_url(url).database

    def shift(connection: sa.Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        seconds = offset()
        if seconds and connection.engine.url.database == file:
            statement = statement.replace(_NOW, f"{_NOW}, '{seconds:.3f} seconds'")
        return statement, parameters

    event.listen(sa.Engine, "before_cursor_execute", shift, retval=True)
    try:
        yield
    finally:
        event.remove(sa.Engine, "before_cursor_execute", shift)


def seconds_until_due(connection: sa.Connection) -> float | None:
    """Return the seconds until the next attempt of a message or the next stale catalog, None if there is none."""
    *times, at = connection.execute(_select_due).one()
    return min(((each - at).total_seconds() for each in times if each is not None), default=None)
