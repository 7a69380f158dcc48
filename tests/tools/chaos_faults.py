"""The faults of the chaos run: in the workers, PostgreSQL and the product service."""

import collections
import contextlib
import math
import os
import random
import signal
import time
from contextlib import AbstractContextManager
from typing import Any

from tests.support import databases, process_groups
from tests.support.database_faults import raising, renamed
from tests.support.deployment import Deployment, Process
from tests.support.flaky_service import Mood, Shop

WORKERS = 3
LEASE = 1
ENDS = (0, -signal.SIGKILL, -signal.SIGTERM)  # the last one before it has a handler
CANNOT_START = "The database cannot be used at the moment."
KILLED_AT_THE_START = "was ended by SIGKILL before it has started"
RESTART, RAISE, RENAME = "restart PostgreSQL", "unexpected errors of the database", "renamed column"
ONE = "kill a process"  # of those of one server or worker
DECK = ["kill", "kill", "stop", "stop", "hand back", RESTART, "kill all", RAISE, RAISE, RENAME, *(["mood"] * 5)]
DECK_OF_SEVERAL = [*DECK, ONE, ONE, ONE]
RAISING = (
    *("syncs", "sync_events", "catalog_records", "catalog_history", "catalog_generations", "catalog_counts"),
    "seen_records",
)
RENAMED = (
    *(("syncs", "queued_at"), ("syncs", "lease_token"), ("catalog_records", "digest"), ("merchants", "disabled")),
    ("catalog_history", "digest"),
)
SECONDS_OF_AFTERMATH = 5.0  # a request that met the fault has been answered by then


class Faults:
    """The faults. Lost workers are replaced. Servers and workers have this number of `processes` each."""

    def __init__(
        self,
        deployment: Deployment,
        server: Any,
        shops: list[Shop],
        dice: random.Random,
        servers: list[Process],
        processes: int,
    ) -> None:
        self.injected: collections.Counter[str] = collections.Counter()
        self._servers = servers
        self._processes = processes
        self.workers = [self._worker(deployment) for _ in range(WORKERS)]
        self.died: list[str] = []
        self._unexpected_until = 0.0
        self._deployment = deployment
        self._url = deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]
        self._server = server  # None: it is SQLite
        self._shops = shops
        self._dice = dice
        self._due: list[tuple[float, Any]] = []
        self._deck: list[str] = []

    def run(self, seconds: float) -> None:
        """Inject one fault after the other; each recovers after some time."""
        until = time.monotonic() + seconds
        next_fault = time.monotonic()
        while time.monotonic() < until:
            time.sleep(0.1)
            self._dice.choice(self._shops).change()
            self._let_recover()
            self._replace_the_dead()
            if time.monotonic() >= next_fault:
                deck = DECK if self._processes == 1 else DECK_OF_SEVERAL
                deck = [each for each in deck if each != RESTART or self._server]
                self._deck = self._deck or self._dice.sample(deck, len(deck))
                self._strike(self._deck.pop())
                next_fault = time.monotonic() + self._dice.uniform(0.3, 1.2)

    def calm(self) -> None:
        """End all faults."""
        self._let_recover(everybody=True)
        self._replace_the_dead()

    def end(self) -> None:
        """Stop all workers."""
        self.calm()
        for worker in self.workers:
            worker.end()

    def _strike(self, fault: str) -> None:
        worker = self._dice.choice(self.workers)
        if fault == "mood":
            shop, mood = (
                self._dice.choice(self._shops),
                self._dice.choice([each for each in Mood if each is not Mood.WELL]),
            )
            shop.mood = mood
            self._later(0.5, 3, lambda: setattr(shop, "mood", Mood.WELL))
            fault = f"{mood} product service"
        elif fault == "stop":
            self._suspend(worker)
        elif fault == ONE:
            victims = process_groups.members(self._dice.choice([worker, *self._servers]))
            if not victims:  # it starts or stops
                return
            name = self._dice.choice(list(victims))
            _send(victims[name], signal.SIGKILL)
            fault = f"{ONE} of kind {name.split('-')[1]}"
        elif fault == "hand back":
            worker.send(signal.SIGTERM)
        elif fault in (RAISE, RENAME):
            self._meet_unexpected_errors(fault)
        elif fault == RESTART:
            databases.crash(self._server)
            time.sleep(self._dice.uniform(0, 0.5))
            self._server.ensure_postgres_running()
        else:
            for each in self.workers if fault == "kill all" else [worker]:
                members = process_groups.members(each)
                each.send(signal.SIGKILL)
                for pid in members.values() if fault == "kill all" else ():
                    _send(pid, signal.SIGKILL)
        self.injected[fault] += 1

    def _suspend(self, worker: Process) -> None:
        """Suspend the worker, or one of its processes, for longer than a lease."""
        members = process_groups.members(worker, process_groups.WORKER)
        pid = self._dice.choice(list(members.values()) or [worker.pid])
        _send(pid, signal.SIGSTOP)
        self._later(1.3 * LEASE, 8 * LEASE, lambda: _send(pid, signal.SIGCONT))

    def _meet_unexpected_errors(self, fault: str) -> None:
        """Resume all processes first: changing the tables waits for the locks of suspended ones."""
        self._let_recover(everybody=True)
        self._unexpected_until = math.inf
        try:
            with self._broken(fault):
                time.sleep(self._dice.uniform(0.2, 1.5))
        finally:
            self._unexpected_until = time.monotonic() + SECONDS_OF_AFTERMATH

    def _broken(self, fault: str) -> AbstractContextManager[None]:
        if fault == RENAME:
            return renamed(self._url, *self._dice.choice(RENAMED))
        return raising(self._url, self._dice.choice(RAISING), share=self._dice.choice([0.1, 0.5, 1.0]))

    def may_be_unexpected(self) -> bool:
        """Return whether a server may answer 500 now. Thread-safe."""
        return time.monotonic() < self._unexpected_until

    def _later(self, least: float, most: float, act: Any) -> None:
        self._due.append((time.monotonic() + self._dice.uniform(least, most), act))

    def _let_recover(self, *, everybody: bool = False) -> None:
        now = time.monotonic()
        due = [each for each in self._due if everybody or each[0] <= now]
        self._due = [each for each in self._due if each not in due]
        for _, act in due:
            act()

    def _replace_the_dead(self) -> None:
        for index, worker in enumerate(self.workers):
            status = worker.status()
            if status is not None:
                said = worker.log.read_text()
                if status == 1 and CANNOT_START in said:
                    self.injected["start while PostgreSQL is away"] += 1
                elif status == 1 and KILLED_AT_THE_START in said:
                    self.injected["kill a process at the start"] += 1
                elif status not in ENDS:
                    self.died.append(f"a worker ended with {status}: {said[-2000:]}")
                self.workers[index] = self._worker(self._deployment)

    def _worker(self, deployment: Deployment) -> Process:
        return Process(deployment, ("worker", "--processes", str(self._processes)))


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
