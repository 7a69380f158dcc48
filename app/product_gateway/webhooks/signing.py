"""Messages to webhooks: CloudEvents 1.0 in JSON, with the signatures of Standard Webhooks."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from standardwebhooks import Webhook as Signer

from product_gateway.db.webhooks import SYNC_PUBLISHED
from product_gateway.model.syncs import Sync
from product_gateway.model.webhooks import Delivery
from product_gateway.openapi.bodies import rfc3339, sync_body

SOURCE = "/product-gateway/v1"  # a URI reference: the gateway does not know under which URLs it is published
TEST = "webhook.test"


def payload(delivery: Delivery, sync: Sync) -> bytes:
    """Return the body of a message (SyncEvent in the spec), with the sync's present publication."""
    # A table constraint: a sync that has ended has `finished_at`.
    at = None if delivery.event == SYNC_PUBLISHED else sync.finished_at
    data = {**sync_body(sync), "merchant": sync.merchant}
    return _event(str(delivery.id), delivery.event, f"syncs/{sync.id}", at or delivery.created_at, data)


def stale_payload(delivery: Delivery) -> bytes:
    """Return the body of a message about a stale catalog (CatalogStaleEvent in the spec)."""
    data = {
        "merchant": delivery.merchant,
        "entityType": delivery.entity_type,
        "updatedAt": delivery.published_at and rfc3339(delivery.published_at),
        "staleAfter": delivery.stale_after and rfc3339(delivery.stale_after),
    }
    return _event(str(delivery.id), delivery.event, f"sync/{delivery.entity_type}", delivery.created_at, data)


def test_payload(message_id: str, merchant: str) -> bytes:
    """Return the body of a message that reports no sync (TestEvent in the spec)."""
    return _event(message_id, TEST, merchant, datetime.now(UTC), {"merchant": merchant})


def _event(message_id: str, kind: str, subject: str, at: datetime, data: dict[str, Any]) -> bytes:
    """Return an event in the JSON format of CloudEvents, where `timestamp` is an extension attribute."""
    time = rfc3339(at)
    context = {"specversion": "1.0", "id": message_id, "source": SOURCE, "subject": subject, "time": time}
    return orjson.dumps({"type": kind, "timestamp": time, **context, "data": data})


def signature_headers(
    message_id: str, secrets: Sequence[str], body: bytes, at: datetime | None = None
) -> dict[str, str]:
    """Return the headers of an attempt at a time, by default now, with one signature for each secret."""
    at = at or datetime.now(UTC)
    signatures = [Signer(secret).sign(message_id, at, body.decode()) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
