"""The faults of the chaos run: what is done to the workers, to PostgreSQL and to the product service."""

import collections
import random
import signal
import time
from typing import Any

import databases
from house import House, Process
from moody_service import Mood, Shop

WORKERS = 3
LEASE = 1
ENDS = (0, -signal.SIGKILL, -signal.SIGTERM)  # the last one before it has a handler
CANNOT_START = "The database cannot be used at the moment."
DECK = ["kill", "kill", "stop", "stop", "hand back", "restart PostgreSQL", "kill all", *(["mood"] * 5)]


class Faults:
    """The faults. `workers` are replaced when they are gone."""

    def __init__(self, house: House, server: Any, shops: list[Shop], dice: random.Random) -> None:
        self.injected: collections.Counter[str] = collections.Counter()
        self.workers = [self._worker(house) for _ in range(WORKERS)]
        self.died: list[str] = []
        self._house = house
        self._server = server
        self._shops = shops
        self._dice = dice
        self._due: list[tuple[float, Any]] = []
        self._deck: list[str] = []

    def run(self, seconds: float) -> None:
        """One fault after the other; what stands still or is unwell gets better by and by."""
        until = time.monotonic() + seconds
        next_fault = time.monotonic()
        while time.monotonic() < until:
            time.sleep(0.1)
            self._dice.choice(self._shops).change()
            self._let_recover()
            self._replace_the_dead()
            if time.monotonic() >= next_fault:
                self._deck = self._deck or self._dice.sample(DECK, len(DECK))
                self._strike(self._deck.pop())
                next_fault = time.monotonic() + self._dice.uniform(0.3, 1.2)

    def calm(self) -> None:
        """Everybody is well again."""
        self._let_recover(everybody=True)
        self._replace_the_dead()

    def end(self) -> None:
        """All workers stop, in good order."""
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
            worker.send(signal.SIGSTOP)
            self._later(1.3 * LEASE, 8 * LEASE, lambda: worker.send(signal.SIGCONT))
        elif fault == "hand back":
            worker.send(signal.SIGTERM)
        elif fault == "restart PostgreSQL":
            databases.crash(self._server)
            time.sleep(self._dice.uniform(0, 0.5))
            self._server.ensure_postgres_running()
        else:
            for each in self.workers if fault == "kill all" else [worker]:
                each.send(signal.SIGKILL)
        self.injected[fault] += 1

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
                elif status not in ENDS:
                    self.died.append(f"a worker ended with {status}: {said[-2000:]}")
                self.workers[index] = self._worker(self._house)

    @staticmethod
    def _worker(house: House) -> Process:
        return Process(house, ("worker",))
