"""Operators' sessions that were signed out before their end: what all processes must know of a session."""

from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, select

from product_gateway.db.engines.dialects import PerDialect, insert_into
from product_gateway.db.executor import autocommit
from product_gateway.db.tables import ended_sessions
from product_gateway.db.types import now

_insert = PerDialect(lambda dialect: insert_into(dialect, ended_sessions).on_conflict_do_nothing())
_forget = delete(ended_sessions).where(ended_sessions.c.expires_at < now())
_find = select(ended_sessions.c.id).where(ended_sessions.c.id == bindparam("id"))


def end(connection: Connection, session_id: str, expires_at: datetime) -> None:
    """Record that the session is over, and forget those that would be over by themselves."""
    connection.execute(_forget)
    connection.execute(_insert[connection.dialect.name], {"id": session_id, "expires_at": expires_at})


@autocommit
def has_ended(connection: Connection, session_id: str) -> bool:
    """Return whether the session was signed out."""
    return connection.execute(_find, {"id": session_id}).first() is not None
