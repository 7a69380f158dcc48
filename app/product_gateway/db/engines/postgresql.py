"""PostgreSQL: URLs with several hosts, failover, cancellation and session settings.

Behind PgBouncer, which may run each transaction in another session, nothing is kept in a session. Without a pooler,
settings and prepared statements stay in it, and a process may LISTEN.
"""

import math
import os
import re
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.engine import ExecutionContext
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from product_gateway.db.errors import AWAY, READ_ONLY
from product_gateway.db.executor import BEGIN, CANCELLABLE, Purpose, connected
from product_gateway.errors import SettingsError, Unavailable

# Unless the URL says otherwise. A host that disappears silently is noticed within ten seconds: by keepalives while
# waiting for an answer, by the user timeout while sending.
CONNECTION_DEFAULTS = {
    "application_name": "product-gateway",
    "connect_timeout": "3",  # of each host
    "keepalives_idle": "3",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",  # milliseconds
}
LONGEST_SILENCE = "5s"  # between two statements of a transaction
LONGEST_WAIT_FOR_A_LOCK = "1500ms"  # with a deadline
LONGEST_WAIT_WITHOUT_A_DEADLINE = "30s"
LONGEST_STATEMENT = "300s"  # without a deadline
SECONDS_TO_CANCEL = 2.0
OLDEST = 130000  # PostgreSQL 13
DEFAULT = Purpose(writes=True)
# Keys of a connection's `info`.
LOCAL = "local"  # the settings of each transaction; None: they are set for the session, as there is no pooler
PREPARED = "prepared"  # without a pooler: since when statements have been prepared, by the monotonic clock
# Tables grow, and PostgreSQL does not plan a prepared statement again before it has counted the rows.
SECONDS_OF_A_PLAN = 5.0
# What the driver and our statements assume.
REPORTED_PARAMETERS = {"DateStyle": "ISO", "TimeZone": "UTC", "standard_conforming_strings": "on"}
OTHER_PARAMETERS = {
    "default_transaction_isolation": "read committed",
    "array_nulls": "on",
    "transaction_timeout": "0",  # since PostgreSQL 17; statements have limits of their own
}
SESSION_PARAMETERS = {"idle_session_timeout": "0"}  # since PostgreSQL 14; a pooler's sessions are its own concern
# SQLSTATEs of a server that is read-only, that breaks off or is shutting down.
NOT_THIS_SERVER = re.compile(f"{READ_ONLY}|08...|57P0.")
# RFC 3986, but strict: an unencoded reserved character in a password makes the URL ambiguous.
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

    Raises ValueError for an ambiguous URL, without quoting it.
    """
    found = URL_OF_POSTGRESQL.fullmatch(url)
    if found is None:
        raise ValueError("not a URL of PostgreSQL")
    decoded = {name: None if value is None else unquote(value) for name, value in found.groupdict().items()}
    values: dict[str, tuple[str, ...]] = {}
    for name, _, value in (each.partition("=") for each in (found["query"] or "").split("&") if each):
        values[name] = (*values.get(name, ()), unquote(value))
    query: dict[str, str | tuple[str, ...]] = {
        name: value if len(value) > 1 else value[0] for name, value in values.items()
    }
    names, ports = [], []
    for each in found["hosts"].split(","):
        host, port = re.fullmatch(r"(.*?)(?::([0-9]+))?", each).groups("")  # type: ignore[union-attr]
        if port and not 0 < int(port) < 65536:
            raise ValueError("not a port")
        names.append(unquote(host.strip("[]")))
        ports.append(port)
    if len(names) > 1 and not all(names):
        raise ValueError("a host is missing")
    is_plain = len(names) == 1 and not names[0].startswith(("/", "@"))  # no socket's folder
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


class CancellableConnection:
    """A duplicate of a connection's socket: libpq may close its own descriptor at any moment."""

    def __init__(self, connection: Any) -> None:
        self._socket = socket.socket(fileno=os.dup(connection.pgconn.socket))
        self._connection = connection
        self.was_cancelled = False

    def cancel(self) -> None:
        """Ask the server to cancel the statement; at the second call, shut down the socket.

        Without the first step the server would continue the statement of a lost client, and its wait for a lock.
        """
        if self.was_cancelled:
            with suppress(OSError):  # it is shut down already
                self._socket.shutdown(socket.SHUT_RDWR)
            return
        self.was_cancelled = True
        # In a thread, because it connects to the server.
        threading.Thread(target=self._cancel, name="database-cancel", daemon=True).start()

    def _cancel(self) -> None:
        from psycopg import Error

        # The server may be away, or the connection was closed meanwhile.
        with suppress(Error, OSError):
            self._connection.cancel_safe(timeout=SECONDS_TO_CANCEL)

    def was_ended_by_server(self) -> bool:
        """Return whether the server, or a host between, has closed the connection while it was idle."""
        from psycopg import OperationalError

        try:
            while self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                self._connection.pgconn.consume_input()  # a notice, or a record of TLS
        except BlockingIOError:
            return False
        except (OperationalError, OSError):
            pass
        return True

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        # SQLAlchemy has no event for a connection whose set-up failed.
        if hasattr(self, "_socket"):
            self._socket.close()


def engine(url: URL, connections: int, seconds_to_wait: float, *, deadline: float | None) -> Engine:
    """Return an engine that connects at first use, to the writable one of several hosts. Raises SettingsError."""
    # Slow imports that SQLite does not need.
    import sqlalchemy.dialects.postgresql  # noqa: F401
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    hosts = url.query.get("host", "")
    several = not isinstance(hosts, str) or "," in hosts
    writable = {"target_session_attrs": "read-write"} if several else {}
    sooner = {"connect_timeout": "2"} if deadline is not None else {}  # psycopg's minimum
    query = {**CONNECTION_DEFAULTS, **sooner, **writable, **url.query, "client_encoding": "UTF8"}
    url = url.set(query=query)
    try:
        made = create_engine(
            url,
            pool_size=connections,
            max_overflow=2,
            pool_timeout=seconds_to_wait,
            use_native_hstore=False,  # saves a query for an unused type at the first connection
            connect_args={
                "prepare_threshold": None,  # see _Sessions
                "autocommit": True,  # _Sessions starts the transactions
            },
        )
        arguments = made.dialect.create_connect_args(url)[1]
        make_conninfo(**{name: value for name, value in arguments.items() if name != "context"})
    except (ArgumentError, ProgrammingError) as error:
        raise SettingsError(f"PRODUCT_GATEWAY_DATABASE_URL cannot be used: {str(error).strip()}") from None
    sessions = _Sessions(deadline)
    event.listen(made, "handle_error", _leave_the_server)
    event.listen(made, "begin", sessions.begin)
    event.listen(made, "do_execute", sessions.execute_autocommit)
    event.listen(made, "connect", _register, insert=True)  # before SQLAlchemy sends its first statement
    event.listen(made, "connect", sessions.set_up)
    event.listen(made, "checkout", _check_connection)
    event.listen(made, "close", _close)
    return made


async def notifications(engine: Engine, channel: str) -> AsyncIterator[None]:
    """Yield once when the connection listens, and for each notification. End if a pooler is in between.

    Uses a connection of its own. Raises Unavailable when that breaks.
    """
    from psycopg import AsyncConnection, Error

    arguments = engine.dialect.create_connect_args(engine.url)[1]
    arguments.pop("context", None)
    try:
        async with await AsyncConnection.connect(**arguments, autocommit=True) as connection:
            # In transaction mode, a pooler would let LISTEN reach any session.
            found = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
            if found != (connection.info.backend_pid,):  # a pooler reports a process id of its own
                return
            for name, value in SESSION_PARAMETERS.items():
                set_known = "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = %s"
                await connection.execute(set_known, (value, name))
            await connection.execute(f"LISTEN {channel}")
            yield
            async for _ in connection.notifies():
                yield
    except Error as error:
        raise Unavailable(AWAY) from error


def _register(connection: Any, record: ConnectionPoolEntry) -> None:
    cancellable = record.info[CANCELLABLE] = CancellableConnection(connection)
    connected(cancellable)


def _check_connection(_connection: Any, record: ConnectionPoolEntry, _proxy: Any) -> None:
    """Replace a pooled connection that has ended while it was idle. Costs no round trip."""
    if record.info[CANCELLABLE].was_ended_by_server():
        raise DisconnectionError  # the pool connects anew


def _close(_connection: Any, record: ConnectionPoolEntry) -> None:
    cancellable = record.info.pop(CANCELLABLE, None)
    if cancellable is not None:
        cancellable.close()


def _leave_the_server(context: ExceptionContext) -> None:
    """Drop all pooled connections after such an error: the next use connects to a writable server."""
    if NOT_THIS_SERVER.fullmatch(getattr(context.original_exception, "sqlstate", None) or ""):
        context.is_disconnect = True


class _Sessions:
    """Sets up sessions, and starts transactions with their settings, which need no extra round trip.

    Behind a pooler, settings are local to a transaction (SET LOCAL), as the session may be given to other clients.
    """

    def __init__(self, deadline: float | None) -> None:
        self._limits = {
            # A wait for a lock ends before the deadline.
            "lock_timeout": LONGEST_WAIT_WITHOUT_A_DEADLINE if deadline is None else LONGEST_WAIT_FOR_A_LOCK,
            # PostgreSQL cancels before the deadline, so the outcome is known and the connection remains usable.
            "statement_timeout": f"{deadline * 950:.0f}ms" if deadline is not None else LONGEST_STATEMENT,
            # A process that stops in the middle of a write would keep its sync's row locked, and block PUT and
            # DELETE of the merchant, until its connection breaks.
            "idle_in_transaction_session_timeout": LONGEST_SILENCE,
        }
        self._set_local = _set_config(self._limits, local=True)

    def set_up(self, connection: Any, record: ConnectionPoolEntry) -> None:
        """Check version and encoding, and make the session independent of the settings of server, database and role.

        Handles SQLAlchemy's event `connect`. Raises psycopg.OperationalError.
        """
        _check_server(connection)
        reported = connection.info.parameter_status
        # PgBouncer tracks these; the server reports them, so mostly there is nothing to set.
        for name, value in REPORTED_PARAMETERS.items():
            if not str(reported(name)).startswith(value):
                connection.execute(f"SET {name} TO '{value}'")
        wanted = {**OTHER_PARAMETERS, **SESSION_PARAMETERS}
        looked_at = ", ".join(f"current_setting('{name}', true)" for name in wanted)  # null where it is unknown
        found = connection.execute(
            f"BEGIN; SET LOCAL statement_timeout = '10s'; SELECT pg_backend_pid(), {looked_at}; COMMIT"
        )
        while found.pgresult.ntuples == 0:
            found.nextset()
        process_id, *values = found.fetchone()
        found_values = dict(zip(wanted, values, strict=True))
        different = {name: value for name, value in wanted.items() if found_values[name] not in (None, value)}
        of_session = {name: different.pop(name) for name in SESSION_PARAMETERS if name in different}
        record.info[LOCAL] = {**self._limits, **different}
        if process_id == connection.info.backend_pid:  # a pooler reports a process id of its own
            connection.execute(_set_config({**record.info[LOCAL], **of_session}, local=False))
            record.info[LOCAL] = None
            record.info[PREPARED] = time.monotonic()
            connection.prepare_threshold = sys.maxsize  # only what is marked, and that at once

    def begin(self, connection: Connection) -> None:
        """Handle SQLAlchemy's event `begin`."""
        purpose = connection.get_execution_options().get(BEGIN, DEFAULT)
        local = connection.info[LOCAL]
        if purpose.autocommit and self._may_autocommit(local):
            return  # see execute_autocommit
        # REPEATABLE READ: a read sees one snapshot.
        level = "REPEATABLE READ, READ ONLY" if purpose == Purpose(writes=False) else "READ COMMITTED"
        settings = "".join(f"; SET LOCAL {name} = '{value}'" for name, value in (local or {}).items())
        connection.exec_driver_sql(f"BEGIN ISOLATION LEVEL {level}{settings}")

    def _may_autocommit(self, local: dict[str, str] | None) -> bool:
        """Return whether a statement may be its own transaction, which has the session's level of isolation."""
        return local is None or local == self._limits

    def execute_autocommit(self, cursor: Any, statement: str, parameters: Any, context: ExecutionContext) -> bool:
        """Handle SQLAlchemy's event `do_execute`, for a statement that is its own transaction."""
        purpose = context.execution_options.get(BEGIN, DEFAULT)
        if not purpose.autocommit or not self._may_autocommit(context.root_connection.info[LOCAL]):
            return False
        info = context.root_connection.info
        if info[LOCAL] is None:
            _execute_prepared(cursor, statement, parameters, info)
        else:
            _execute_in_pipeline(cursor, statement, parameters, self._set_local)
        return True


def _check_server(connection: Any) -> None:
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


def _set_config(settings: dict[str, str], *, local: bool) -> str:
    return "SELECT " + ", ".join(f"set_config('{name}', '{value}', {local})" for name, value in settings.items())


def _execute_prepared(cursor: Any, statement: str, parameters: Any, info: dict[Any, Any]) -> None:
    from psycopg.errors import FeatureNotSupported, InvalidSqlStatementName

    now = time.monotonic()
    if now - info[PREPARED] > SECONDS_OF_A_PLAN:
        # The time makes the text new: psycopg looks only at the result of a new one, and so forgets its names.
        cursor.connection.execute(f"DEALLOCATE ALL -- {now}")
        info[PREPARED] = now
    try:
        cursor.execute(statement, parameters, prepare=True)
    # "cached plan must not change result type": a column has another type now. Or the session has lost the statement.
    except (FeatureNotSupported, InvalidSqlStatementName):
        info[PREPARED] = -math.inf
        cursor.execute(statement, parameters, prepare=False)


def _execute_in_pipeline(cursor: Any, statement: str, parameters: Any, set_local: str) -> None:
    """Execute both statements in one implicit transaction and one round trip."""
    from psycopg import Error

    connection = cursor.connection
    try:
        with connection.pipeline():
            connection.execute(set_local)
            cursor.execute(statement, parameters)
    except Error as error:
        if connection.pgconn.pipeline_status:  # it cannot be left: the session ended during the commit
            connection.close()
            if isinstance(error.__context__, Error):
                raise error.__context__ from None
        raise
