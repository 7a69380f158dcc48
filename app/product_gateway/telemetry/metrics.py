"""Every metric: name, meaning and how it is counted, in Prometheus' text format.

Label values come from fixed lists (operations, statuses, entity types, failure codes), never from a request, so that
clients cannot create series. docs/operations/README.md lists the same names.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from platform import python_version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client import GCCollector as GarbageCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from product_gateway.model.syncs import ACTIVE, ActiveSyncs, EntityType, SyncStatus
from product_gateway.model.webhooks import PendingDeliveries
from product_gateway.telemetry.version import version

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OURS = "product_gateway"
NONE = "none"
OVERLOAD, MERCHANT, ADDRESS = "overload", "merchant", "address"
FAULTS_OF_OURS = ("INTERNAL_ERROR", "TOKEN_UNREADABLE", "WORKER_LOST")  # alerts fire on the first of each
DELIVERED, RETRIED, GIVEN_UP = "delivered", "retried", "given_up"
# Background loops, the values of the label `loop`.
WORKER, CLAIMS, HEARTBEATS, SYNCS, DELIVERIES = "worker", "claims", "heartbeats", "syncs", "deliveries"
PRUNING, ROLL_BACK, FRESHNESS, LONG_POLLS = "pruning", "roll_back", "freshness", "long_polls"
WAKEUPS = "wakeups"
MONITOR, QUEUE_METRICS = "monitor", "queue_metrics"
LOOPS = (
    *(WORKER, CLAIMS, WAKEUPS, HEARTBEATS, SYNCS, DELIVERIES, PRUNING, ROLL_BACK, FRESHNESS),
    *(LONG_POLLS, MONITOR, QUEUE_METRICS),
)
PROCESSES = ("api", "worker", "operations")  # of `--processes N`, the values of the label `process`
REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SYNC_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)


class Metrics:
    """The metrics of one process, in their own registry. They may be counted from any thread.

    Without `with_queue`, the queue's are left out: another process of the same gateway has them.
    """

    def __init__(self, *, with_queue: bool = True) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # would double the number of series
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GarbageCollector(registry=self.registry)
        counter = partial(Counter, namespace=OURS, registry=self.registry)
        gauge = partial(Gauge, namespace=OURS, registry=self.registry)
        histogram = partial(Histogram, namespace=OURS, registry=self.registry)
        self._requests = counter("requests", "Requests answered, by operation and status.", ("operation", "status"))
        self._seconds = histogram(
            "request_duration_seconds",
            "From a request's arrival to the end of its answer, by operation.",
            ("operation",),
            buckets=REQUEST_SECONDS,
        )
        self.requests_in_flight = gauge("requests_in_flight", "Requests that are being answered now.")
        self._refused = counter(
            "requests_refused",
            "Requests turned away: overload (503), or the rate limit of a merchant or an address (429).",
            ("reason",),
        )
        self._ended = counter(
            "syncs_ended",
            "Syncs that this process brought to their end, by how; failure_code is empty but for FAILED.",
            ("entity_type", "status", "failure_code"),
        )
        self._sync_seconds = histogram(
            "sync_duration_seconds",
            "From a worker's claim to the sync's end in the same worker.",
            ("entity_type",),
            buckets=SYNC_SECONDS,
        )
        by_type = ("entity_type",)
        self._read = counter("records_read", "Records read from product services, those left out included.", by_type)
        self._rejected = counter("records_rejected", "Records left out because they do not fit the contract.", by_type)
        self.pull_retries = counter(
            "pull_retries", "Requests to product services that were made again because the one before did not go well."
        )
        self._claims = counter("claims", "Syncs that this worker took up.")
        self._takeovers = counter("lease_takeovers", "Syncs that this worker took up after another worker was lost.")
        self.lease_losses = counter(
            "lease_losses",
            "Syncs that this worker had to leave because its lease was gone. Cancelled ones don't count.",
        )
        self.syncs_running = gauge("syncs_running", "Syncs that this worker runs now.")
        self.webhook_attempts = counter(
            "webhook_attempts",
            "Attempts of this worker to deliver messages to webhooks: delivered, retried (one more follows), given_up.",
            ("outcome",),
        )
        self.loop_failures = counter(
            "loop_failures",
            "Unexpected errors in background loops of this process, which go on after a pause.",
            ("loop",),
        )
        self._restarts = counter(
            "process_restarts",
            "Processes of `--processes` that ended unexpectedly and were replaced, by kind.",
            ("process",),
        )
        build = gauge("build_info", "Always 1: the versions of the gateway and of Python.", ("python", "version"))
        build.labels(python_version(), version()).set(1)
        self._queue = _Queue()
        if with_queue:
            self.registry.register(self._queue)
        self._answers: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        # Create series at 0: rate() does not see the event that creates a series.
        for metric, values in (
            (self._refused, (OVERLOAD, MERCHANT, ADDRESS)),
            (self.loop_failures, LOOPS),
            (self.webhook_attempts, (DELIVERED, RETRIED, GIVEN_UP)),
            (self._restarts, PROCESSES),
            *((by_type, EntityType) for by_type in (self._read, self._rejected, self._sync_seconds)),
        ):
            for value in values:
                metric.labels(value)
        for entity_type in EntityType:
            for status in (SyncStatus.SUCCEEDED, SyncStatus.CANCELLED):
                self._ended.labels(entity_type, status, "")
            for code in FAULTS_OF_OURS:
                self._ended.labels(entity_type, SyncStatus.FAILED, code)

    def observe_request(self, operation: str, status: int, seconds: float) -> None:
        """Count a request. `operation` is empty if no operation has the path; `status` is 0 if no response was sent."""
        found = self._answers.get((operation, status))
        if found is None:  # looking up labels costs more than counting
            name = operation or NONE
            found = self._requests.labels(name, str(status or NONE)), self._seconds.labels(name)
            self._answers[operation, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a refused request; `reason` is OVERLOAD, MERCHANT or ADDRESS."""
        self._refused.labels(reason).inc()

    def claimed(self, *, taken_over: bool) -> None:
        self._claims.inc()
        if taken_over:
            self._takeovers.inc()

    def read(self, entity_type: EntityType, records: int, rejected: int) -> None:
        self._read.labels(entity_type.value).inc(records)
        self._rejected.labels(entity_type.value).inc(rejected)

    def ended(
        self, entity_type: EntityType, status: SyncStatus, failure_code: str = "", seconds: float | None = None
    ) -> None:
        """Count an ended sync. `seconds` have passed since its claim."""
        self._ended.labels(entity_type.value, status.value, failure_code).inc()
        if seconds is not None:
            self._sync_seconds.labels(entity_type.value).observe(seconds)

    def set_queue_stats(
        self,
        syncs: Sequence[ActiveSyncs] | None,
        deliveries: PendingDeliveries | None = None,
        stale: Mapping[EntityType, int] | None = None,
    ) -> None:
        """Set the active syncs, pending deliveries and numbers of stale catalogs; None without a database."""
        self._queue.syncs, self._queue.deliveries, self._queue.stale = syncs, deliveries, stale

    def exposition(self) -> bytes:
        return generate_latest(self.registry)


class _Queue(Collector):
    """Queue metrics from the last read. After a failed read there are none: stale values would look current."""

    syncs: Sequence[ActiveSyncs] | None = None
    deliveries: PendingDeliveries | None = None
    stale: Mapping[EntityType, int] | None = None

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        syncs = self.syncs
        yield _gauge(
            "database_up", "1 where the database answered the last time it was asked, 0 where not.", syncs is not None
        )
        if syncs is None:
            return
        active = GaugeMetricFamily(
            "product_gateway_syncs_active",
            "Syncs that are queued or in progress, of all processes.",
            labels=("entity_type", "status"),
        )
        count = {(each.entity_type, each.status): each.count for each in syncs}
        for entity_type in EntityType:
            for status in ACTIVE:
                active.add_metric((entity_type.value, status.value), count.get((entity_type, status), 0))
        yield active
        queued = [each for each in syncs if each.status is SyncStatus.QUEUED]
        yield _gauge(
            "queue_depth", "Syncs that wait for a worker, of all processes.", sum(each.count for each in queued)
        )
        yield _gauge(
            "queue_oldest_seconds",
            "How long ago the sync that waits longest was asked for; 0 where none waits.",
            max((each.oldest_seconds for each in queued), default=0),
        )
        if self.deliveries is not None:
            yield _gauge(
                "webhook_deliveries_pending",
                "Messages to webhooks that are not delivered yet, of all processes; counted up to 10,000.",
                self.deliveries.count,
            )
            yield _gauge(
                "webhook_oldest_seconds",
                "How long ago the sync ended whose message to a webhook waits longest; 0 where none waits.",
                self.deliveries.oldest_seconds,
            )
        if self.stale is not None:
            meaning = "Catalogs that were not published within their max age, of all merchants; counted up to 1,000."
            stale = GaugeMetricFamily("product_gateway_catalogs_stale", meaning, labels=("entity_type",))
            for entity_type, number in self.stale.items():
                stale.add_metric((entity_type.value,), number)
            yield stale


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"product_gateway_{name}", meaning, value=value)
