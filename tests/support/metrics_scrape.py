"""The metrics of a process, as Prometheus parses them."""

import httpx2
from prometheus_client.parser import text_string_to_metric_families

Values = dict[str, float]


class Scrape:
    """One response of /metrics. Raises if Prometheus' own parser cannot read it."""

    def __init__(self, url: str, timeout: float = 30) -> None:
        answer = httpx2.get(f"{url}/metrics", timeout=timeout)
        assert answer.status_code == 200, answer.text
        self.seconds = answer.elapsed.total_seconds()
        self.text = answer.text
        self.families = list(text_string_to_metric_families(answer.text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def of(self, name: str) -> Values:
        """Return the non-zero values of a gateway metric by label values, in the order of the label names."""
        return {
            " ".join(sample.labels[label] for label in sorted(sample.labels)): sample.value
            for sample in self.samples
            if sample.name == f"product_gateway_{name}" and sample.value
        }

    def total(self, name: str) -> float | None:
        """Return the sum of a gateway metric over all labels, or None without a value."""
        found = [sample.value for sample in self.samples if sample.name == f"product_gateway_{name}"]
        return sum(found) if found else None
