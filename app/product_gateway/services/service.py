"""The services of a process: each runs an event loop in a thread of its own, and one runner starts and stops them."""

import logging
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

from product_gateway import data_directory, gc_tuning
from product_gateway.errors import SettingsError
from product_gateway.settings import Settings
from product_gateway.telemetry import logs

logger = logging.getLogger(__name__)

SECONDS_TO_START = 30
SECONDS_BETWEEN_CHECKS = 1.0
INTERRUPTED = 130  # the exit status of shells after Ctrl-C


class Service(ABC):
    """A long-running part of a process, in a thread. Also a context manager that starts and stops it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, name=name)

    def start(self) -> None:
        """Start the thread; return when the service works, has ended, or SECONDS_TO_START have passed.

        Raises SettingsError.
        """
        self._thread.start()
        self._started.wait(SECONDS_TO_START)

    def stop(self) -> None:
        """Finish current work and return once the service has ended. Does nothing if it was not started."""
        if self._thread.ident is not None:
            self._request_stop()
            self._thread.join()

    @property
    def healthy(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def _run(self) -> None:
        """Run to the end in the thread; set `_started` once the service works."""

    @abstractmethod
    def _request_stop(self) -> None:
        """Ask `_run` to return. Called from another thread."""

    def _main(self) -> None:
        try:
            self._run()
        except Exception:
            logger.exception("The service %s has ended with an error.", self.name)
        finally:
            self._started.set()


def configure_log(settings: Settings) -> None:
    """Log as the settings say from now on, beginning with a warning about the data directory if there is one."""
    logs.configure(settings.log_level, settings.log_format)
    if warning := data_directory.warning(settings):
        logger.warning("%s", warning)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that stop this process: SIGTERM, Ctrl-C, and a closed terminal unless `nohup` ignores it."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT) if is_ignored else (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def shutdown_on_signals() -> threading.Event:
    """Return the shutdown event of this process, set by `stop_signals` from now on. A second Ctrl-C ends it."""
    shutdown = threading.Event()

    def stop(number: int, _: object) -> None:
        if number == signal.SIGINT and shutdown.is_set():
            os._exit(INTERRUPTED)  # leases and transactions make this safe
        shutdown.set()

    for each in stop_signals():
        signal.signal(each, stop)
    return shutdown


def run(services: Sequence[Service], shutdown: threading.Event, started: Callable[[], None] = lambda: None) -> None:
    """Start the services in order, call `started`, wait for `shutdown`, and stop the services in reverse order.

    Raises SettingsError if a service cannot start or ends by itself.
    """
    ended: list[str] = []
    try:
        for each in services:
            if not shutdown.is_set():
                each.start()
        gc_tuning.freeze_startup_objects()
        if not shutdown.is_set():
            started()
        while not (ended or shutdown.wait(SECONDS_BETWEEN_CHECKS)):
            ended = [each.name for each in services if not each.healthy]
    finally:
        for each in reversed(services):
            each.stop()
    if ended:
        raise SettingsError(f"The process stops: its service {', '.join(ended)} has ended. The log says why.")
