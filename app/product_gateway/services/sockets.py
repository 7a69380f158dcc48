"""Listening sockets, and how many connections a process can hold."""

import errno
import resource
import socket
import sys

from product_gateway.errors import SettingsError
from product_gateway.settings import Settings

OPERATIONS_PORT_OF_GATEWAY = 8090
OPERATIONS_PORT_OF_WORKER = 8091
BACKLOG = 2048
MAX_CONNECTIONS = 12_000
RESERVED_FILES = 200  # for the database, product services, logs and keys


class PortInUse(SettingsError):
    """Another program listens on the port."""


def bind(host: str, port: int, option: str = "--port") -> socket.socket:
    """Return a listening socket; port 0: any free one. Raises SettingsError that names the `option`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"Port {port} of {host} is in use. Choose another with {option}, or stop the program that listens "
                "there."
            ) from None
        raise SettingsError(f"Cannot listen on port {port} of {host}: {error.strerror or error}.") from None
    return listening


def bind_operations(settings: Settings, port: int) -> socket.socket:
    """Return the socket of the operations port. If the default `port` is in use, take a free one and say so.

    Raises SettingsError if the chosen port is in use.
    """
    host, chosen = settings.operations_host, settings.operations_port
    try:
        return bind(host, port if chosen is None else chosen, "--operations-port or PRODUCT_GATEWAY_OPERATIONS_PORT")
    except PortInUse as error:
        if chosen is not None:
            raise SettingsError(f"{error.detail} It is the operations port (metrics, health, monitor).") from None
    free = bind(host, 0)
    print(
        f"Port {port} of {host} is in use: metrics, health and the monitor are on port {free.getsockname()[1]}. "
        "Choose a port with --operations-port.",
        file=sys.stderr,
    )
    return free


def url_of(listening: socket.socket) -> str:
    """Return the URL of the socket, for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def max_connections() -> int:
    """Raise the limit of open files as far as needed and allowed; return the connections that fit in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + RESERVED_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - RESERVED_FILES))
