"""Handlers of the health checks."""

from product_gateway.db.database import Database
from product_gateway.db.readiness import Readiness
from product_gateway.http.responses import Response
from product_gateway.openapi.types import HealthResponse
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry.version import version

HEALTHY: Response[HealthResponse] = Response({"data": {"status": "ok", "version": version()}, "meta": {}})


class HealthHandlers:
    """Liveness and readiness of this process."""

    def __init__(self, database: Database, supervisor: Supervisor) -> None:
        self._readiness = Readiness(database)
        self._supervisor = supervisor

    async def get_liveness(self) -> Response[HealthResponse]:
        """Return 200 whenever the process can answer: the database does not matter."""
        return HEALTHY

    async def get_readiness(self) -> Response[HealthResponse]:
        """Raise Unavailable if the database cannot be written to or a background task has stopped."""
        await self._readiness.check()
        self._supervisor.check()
        return HEALTHY
