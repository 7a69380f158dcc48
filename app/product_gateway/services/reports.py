"""The reports of a group's processes, summed up by the parent: metrics, and which processes fail."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from product_gateway.services.channel import Message, ParentEnd
from product_gateway.telemetry import exposition

SECONDS_BETWEEN_ROUNDS = 5.0  # what a killed process has counted since its last report is lost
SECONDS_FOR_A_REPORT = 0.4
RESTARTS = "product_gateway_process_restarts_total"


@dataclass(eq=False)
class Reporter:
    """A process, or its successors, as a source of reports. `channel` is None while there is none."""

    name: str
    kind: str
    channel: ParentEnd | None = None
    has_started: bool = False
    owes_report: bool = False
    exposition: str = ""
    fault: str | None = None

    def begin(self, channel: ParentEnd) -> None:
        """Take the channel of a new process."""
        self.channel, self.has_started, self.owes_report, self.fault = channel, False, False, None

    def ask(self) -> None:
        """Ask the process for a report, unless it still owes one."""
        if self.channel is not None and self.has_started and not self.owes_report:
            self.owes_report = True
            self.channel.send({"report": True})

    def describe_fault(self) -> str | None:
        """Return what is wrong with the process; None if nothing is."""
        if self.channel is None:
            return f"The process {self.name} has ended and is being replaced."
        if not self.has_started:
            return f"The process {self.name} is starting."
        if self.owes_report:
            return f"The process {self.name} does not respond."
        return self.fault and f"The process {self.name}: {self.fault}"


class Reports:
    """Rounds of reports: all processes are asked at once. A process that does not answer counts as it last reported."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = reporters
        self._left_behind = ""  # counters of ended processes: a sum must not fall
        self._ends_at = math.inf
        self._next_round = 0.0
        self._asking: list[tuple[ParentEnd, int]] = []  # for the next round
        self._served: list[tuple[ParentEnd, int]] = []  # by this round

    @property
    def due(self) -> float:
        """The moment, by the monotonic clock, of the next call of `proceed` without a message before."""
        return self._next_round if self._ends_at == math.inf else self._ends_at

    def receive(self, reporter: Reporter, message: Message) -> None:
        """Take a report, or a question of the process with the operations port."""
        if "exposition" in message:
            reporter.exposition, reporter.fault = message["exposition"], message["fault"]
            reporter.owes_report = False
        elif "ask" in message and reporter.channel is not None:
            self._asking.append((reporter.channel, message["ask"]))
            self._next_round = 0.0

    def ended(self, reporter: Reporter, *, unexpectedly: bool) -> None:
        """Keep the counters of an ended process."""
        reporter.channel = None
        left = [exposition.accumulated(reporter.exposition), self._left_behind]
        if unexpectedly:
            left.append(f'# TYPE {RESTARTS} counter\n{RESTARTS}{{process="{reporter.kind}"}} 1\n')
        self._left_behind, reporter.exposition = exposition.merge(left), ""

    def proceed(self) -> None:
        """End the round if all have reported or its time is up. Begin the next one if it is due."""
        now = time.monotonic()
        if self._ends_at < math.inf:
            if now < self._ends_at and any(each.owes_report and each.channel for each in self._reporters):
                return
            self._answer()
            self._ends_at, self._served = math.inf, []
        if now >= self._next_round:
            self._next_round, self._ends_at = now + SECONDS_BETWEEN_ROUNDS, now + SECONDS_FOR_A_REPORT
            self._served, self._asking = self._asking, []
            for each in self._reporters:
                each.ask()

    def _answer(self) -> None:
        if not self._served:
            return
        merged = exposition.merge([*(each.exposition for each in self._reporters), self._left_behind])
        faults = [fault for each in self._reporters if (fault := each.describe_fault())]
        for channel, number in self._served:
            channel.send({"answer": number, "exposition": merged, "faults": faults})
