"""A sync as an API body, for responses and webhook messages."""

from datetime import datetime

from product_gateway.model.catalog import RejectionGroup
from product_gateway.model.syncs import Sync
from product_gateway.openapi.types import Sync as SyncBody
from product_gateway.openapi.types import SyncProblemGroup, SyncProblemSample, SyncWarning


def sync_body(sync: Sync) -> SyncBody:
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
        "warnings": _warnings(sync),
        "publication": sync.publication and sync.publication.value,
        "generation": sync.generation,
        "reverts": None if sync.reverts is None else str(sync.reverts),
    }


def _warnings(sync: Sync) -> list[SyncWarning]:
    if not sync.not_removed:
        return []
    kept = "1 record" if sync.not_removed == 1 else f"{sync.not_removed} records"
    unidentified = "1 record" if sync.unidentified == 1 else f"{sync.unidentified} records"
    detail = (
        f"{kept} that the product service's list lacks stayed in the catalog: the list has {unidentified} without a "
        "usable id, which may be any of them, and the product service did not show by the query parameter ids that it "
        "no longer has them. Give every record an id; the sync's problems say what is wrong."
    )
    return [{"code": "RECORDS_NOT_REMOVED", "detail": detail}]


def problem_group(group: RejectionGroup) -> SyncProblemGroup:
    samples: list[SyncProblemSample] = [
        {"recordId": each.record_id, "pointer": each.pointer, "message": each.message} for each in group.samples
    ]
    return {"code": group.code, "count": group.count, "samples": samples}


def rfc3339(instant: datetime) -> str:
    """Format an instant in UTC with milliseconds (RFC 3339)."""
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
