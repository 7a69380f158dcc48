"""Handlers of the health checks."""

from collections.abc import Awaitable, Callable

from product_gateway.db.database import Database
from product_gateway.db.readiness import Readiness
from product_gateway.http.responses import Response
from product_gateway.openapi.types import HealthResponse
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry.version import version

HEALTHY: Response[HealthResponse] = Response({"data": {"status": "ok", "version": version()}, "meta": {}})


class HealthHandlers:
    """Liveness and readiness of this process, and with `check_group` of all processes of its group."""

    def __init__(
        self, database: Database, supervisor: Supervisor, check_group: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._readiness = Readiness(database)
        self._supervisor = supervisor
        self._check_group = check_group

    async def get_liveness(self) -> Response[HealthResponse]:
        """Return 200 whenever the process can answer: the database does not matter."""
        return HEALTHY

    async def get_readiness(self) -> Response[HealthResponse]:
        """Raise Unavailable if the database cannot be written to, or a background task or process has stopped."""
        await self._readiness.check()
        self._supervisor.check()
        if self._check_group is not None:
            await self._check_group()
        return HEALTHY
