"""The operations port as a service."""

import logging
import socket

from product_gateway.operations.app import create_operations_app
from product_gateway.services.http_server import HTTPServer, Proxies
from product_gateway.services.sockets import url_of
from product_gateway.settings import Settings
from product_gateway.supervisor import Supervisor
from product_gateway.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

SECONDS_TO_FINISH_SCRAPES = 1


class OperationsServer(HTTPServer):
    """Metrics, health and the monitor. Stopped last, so that an orchestrator can follow the other services."""

    def __init__(self, settings: Settings, metrics: Metrics, supervisor: Supervisor, listening: socket.socket) -> None:
        app, self._close_streams = create_operations_app(settings, metrics, supervisor)
        proxies = Proxies.of_operations(settings)
        super().__init__(app, listening, None, SECONDS_TO_FINISH_SCRAPES, proxies, name="operations")

    def start(self) -> None:
        """Return once the server answers. Raises SettingsError."""
        super().start()
        url = url_of(self._listening)
        logger.info("Metrics and health are at %s/metrics, the monitor at %s/monitor", url, url)

    def _request_stop(self) -> None:
        self._close_streams()
        super()._request_stop()
