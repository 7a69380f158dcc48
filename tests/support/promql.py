"""Parse the names in a PromQL expression: metrics, labels and functions."""

import re
from dataclasses import dataclass

from product_gateway.model.syncs import ActiveSyncs, EntityType, SyncStatus
from product_gateway.model.webhooks import PendingDeliveries
from product_gateway.telemetry.metrics import Metrics

FUNCTIONS = {"sum", "min", "max", "count", "rate", "increase", "histogram_quantile", "vector", "label_values"}
WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring"}
OF_PROMETHEUS = {"job", "instance"}  # labels that a scrape adds
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SELECTOR = re.compile(rf"({NAME})\s*\{{([^}}]*)\}}")
MATCHER = re.compile(rf'({NAME})\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Named:
    """The metrics with their label matchers, the grouping labels, and unknown words."""

    metrics: dict[str, dict[str, str]]
    grouped: set[str]
    unknown: set[str]


def named(expression: str) -> Named:
    """Return all names in the expression. Raises ValueError for invalid matchers."""
    metrics: dict[str, dict[str, str]] = {}
    for name, inside in SELECTOR.findall(expression):
        if re.sub(r"[,\s]", "", MATCHER.sub("", inside)):
            raise ValueError(inside)
        metrics.setdefault(name, {}).update(MATCHER.findall(inside))
    grouped = {each.strip() for group in GROUPING.findall(expression) for each in group.split(",") if each.strip()}
    rest = GROUPING.sub(" ", SELECTOR.sub(" ", expression))
    rest = re.sub(r"\[[^\]]*\]|\boffset\s+\w+|\b\d[\w.]*", " ", rest)
    plain = set(re.findall(NAME, rest)) - WORDS - FUNCTIONS
    labels = {each for each in plain if re.search(rf"label_values\([^)]*,\s*{each}\s*\)", expression)}
    known = exposed().keys() | {"up"}
    for name in plain & known:
        metrics.setdefault(name, {})
    return Named(metrics, grouped, (plain - labels - known) | (metrics.keys() - known))


def exposed() -> dict[str, set[str]]:
    """Return each series name with its labels, of a process with some history."""
    metrics = Metrics()
    queued = [ActiveSyncs(EntityType.PRODUCT, SyncStatus.QUEUED, 1, 2.0)]
    metrics.set_queue_stats(queued, PendingDeliveries(1, 2.0), {EntityType.PRODUCT: 1})
    metrics.observe_request("getSync", 200, 0.1)
    found: dict[str, set[str]] = {"up": set()}
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found
