"""Whether the database can be used for all that a server does with it: read, written to and committed."""

import asyncio

from sqlalchemy import Connection, update

from product_gateway.db import Database, migrate
from product_gateway.db.faults import AWAY, NOT_KNOWN
from product_gateway.db.tables import now, readiness
from product_gateway.errors import Unavailable

NOT_UP_TO_DATE = "The database's tables are not up to date."
SECONDS_THAT_AN_OUTCOME_HOLDS = 1.0


class Readiness:
    """Asks the database once for all who ask at the same time, and no more than once a second: anybody may ask."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asking: asyncio.Task[Unavailable | None] | None = None
        self._holds_until = 0.0

    async def check(self) -> None:
        """Raises Unavailable."""
        if self._asking is None or (self._asking.done() and asyncio.get_running_loop().time() >= self._holds_until):
            self._asking = asyncio.create_task(self._ask())
        fault = await asyncio.shield(self._asking)  # who goes away leaves the others their answer
        if fault is not None:
            # nobody minds whether this write was done
            raise Unavailable(AWAY if fault.detail == NOT_KNOWN else fault.detail) from fault.__cause__

    async def _ask(self) -> Unavailable | None:
        self._database.start_clock()
        try:
            await self._database.write(prove)
        except Unavailable as fault:
            return fault
        finally:
            self._holds_until = asyncio.get_running_loop().time() + SECONDS_THAT_AN_OUTCOME_HOLDS
        return None


def prove(connection: Connection) -> None:
    """The tables fit this code, and can be written to. Raises Unavailable."""
    if not migrate.fits(connection):
        raise Unavailable(NOT_UP_TO_DATE)
    if connection.execute(update(readiness).values(checked_at=now())).rowcount != 1:
        raise Unavailable(NOT_UP_TO_DATE)
