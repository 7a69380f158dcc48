"""PostgreSQL: how to reach it where it has several hosts, when to leave one of them, how to cut a connection.

Nothing here or elsewhere in `db` keeps anything in a session, so that PgBouncer may give every transaction another.
"""

import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, make_url
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from product_gateway import later
from product_gateway.db.faults import READ_ONLY
from product_gateway.db.units import BEGIN, LINE, ONCE, READ, WRITE, WRITE_ONCE, connected
from product_gateway.errors import SettingsError

# Unless the URL says otherwise. A host that is gone without a word is noticed within ten seconds, by those who wait
# for its answer and by those who wait for it to take what they sent.
CONNECTION_DEFAULTS = {
    "application_name": "product-gateway",
    "connect_timeout": "3",  # of each host
    "keepalives_idle": "3",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",  # milliseconds
}
CONNECT_TIMEOUT_WITH_A_DEADLINE = {"connect_timeout": "2"}  # psycopg waits no less than that
LONGEST_SILENCE = "5s"  # between two statements of a write
# Of a write with a deadline: PostgreSQL says by then that nothing was done, and the connection lives on.
LONGEST_WAIT_FOR_A_LOCK = "1500ms"
_SHORT_WAITS = f"SELECT set_config('lock_timeout', '{LONGEST_WAIT_FOR_A_LOCK}', true)"
# SQLSTATEs of a server that does not write (any more), that breaks off or is going away.
NOT_THIS_SERVER = re.compile(f"{READ_ONLY}|08...|57P0.")
OTHER_DRIVERS = ("asyncpg", "pg8000", "psycopg2cffi")
SEVERAL_HOSTS = re.compile(r"(postgresql(?:\+\w+)?://(?:[^:/]*(?::[^@]*)?@)?+)([^/?]*,[^/?]*)((?:[/?].*)?)")
HOST = re.compile(r"(?:\[(.+)\]|([^:]+))(?::(\d*))?")


def parsed(url: str) -> URL:
    """A URL of SQLAlchemy's, or of libpq's with several hosts: those become `?host=h1,h2&port=5432,5432`.

    Raises ArgumentError or ValueError.
    """
    found = SEVERAL_HOSTS.fullmatch(url)
    if found is None:
        return make_url(url)
    before, hosts, after = found.groups()
    each = [match for match in map(HOST.fullmatch, hosts.split(",")) if match]
    if len(each) != hosts.count(",") + 1:
        raise ArgumentError("a host or port")
    names, ports = [match[1] or match[2] for match in each], [match[3] or "" for match in each]
    return make_url(before + after).update_query_dict({"host": ",".join(names), "port": ",".join(ports)})


def without_secrets(url: URL) -> str:
    """To be read by the operator; a password may be among the parameters too."""
    hosts = {name: value for name, value in url.query.items() if name in ("host", "port")}
    return unquote(url.set(query=hosts).render_as_string(hide_password=True))


class Line:
    """A connection's socket, under a number of its own: libpq may close its number at any moment."""

    def __init__(self, connection: Any) -> None:
        self._socket = socket.socket(fileno=os.dup(connection.pgconn.socket))

    def cut(self) -> None:
        """Who waits for an answer on it gets an error."""
        with suppress(OSError):  # it was cut before, by us or by the server
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """With the connection."""
        self._socket.close()


def engine(url: URL, connections: int, seconds_to_wait: float, *, has_deadline: bool) -> Engine:
    """Connects when it is used. Of several hosts, the one that writes is used. Raises SettingsError."""
    # It takes a while to import, and who uses SQLite can do without. So can we without the dialects of other drivers.
    with later.leaving(*(f"sqlalchemy.dialects.postgresql.{each}" for each in OTHER_DRIVERS)):
        import sqlalchemy.dialects.postgresql  # noqa: F401
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    several = "," in str(url.query.get("host", ""))  # a string, or a tuple of them
    one_that_writes = {"target_session_attrs": "read-write"} if several else {}
    sooner = CONNECT_TIMEOUT_WITH_A_DEADLINE if has_deadline else {}
    query = {**CONNECTION_DEFAULTS, **sooner, **one_that_writes, **url.query}
    url = url.set(drivername="postgresql+psycopg", query=query)
    try:
        made = create_engine(
            url,
            pool_size=connections,
            max_overflow=2,
            pool_timeout=seconds_to_wait,
            connect_args={
                "prepare_threshold": None,  # what one session prepares, the next one does not know
                "autocommit": True,  # transactions begin as _beginning says
            },
        )
        arguments = made.dialect.create_connect_args(url)[1]
        make_conninfo(**{name: value for name, value in arguments.items() if name != "context"})
    except (ArgumentError, ProgrammingError) as error:
        raise SettingsError(f"PRODUCT_GATEWAY_DATABASE_URL cannot be used: {str(error).strip()}") from None
    event.listen(made, "handle_error", _leave_the_server)
    event.listen(made, "begin", _beginning(has_deadline=has_deadline))
    if has_deadline:
        event.listen(made, "do_execute", _not_for_long)
    event.listen(made, "connect", _lay_line, insert=True)  # before SQLAlchemy has its first word
    event.listen(made, "close", _close_line)
    return made


def _lay_line(connection: Any, record: ConnectionPoolEntry) -> None:
    line = record.info[LINE] = Line(connection)
    connected(line)


def _close_line(_connection: Any, record: ConnectionPoolEntry) -> None:
    line = record.info.pop(LINE, None)
    if line is not None:
        line.close()


def _leave_the_server(context: ExceptionContext) -> None:
    """Drops all connections with the one that met such an error: the next use looks for a server that writes."""
    if NOT_THIS_SERVER.fullmatch(getattr(context.original_exception, "sqlstate", None) or ""):
        context.is_disconnect = True


def _beginning(*, has_deadline: bool) -> Callable[[Connection], None]:
    """How transactions begin, by what they are for: in one way to the server and back."""
    write = [
        "BEGIN",
        # A process that stands still in the middle of a write would keep its sync's row locked, and PUT and DELETE of
        # the merchant waiting, for as long as its machine keeps the connection.
        f"SET LOCAL idle_in_transaction_session_timeout = '{LONGEST_SILENCE}'",
    ]
    if has_deadline:  # a row that somebody else holds is not waited for until then
        write.append(f"SET LOCAL lock_timeout = '{LONGEST_WAIT_FOR_A_LOCK}'")
    begins = {
        READ: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",  # one state, whatever others commit meanwhile
        WRITE: "; ".join(write),
    }

    def begin(connection: Connection) -> None:
        purpose = connection.get_execution_options().get(BEGIN, "")
        if purpose not in (ONCE, WRITE_ONCE):
            connection.exec_driver_sql(begins.get(purpose, "BEGIN"))

    return begin


def _not_for_long(cursor: Any, statement: str, parameters: Any, context: ExecutionContext) -> bool:
    """A write by itself waits no longer for a lock than others: what says so goes to the server along with it."""
    if context.execution_options.get(BEGIN) != WRITE_ONCE:
        return False
    with cursor.connection.pipeline():  # up to its end, all is one transaction
        cursor.connection.execute(_SHORT_WAITS)
        cursor.execute(statement, parameters)
    return True
