"""An HTTP server as a service."""

import asyncio
import socket
import threading
from typing import TYPE_CHECKING

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import Server

from product_gateway.api.error_responses import error_answer
from product_gateway.errors import SettingsError
from product_gateway.http.connections import ConnectionSupervisor
from product_gateway.http.limits import Limits
from product_gateway.http.middleware.response_framing import Framed
from product_gateway.http.middleware.trusted_proxies import TrustedProxies
from product_gateway.services.service import Service
from product_gateway.services.sockets import max_connections
from product_gateway.settings import listed

if TYPE_CHECKING:
    from product_gateway.services.shared_listener import Share

SECONDS_TO_FINISH_REQUESTS = 8


class HTTPServer(Service):
    """An HTTP server for an ASGI application.

    Reverse proxies in front of it: the addresses to trust, and the path prefix that they publish. `share` is the share
    of the connections, where several processes accept them.
    """

    def __init__(
        self,
        app: ASGIApp,
        listening: socket.socket,
        limits: Limits | None = None,
        seconds_to_finish: int = SECONDS_TO_FINISH_REQUESTS,
        name: str = "http",
        *,
        trusted_proxies: str | None = None,
        base_path: str | None = None,
        share: "Share | None" = None,
    ) -> None:
        super().__init__(name)
        self._listening = listening
        if trusted_proxies or base_path:
            app = TrustedProxies(app, trusted_proxies=listed(trusted_proxies), base_path=base_path or "")
        http = ConnectionSupervisor(error_answer, limits or Limits(connections=max_connections()))
        self._server = _Server(
            self._started,
            share,
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

    def __init__(self, answers: threading.Event, share: "Share | None", config: Config) -> None:
        super().__init__(config)
        self._answers = answers
        self._share = share

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._share is None:
            await super().startup(sockets=sockets)
        else:
            from product_gateway.services.shared_listener import Acceptor

            await super().startup(sockets=[])
            accepting = (self._make_protocol, lambda: len(self.server_state.connections), self._share)
            self.servers = [Acceptor(each, *accepting) for each in sockets or ()]  # type: ignore[misc]
        self._answers.set()

    def _make_protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made
