"""A sync as a body of the API, for all who show one: answers, and messages to webhooks."""

from datetime import datetime

from product_gateway.api_types import Sync as SyncBody
from product_gateway.model import Sync


def sync_body(sync: Sync) -> SyncBody:
    """A sync as the spec has it."""
    return {
        "id": str(sync.id),
        "entityType": sync.entity_type.value,
        "status": sync.status.value,
        "queuedAt": rfc3339(sync.queued_at),
        "startedAt": None if sync.started_at is None else rfc3339(sync.started_at),
        "finishedAt": None if sync.finished_at is None else rfc3339(sync.finished_at),
        "attempt": sync.attempt,
        "progress": {
            "recordsRead": sync.records_read,
            "recordsTotal": sync.records_total,
            "percent": sync.percent,
        },
        "result": {
            "created": sync.counts.created,
            "updated": sync.counts.updated,
            "unchanged": sync.counts.unchanged,
            "deleted": sync.counts.deleted,
            "rejected": sync.counts.rejected,
        },
        "failure": None
        if sync.failure_code is None
        else {"code": sync.failure_code, "detail": sync.failure_detail or ""},
    }


def rfc3339(instant: datetime) -> str:
    """In UTC, with milliseconds."""
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
