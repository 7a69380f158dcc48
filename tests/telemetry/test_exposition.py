"""The sum of several processes' metrics."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from product_gateway.model.syncs import EntityType, SyncStatus
from product_gateway.telemetry import exposition
from product_gateway.telemetry.metrics import Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """Return the samples as Prometheus' own parser reads them, by name and labels."""
    families = text_string_to_metric_families(text)
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for f in families for each in f.samples}


def of(requests: int) -> Metrics:
    """Return the metrics of a process that has answered some requests."""
    metrics = Metrics(with_queue=False)
    for _ in range(requests):
        metrics.observe_request("getSync", 200, 0.003)
    metrics.ended(EntityType.PRODUCT, SyncStatus.SUCCEEDED, seconds=requests)
    metrics.requests_in_flight.set(requests)
    return metrics


def text(metrics: Metrics) -> str:
    """Return what a process reports."""
    return metrics.exposition().decode()


def test_one_exposition_is_its_own_sum() -> None:
    """Nothing is lost on the way, and Prometheus can read it."""
    alone = text(of(3))
    assert samples(exposition.merge([alone])) == samples(alone)
    assert exposition.merge([alone]).count("# HELP") == alone.count("# HELP")
    assert exposition.merge([]) == ""


def test_counters_histograms_and_gauges_are_added_up() -> None:
    """Also series that only some of the processes have."""
    more = of(4)
    more.observe_request("putSync", 202, 20.0)
    merged = samples(exposition.merge([text(of(3)), text(more)]))
    ours = {(name.removeprefix("product_gateway_"), *labels): value for (name, labels), value in merged.items()}
    get, put = ("operation", "getSync"), ("operation", "putSync")
    assert ours["requests_total", get, ("status", "200")] == 7
    assert ours["requests_total", put, ("status", "202")] == 1
    assert ours["request_duration_seconds_bucket", ("le", "0.005"), get] == 7
    assert ours["request_duration_seconds_bucket", ("le", "10.0"), put] == 0
    assert ours["request_duration_seconds_bucket", ("le", "+Inf"), put] == 1
    assert ours["sync_duration_seconds_sum", ("entity_type", "PRODUCT")] == 7
    assert ours["requests_in_flight",] == 7


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("process_open_fds", (10, 30), 30),
        ("process_max_fds", (1024, 512), 512),
        ("process_start_time_seconds", (1.5e9, 1.6e9), 1.5e9),
        ("process_resident_memory_bytes", (100, 50), 150),
    ],
)
def test_some_gauges_have_a_rule_of_their_own(name: str, values: tuple[float, float], wanted: float) -> None:
    """The alert for open files compares the fullest process with the smallest limit."""
    texts = [f"# HELP {name} It.\n# TYPE {name} gauge\n{name} {value}\n" for value in values]
    assert samples(exposition.merge(texts)) == {(name, ()): wanted}


def test_the_version_is_shown_once() -> None:
    """It is a constant of value 1, not a number."""
    merged = samples(exposition.merge([text(of(1)), text(of(1))]))
    assert [value for (name, _), value in merged.items() if name == "product_gateway_build_info"] == [1]


def test_an_ended_process_leaves_its_counters_behind_but_not_its_gauges() -> None:
    """A sum that fell would look like a restart to Prometheus, and rate() would count all of it again."""
    left = samples(exposition.accumulated(text(of(3))))
    names = {name for name, _ in left}
    assert left["product_gateway_requests_total", (("operation", "getSync"), ("status", "200"))] == 3
    assert "product_gateway_request_duration_seconds_bucket" in names
    assert not names & {"product_gateway_requests_in_flight", "process_resident_memory_bytes"}


def test_only_one_process_has_the_metrics_of_the_queue() -> None:
    """They come from the database: added up, they would be wrong."""
    both = Metrics()
    both.set_queue_stats([])
    merged = samples(exposition.merge([text(both), text(of(1)), text(of(1))]))
    assert merged["product_gateway_database_up", ()] == 1
    assert "database_up" not in text(of(1))
