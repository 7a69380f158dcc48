"""Sums of expositions in Prometheus' text format, for the processes of one gateway or worker.

Works on text alone, so that the parent of the processes need not load prometheus-client.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

ACCUMULATED = ("counter", "histogram")
# The rule for each gauge that is not added up. Queue gauges come from one process, the one with the operations port.
GAUGES: dict[str, Callable[[float, float], float]] = {
    "product_gateway_build_info": max,
    "process_open_fds": max,  # the fullest process, with the smallest limit: an alert compares them
    "process_max_fds": min,
    "process_start_time_seconds": min,
}


@dataclass
class _Family:
    """A metric with all its samples, by name and labels as they are written."""

    header: list[str] = field(default_factory=list)
    type: str = ""
    samples: dict[str, float] = field(default_factory=dict)


def merge(expositions: Iterable[str]) -> str:
    """Return one exposition: counters, histograms and gauges added up, but for those in GAUGES."""
    merged: dict[str, _Family] = {}
    for exposition in expositions:
        for name, family in _parse(exposition).items():
            into = merged.setdefault(name, _Family(family.header, family.type))
            combine = GAUGES.get(name, float.__add__)
            for sample, value in family.samples.items():
                known = into.samples.get(sample)
                into.samples[sample] = value if known is None else combine(known, value)
    return _written(merged)


def accumulated(exposition: str) -> str:
    """Return the counters and histograms alone: what an ended process leaves behind."""
    return _written({name: each for name, each in _parse(exposition).items() if each.type in ACCUMULATED})


def _parse(exposition: str) -> dict[str, _Family]:
    families: dict[str, _Family] = {}
    family = _Family()
    for line in exposition.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            family = families.setdefault(line.split(" ", 3)[2], _Family())
            family.header.append(line)
            if line.startswith("# TYPE "):
                family.type = line.rpartition(" ")[2]
        else:
            sample, _, value = line.rpartition(" ")
            family.samples[sample] = float(value)
    return families


def _written(families: dict[str, _Family]) -> str:
    lines: list[str] = []
    for family in families.values():
        lines += [*family.header, *(f"{sample} {value!r}" for sample, value in family.samples.items())]
    return "".join(f"{line}\n" for line in lines)
