"""PostgreSQL: how to reach it where it has several hosts, when to leave one of them, how to cut a connection.

Nothing here or elsewhere in `db` keeps anything in a session, so that PgBouncer may give every transaction another.
"""

import os
import re
import socket
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from product_gateway.db.errors import READ_ONLY
from product_gateway.db.executor import BEGIN, LINE, ONCE, READ, WRITE, WRITE_ONCE, connected
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
LONGEST_SILENCE = "5s"  # between two statements of a transaction
LONGEST_WAIT_FOR_A_LOCK = "1500ms"  # with a deadline
LONGEST_WAIT_WITHOUT_A_DEADLINE = "30s"
LONGEST_STATEMENT = "300s"  # without a deadline
SECONDS_TO_CANCEL = 2.0
OLDEST = 130000  # the version: PostgreSQL 13
DIFFERENT = "different"  # where a connection's `info` has those of OTHER_PARAMETERS that the server has otherwise
# What the driver and our statements assume.
REPORTED_PARAMETERS = {"DateStyle": "ISO", "TimeZone": "UTC", "standard_conforming_strings": "on"}
OTHER_PARAMETERS = {"default_transaction_isolation": "read committed", "array_nulls": "on"}
# SQLSTATEs of a server that does not write (any more), that breaks off or is going away.
NOT_THIS_SERVER = re.compile(f"{READ_ONLY}|08...|57P0.")
OTHER_DRIVERS = ("asyncpg", "pg8000", "psycopg2cffi")
# RFC 3986, but strict: a password with one of these characters in it fits no other reading of the URL either.
_ENCODED = r"%[0-9A-Fa-f]{2}"
_HOST = rf"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|(?:[\w.-]|{_ENCODED})*)(?::[0-9]{{1,5}})?"
URL_OF_POSTGRESQL = re.compile(
    r"(?:postgres|postgresql|postgresql\+psycopg)://"
    rf"(?:(?P<user>(?:[^:/?#\[\]@%\s]|{_ENCODED})*)(?::(?P<password>(?:[^/?#@%\s]|{_ENCODED})*))?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)"
    rf"(?:/(?P<database>(?:[^/?#@%\s]|{_ENCODED})*))?"
    rf"(?:\?(?P<query>[a-z_]+=(?:[^&#@%\s]|{_ENCODED})*(?:&[a-z_]+=(?:[^&#@%\s]|{_ENCODED})*)*)?)?"
)
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://")


def parsed(url: str) -> URL:
    """Parse a URL as libpq documents it; several hosts or a socket's folder become `?host=h1,h2&port=5432,5432`.

    Raises ValueError where the URL is in doubt. The error quotes nothing of it.
    """
    found = URL_OF_POSTGRESQL.fullmatch(url)
    if found is None:
        raise ValueError("not a URL of PostgreSQL")
    decoded = {name: None if value is None else unquote(value) for name, value in found.groupdict().items()}
    query: dict[str, str | tuple[str, ...]] = {}
    for each in (found["query"] or "").split("&"):
        name, _, value = each.partition("=")
        if name:
            before = query.get(name, ())
            query[name] = (
                (*([before] if isinstance(before, str) else before), unquote(value)) if before else unquote(value)
            )
    names, ports = [], []
    for each in found["hosts"].split(","):
        host, port = re.fullmatch(r"(.*?)(?::([0-9]+))?", each).groups("")  # type: ignore[union-attr]
        if port and not 0 < int(port) < 65536:
            raise ValueError("not a port")
        names.append(unquote(host.strip("[]")))
        ports.append(port)
    if len(names) > 1 and not all(names):
        raise ValueError("a host is missing")
    is_plain = len(names) == 1 and not names[0].startswith(("/", "@"))  # else it is a socket's folder
    if not is_plain:
        query = {"host": ",".join(names), **({"port": ",".join(ports)} if any(ports) else {}), **query}
    return URL.create(
        "postgresql+psycopg",
        decoded["user"] or None,
        decoded["password"],
        (names[0] or None) if is_plain else None,
        int(ports[0]) if is_plain and ports[0] else None,
        decoded["database"] or None,
        query,
    )


def without_secrets(url: URL) -> str:
    """Return the URL for the operator, without its password and without parameters, which may hold one."""
    hosts = {name: value for name, value in url.query.items() if name in ("host", "port")}
    return unquote(url.set(query=hosts).render_as_string(hide_password=True))


class PostgreSQLConnection:
    """A connection's socket, under a number of its own: libpq may close its number at any moment."""

    def __init__(self, connection: Any) -> None:
        self._socket = socket.socket(fileno=os.dup(connection.pgconn.socket))
        self._connection = connection
        self.was_cut = False

    def cut(self) -> None:
        """Make the server cancel the statement; the second time, shut down the socket as well.

        Without the first, the server goes on with a statement whose client is gone, and with waiting for its lock.
        """
        if self.was_cut:
            with suppress(OSError):  # it was shut down before, by us or by the server
                self._socket.shutdown(socket.SHUT_RDWR)
            return
        self.was_cut = True
        # In a thread: it connects to the server, and the event loop must not wait for that.
        threading.Thread(target=self._cancel, name="database-cancel", daemon=True).start()

    def _cancel(self) -> None:
        from psycopg import Error

        # The server may be away, which is why the line is cut; or the connection was closed meanwhile.
        with suppress(Error, OSError):
            self._connection.cancel_safe(timeout=SECONDS_TO_CANCEL)

    def close(self) -> None:
        """With the connection."""
        self._socket.close()

    def __del__(self) -> None:
        # SQLAlchemy has no event for a connection whose set-up failed: a server that is too old, or that went away.
        if hasattr(self, "_socket"):
            self._socket.close()


def engine(url: URL, connections: int, seconds_to_wait: float, *, deadline: float | None) -> Engine:
    """Connects when it is used. Of several hosts, the one that writes is used. Raises SettingsError."""
    # It takes a while to import, and who uses SQLite can do without. So can we without the dialects of other drivers.
    import sqlalchemy.dialects.postgresql  # noqa: F401
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    hosts = url.query.get("host", "")
    several = not isinstance(hosts, str) or "," in hosts
    one_that_writes = {"target_session_attrs": "read-write"} if several else {}
    sooner = CONNECT_TIMEOUT_WITH_A_DEADLINE if deadline is not None else {}
    query = {**CONNECTION_DEFAULTS, **sooner, **one_that_writes, **url.query, "client_encoding": "UTF8"}
    url = url.set(query=query)
    try:
        made = create_engine(
            url,
            pool_size=connections,
            max_overflow=2,
            pool_timeout=seconds_to_wait,
            use_native_hstore=False,  # else each first connection asks for a type that we do not use
            connect_args={
                "prepare_threshold": None,  # what one session prepares, the next one does not know
                "autocommit": True,  # transactions begin as _Transactions says
            },
        )
        arguments = made.dialect.create_connect_args(url)[1]
        make_conninfo(**{name: value for name, value in arguments.items() if name != "context"})
    except (ArgumentError, ProgrammingError) as error:
        raise SettingsError(f"PRODUCT_GATEWAY_DATABASE_URL cannot be used: {str(error).strip()}") from None
    transactions = _Transactions(deadline)
    event.listen(made, "handle_error", _leave_the_server)
    event.listen(made, "begin", transactions.begin)
    event.listen(made, "do_execute", transactions.execute_once)
    event.listen(made, "connect", _lay_line, insert=True)  # before SQLAlchemy has its first word
    event.listen(made, "connect", _set_up_session)
    event.listen(made, "close", _close_line)
    return made


def _lay_line(connection: Any, record: ConnectionPoolEntry) -> None:
    line = record.info[LINE] = PostgreSQLConnection(connection)
    connected(line)


def _close_line(_connection: Any, record: ConnectionPoolEntry) -> None:
    line = record.info.pop(LINE, None)
    if line is not None:
        line.close()


def _set_up_session(connection: Any, record: ConnectionPoolEntry) -> None:
    """Require a server that we can use, and make the session independent of the server's settings.

    The operator may have changed any of them for the server, the database or the role.
    Raises psycopg.OperationalError.
    """
    from psycopg import OperationalError

    reported = connection.info.parameter_status
    if connection.info.server_version < OLDEST:
        raise OperationalError(
            f"The server is PostgreSQL {reported('server_version')}; version {OLDEST // 10000} or newer is needed."
        )
    if reported("server_encoding") != "UTF8":
        raise OperationalError(
            f'The database "{connection.info.dbname}" has the encoding {reported("server_encoding")}, and must have '
            "UTF8. Create one with: CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0."
        )
    # PgBouncer follows these from session to session; the server reports them, so most often nothing has to be said.
    for name, value in REPORTED_PARAMETERS.items():
        if not str(reported(name)).startswith(value):
            connection.execute(f"SET {name} TO '{value}'")
    # PgBouncer does not follow these, so where they differ, every transaction sets them for itself.
    looked_at = ", ".join(f"current_setting('{name}')" for name in OTHER_PARAMETERS)
    found = connection.execute(f"BEGIN; SET LOCAL statement_timeout = '10s'; SELECT {looked_at}; COMMIT")
    while found.pgresult.ntuples == 0:
        found.nextset()
    values = dict(zip(OTHER_PARAMETERS, found.fetchone(), strict=True))
    record.info[DIFFERENT] = {name: value for name, value in OTHER_PARAMETERS.items() if values[name] != value}


def _leave_the_server(context: ExceptionContext) -> None:
    """Drops all connections with the one that met such an error: the next use looks for a server that writes."""
    if NOT_THIS_SERVER.fullmatch(getattr(context.original_exception, "sqlstate", None) or ""):
        context.is_disconnect = True


class _Transactions:
    """How transactions begin. All that they depend on is sent along with their first statement, at no extra trip.

    It is set for the transaction (SET LOCAL) and not for the session, which PgBouncer may give to others.
    """

    def __init__(self, deadline: float | None) -> None:
        hurried = deadline is not None
        self._limits = {
            # A row or table that somebody else holds is not waited for until a deadline.
            "lock_timeout": LONGEST_WAIT_FOR_A_LOCK if hurried else LONGEST_WAIT_WITHOUT_A_DEADLINE,
            # PostgreSQL says before the deadline that nothing was done, and the connection lives on.
            "statement_timeout": f"{deadline * 950:.0f}ms" if deadline is not None else LONGEST_STATEMENT,
            # A process that stands still in the middle of a write would keep its sync's row locked, and PUT and
            # DELETE of the merchant waiting, for as long as its machine keeps the connection.
            "idle_in_transaction_session_timeout": LONGEST_SILENCE,
        }
        self._once = _set_config(self._limits)

    def begin(self, connection: Connection) -> None:
        """Handle SQLAlchemy's event of this name."""
        purpose = connection.get_execution_options().get(BEGIN, WRITE)
        different = connection.info[DIFFERENT]
        if purpose in (ONCE, WRITE_ONCE) and not different:
            return  # see execute_once
        # A read sees one state, whatever others commit meanwhile.
        level = "REPEATABLE READ, READ ONLY" if purpose == READ else "READ COMMITTED"
        local = "".join(f"; SET LOCAL {name} = '{value}'" for name, value in {**self._limits, **different}.items())
        connection.exec_driver_sql(f"BEGIN ISOLATION LEVEL {level}{local}")

    def execute_once(self, cursor: Any, statement: str, parameters: Any, context: ExecutionContext) -> bool:
        """Handle SQLAlchemy's event `do_execute`, for a statement that is a transaction by itself."""
        if context.execution_options.get(BEGIN) not in (ONCE, WRITE_ONCE):
            return False
        if context.root_connection.info[DIFFERENT]:
            return False
        with cursor.connection.pipeline():  # up to its end, all is one transaction
            cursor.connection.execute(self._once)
            cursor.execute(statement, parameters)
        return True


def _set_config(values: dict[str, str]) -> str:
    return "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in values.items())
