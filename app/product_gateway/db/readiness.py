"""Readiness: whether the database can be read, written to and committed."""

from uuid import UUID

from sqlalchemy import Connection, LargeBinary, Text, Uuid, bindparam, exists, false, select, update
from sqlalchemy.exc import SQLAlchemyError

from product_gateway.db import migrate
from product_gateway.db.database import Database
from product_gateway.db.errors import AWAY, NOT_KNOWN
from product_gateway.db.single_flight import SingleFlight
from product_gateway.db.tables import metadata, readiness
from product_gateway.db.types import now
from product_gateway.errors import Unavailable

NOT_UP_TO_DATE = "The database's tables are not up to date."
NOT_OUR_VALUES = "The database returns other values than it is given."


class Readiness:
    """A single-flight readiness check: anyone may ask, and the database is asked at most once a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._faults = SingleFlight()

    async def check(self) -> None:
        """Raises Unavailable."""
        fault = await self._faults.get("fault", self._find_fault)
        if fault is not None:
            # The outcome of this write does not matter to clients.
            raise Unavailable(AWAY if fault.detail == NOT_KNOWN else fault.detail) from fault.__cause__

    async def _find_fault(self) -> Unavailable | None:
        self._database.start_deadline()
        try:
            await self._database.write(check_writable)
        except Unavailable as fault:
            return fault
        except SQLAlchemyError as fault:  # such as a missing column
            refused = Unavailable(NOT_UP_TO_DATE)
            refused.__cause__ = fault
            return refused
        return None


_sample = {"an_id": UUID(int=2**127 - 1), "some_bytes": b"\x00\\\xff", "some_text": "\u00e9\u2082\U0001f642\\"}
_return_sample = select(
    now().label("a_time"),
    bindparam("an_id", type_=Uuid()).cast(Uuid()).label("an_id"),
    bindparam("some_bytes", type_=LargeBinary()).cast(LargeBinary()).label("some_bytes"),
    bindparam("some_text", type_=Text()).cast(Text()).label("some_text"),
)
# Selects no row: a table may start with many dead ones.
_name_all_columns = select(*(exists(select(each).where(false())) for each in metadata.tables.values()))


def check_writable(connection: Connection) -> None:
    """Do once what requests do: name every column, exchange values of every type, write. Raises Unavailable."""
    if not migrate.fits(connection):
        raise Unavailable(NOT_UP_TO_DATE)
    connection.execute(_name_all_columns).one()
    row = connection.execute(_return_sample, _sample).one()._asdict()
    if row.pop("a_time").utcoffset() is None or row != _sample:
        raise Unavailable(NOT_OUR_VALUES)
    if connection.execute(update(readiness).values(checked_at=now())).rowcount != 1:
        raise Unavailable(NOT_UP_TO_DATE)
