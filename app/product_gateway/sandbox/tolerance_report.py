"""Runs a client against each mutation in turn, and reports which ones it survives: `product-gateway tolerance`."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from product_gateway.errors import GatewayError, SettingsError
from product_gateway.sandbox.mutation import Mutation
from product_gateway.sandbox.mutations import MUTATIONS
from product_gateway.sandbox.runner import Options, running
from product_gateway.sandbox.tolerance import Tolerance
from product_gateway.settings import SANDBOX_JSON, with_environment

SHOWN_LINES = 15

Environment = Mapping[str, str]
Attempt = Callable[[Environment], str | None]
"""Runs the client; returns None if it succeeds, otherwise what went wrong."""


class ControlFailed(GatewayError):
    """The client fails without any mutation."""


@dataclass
class Report:
    """The names of mutations by the result of the client. The client has met `survived` and `broken`."""

    survived: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    not_met: list[str] = field(default_factory=list)

    def add(self, mutation: str, *, fault: str | None, met: bool) -> str:
        """Add the result of one run, and return the word for it. A failure counts even if nothing was changed."""
        if fault is not None:
            self.broken.append(mutation)
            return "broken" if met else "failed, although nothing was changed"
        (self.survived if met else self.not_met).append(mutation)
        return "survived" if met else "not met"

    @property
    def score(self) -> str:
        return f"{len(self.survived)} of {len(self.survived) + len(self.broken)}"

    def __str__(self) -> str:
        broken = f"; broken by: {', '.join(self.broken)}" if self.broken else ""
        not_met = f"\nNot met, so not tested: {', '.join(self.not_met)}" if self.not_met else ""
        return f"survives {self.score}{broken}{not_met}"


def survey(
    attempt: Attempt, mutations: Iterable[Mutation], options: Options, progress: Callable[[str], None]
) -> Report:
    """Run the client against a new sandbox for each mutation. Raises ControlFailed, SettingsError."""
    with sandbox(options) as environment:
        fault = attempt(environment)
    if fault is not None:
        raise ControlFailed(f"The command fails without any mutation, so nothing was tested: {fault}")
    report = Report()
    for mutation in mutations:
        tolerance = Tolerance([mutation])
        with sandbox(replace(options, tolerance=tolerance)) as environment:
            fault = attempt({**environment, "TOLERANCE": mutation.name})
        result = report.add(mutation.name, fault=fault, met=tolerance.changed[mutation.name] > 0)
        progress(f"{mutation.name}: {result}" + (f"\n{fault}" if fault else ""))
    return report


@contextlib.contextmanager
def sandbox(options: Options) -> Iterator[Environment]:
    """Run a sandbox in this process; yield the environment variables for its clients."""
    environment: dict[str, str] = {}

    def announce(description: dict[str, Any]) -> None:
        tokens = description["tokens"]
        environment.update(
            GATEWAY=description["baseUrl"],
            TOKEN=tokens["byop"],
            EXPIRED_TOKEN=tokens["expired"],
            OTHER_PLATFORM_TOKEN=tokens["notByop"],
            PRODUCT_GATEWAY_URL=description["baseUrl"],
            PRODUCT_GATEWAY_TOKEN=tokens["byop"],
        )
        environment[SANDBOX_JSON] = orjson.dumps(description).decode()
        if "webhookSecret" in description:
            environment["WEBHOOK_SECRET"] = description["webhookSecret"]

    with running(announce, options):
        yield environment


def chosen(names: Sequence[str]) -> list[Mutation]:
    """Return the mutations with these names, or all. Raises GatewayError for an unknown name."""
    if unknown := set(names) - MUTATIONS.keys():
        raise GatewayError(f"There is no mutation {', '.join(sorted(unknown))}. Use one of {', '.join(MUTATIONS)}.")
    return [MUTATIONS[name] for name in names] if names else list(MUTATIONS.values())


def _started(command: Sequence[str], environment: Environment) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(  # noqa: S603 - the caller's own command
            command,
            env=with_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise SettingsError(f"{command[0]} cannot be run: {error.strerror}.") from None


def run_command(command: Sequence[str], timeout: float) -> Attempt:
    """Return an attempt that runs a command, which succeeds with exit status 0 within `timeout` seconds."""

    def attempt(environment: Environment) -> str | None:
        began = time.monotonic()
        with _started(command, environment) as process:
            try:
                said, _ = process.communicate(timeout=timeout)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                return f"It had not ended after {time.monotonic() - began:.0f} s."
        if process.returncode == 0:
            return None
        lines = said.decode(errors="replace").splitlines()[-SHOWN_LINES:]
        return "\n".join([f"Exit status {process.returncode}.", *(f"  {line}" for line in lines)])

    return attempt
