"""Measure contenders in turn, and compute ratios within each round, their median and their spread.

The speed of the machine varies, so only measurements of the same round are compared.
"""

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = int(os.environ.get("BENCH_SECONDS", "2"))
FOLDER = Path(__file__).parent / "results"

Measure = Callable[[], float]
Values = dict[str, list[float]]
"""By contender, a value for each round."""


def interleaved(contenders: Mapping[str, Measure], rounds: int = ROUNDS) -> Values:
    """Measure all contenders in each round, starting each round with another one.

    Otherwise a contender would always follow the same one, whose writes the database may still be busy with.
    """
    found: Values = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(contenders[name]())
    return found


@dataclass(frozen=True)
class Row:
    """One line of the table: a ratio in each round, and its targets.

    `first` and `then` are the two targets, or None; `at_most`: smaller is better.
    """

    what: str
    ratios: list[float]
    first: float | None = None
    then: float | None = None
    at_most: bool = False
    unit: str = "×"
    note: str = ""

    @property
    def median(self) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.ratios)

    def meets(self, target: float | None) -> bool | None:
        """Return whether the median meets the target; None without a target or a measurement."""
        if target is None or not self.ratios:
            return None
        return self.median <= target if self.at_most else self.median >= target


def row(
    what: str, ours: list[float], theirs: list[float], first: float | None = None, then: float | None = None,
    *, at_most: bool = False, note: str = "",
) -> Row:  # fmt: skip
    """Divide our value by theirs, round by round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Row(what, ratios, first, then, at_most=at_most, note=note)


def not_measured(what: str, why: str, first: float | None = None, then: float | None = None) -> Row:
    """Return a row without a measurement."""
    return Row(what, [], first, then, note=why)


@dataclass
class Chart:
    """The plot of a section: a group of bars for each measurement, or lines over `x`."""

    title: str
    unit: str
    values: dict[str, Values]  # by measurement, then by contender
    x: list[float] | None = None  # with it, `values` has one measurement, and each contender a value for each x


@dataclass
class Section:
    """The results of one part of the bench."""

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # what is to be known besides, as paragraphs
    when: str = ""
    machine: str = ""

    def save(self) -> None:
        """Save the results as JSON, the source of the tables."""
        self.when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        self.machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{self.name}.json").write_text(json.dumps(asdict(self), indent=1) + "\n")


def load(name: str) -> Section | None:
    """Return the last results, if any."""
    file = FOLDER / f"{name}.json"
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    rows = [Row(**each) for each in found.pop("rows")]
    charts = [Chart(**each) for each in found.pop("charts")]
    return Section(rows=rows, charts=charts, **found)
