"""Messages to webhooks and their signatures, as Standard Webhooks defines them."""

from collections.abc import Sequence
from datetime import UTC, datetime

import orjson
from standardwebhooks import Webhook as Signer

from product_gateway.db.webhooks import SYNC_PUBLISHED
from product_gateway.model.syncs import Sync
from product_gateway.model.webhooks import Delivery
from product_gateway.openapi.bodies import rfc3339, sync_body


def payload(delivery: Delivery, sync: Sync) -> bytes:
    """Return the body of a message (SyncEvent in the spec), with the sync's present publication."""
    # A table constraint: a sync that has ended has `finished_at`.
    at = None if delivery.event == SYNC_PUBLISHED else sync.finished_at
    data = {**sync_body(sync), "merchant": sync.merchant}
    return orjson.dumps({"type": delivery.event, "timestamp": rfc3339(at or delivery.created_at), "data": data})


def stale_payload(delivery: Delivery) -> bytes:
    """Return the body of a message about a stale catalog (CatalogStaleEvent in the spec)."""
    data = {
        "merchant": delivery.merchant,
        "entityType": delivery.entity_type,
        "updatedAt": delivery.published_at and rfc3339(delivery.published_at),
        "staleAfter": delivery.stale_after and rfc3339(delivery.stale_after),
    }
    return orjson.dumps({"type": delivery.event, "timestamp": rfc3339(delivery.created_at), "data": data})


def test_payload(merchant: str) -> bytes:
    """Return the body of a message that reports no sync: `webhook.test`."""
    now = rfc3339(datetime.now(UTC))
    return orjson.dumps({"type": "webhook.test", "timestamp": now, "data": {"merchant": merchant}})


def signature_headers(message_id: str, secrets: Sequence[str], body: bytes) -> dict[str, str]:
    """Return the headers of an attempt that is made now, with one signature for each secret."""
    now = datetime.now(UTC)
    signatures = [Signer(secret).sign(message_id, now, body.decode()) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
