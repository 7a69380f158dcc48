"""Database errors: Unavailable for a database that is away, locked, full or not the gateway's; no quoted values."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from product_gateway.errors import Unavailable

AWAY = "The database cannot be used at the moment."
NOT_KNOWN = f"{AWAY} Whether the request was carried out is not known."

READ_ONLY = "25006"


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate errors to Unavailable, caused by the driver's error.

    SQLAlchemy's own error also holds the statement and its values.
    """
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable(AWAY) from error
    except DBAPIError as error:
        if not _is_away(error):
            raise _without_values(error).with_traceback(error.__traceback__) from None
        raise Unavailable(AWAY) from error.orig


def in_one_line(error: Exception) -> str:
    """Return the driver's message for an operator, without statement, values and details of a row."""
    driver = getattr(error, "orig", None) or error
    primary = getattr(getattr(driver, "diag", None), "message_primary", None)
    return " ".join(str(primary or driver).split())


def is_lost(error: Exception) -> bool:
    """Whether the connection broke, so that the last statement may have been executed; not if the server refused it."""
    refused = getattr(getattr(error, "orig", None), "sqlstate", None) == READ_ONLY
    return isinstance(error, DBAPIError) and error.connection_invalidated and not refused


def _without_values(error: DBAPIError) -> DBAPIError:
    """Return the error for a log: PostgreSQL's message may quote the row, so only its code remains."""
    fault, state = error.orig, getattr(error.orig, "sqlstate", None) or ""
    diag = getattr(fault, "diag", None)
    # Messages of class 42 name only tables, columns and functions.
    more = diag and (diag.message_primary if state.startswith("42") else diag.constraint_name)
    said = f"{type(fault).__name__}: " + (
        f"SQLSTATE {state}{', ' if more else ''}{more or ''}" if state else str(fault)
    )
    return type(error)(error.statement, None, Exception(said), hide_parameters=True)


def _is_away(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None) or ""
    return (
        isinstance(error, OperationalError | InterfaceError)
        or error.connection_invalidated
        or type(error) is DatabaseError  # SQLite's "file is not a database"
        # Not operational for psycopg: missing rights, tables or schemas, and internal errors.
        or state.startswith(("42501", "42P01", "3F000", "XX"))
    )


def clone(error: Exception) -> Exception:
    """Return a copy for another caller, as each raised error gets its own traceback."""
    if not isinstance(error, Unavailable):
        return error
    copy = Unavailable(error.detail)
    copy.__cause__ = error.__cause__
    return copy
