"""An HTTP server as a service."""

import socket
import threading
from dataclasses import dataclass

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import Server

from product_gateway.api.error_responses import error_answer
from product_gateway.errors import SettingsError
from product_gateway.http.connections import ConnectionSupervisor
from product_gateway.http.limits import Limits
from product_gateway.http.middleware.response_framing import Framed
from product_gateway.http.middleware.trusted_proxies import TrustedProxies
from product_gateway.services.service import ThreadService
from product_gateway.services.sockets import max_connections
from product_gateway.settings import Settings, listed

SECONDS_TO_FINISH_REQUESTS = 8


@dataclass(frozen=True, slots=True)
class Proxies:
    """The reverse proxies in front of a server: trusted addresses, and the path prefix that they publish."""

    trusted: tuple[str, ...] = ()
    base_path: str = ""

    @classmethod
    def of_gateway(cls, settings: Settings) -> "Proxies":
        """Return the proxies in front of the gateway's port."""
        return cls(tuple(listed(settings.trusted_proxies)), settings.public_base_path or "")

    @classmethod
    def of_operations(cls, settings: Settings) -> "Proxies":
        """Return the proxies in front of the operations port."""
        return cls(tuple(listed(settings.trusted_proxies)), settings.operations_base_path or "")


NO_PROXIES = Proxies()


class HTTPServer(ThreadService):
    """An HTTP server for an ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        listening: socket.socket,
        limits: Limits | None = None,
        seconds_to_finish: int = SECONDS_TO_FINISH_REQUESTS,
        proxies: Proxies = NO_PROXIES,
        name: str = "http",
    ) -> None:
        super().__init__(name)
        self._listening = listening
        if proxies != NO_PROXIES:
            app = TrustedProxies(app, trusted_proxies=proxies.trusted, base_path=proxies.base_path)
        http = ConnectionSupervisor(error_answer, limits or Limits(connections=max_connections()))
        self._server = _Server(
            self._started,
            Config(
                Framed(app),
                loop="uvloop",
                http=http,  # type: ignore[arg-type]  # a protocol factory
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # else uvicorn reads the trusted proxies from the environment
                timeout_graceful_shutdown=seconds_to_finish,
            ),
        )

    def start(self) -> None:
        """Return once the server answers. Raises SettingsError."""
        super().start()
        if not self._server.started:
            raise SettingsError("The server did not start; the messages above say why.")

    def _run(self) -> None:
        self._server.run(sockets=[self._listening])

    def _request_stop(self) -> None:
        self._server.should_exit = True


class _Server(Server):
    """uvicorn's server; sets an event once it answers."""

    def __init__(self, answers: threading.Event, config: Config) -> None:
        super().__init__(config)
        self._answers = answers

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._answers.set()
