"""The checks and bodies that all peers share, so that they differ only in their architecture."""

import os
from datetime import UTC, datetime
from typing import Any

import jwt

from product_gateway import settings
from product_gateway.auth.keys import verification_key

API = "/product-gateway/v1"
TYPES = ("PRODUCT", "COLLECTION")
DATABASE = os.environ.get("PRODUCT_GATEWAY_DATABASE_URL", "")
SECONDS_TO_WAIT = 30
TITLES = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 429: "Too Many Requests",
}  # fmt: skip

_settings = settings.load()
_key = verification_key(_settings).key


class Refused(Exception):
    """An error response."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        self.status, self.detail, self.headers = status, detail, headers or {}

    @property
    def body(self) -> dict[str, Any]:
        return {"error": [{"status": str(self.status), "title": TITLES[self.status], "detail": self.detail}]}


def bearer(authorization: str | None) -> str:
    """Return the token of the header. Raises Refused."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refused(401, "A bearer token is needed: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})
    return token


def claims(token: str) -> dict[str, Any]:
    """Verify signature, issuer, audience and time, like the gateway. Raises Refused."""
    try:
        return jwt.decode(
            token,
            _key,
            algorithms=["ES256"],
            issuer=_settings.jwt_issuer,
            audience=_settings.jwt_audience,
            options={"require": ["exp", "iss", "aud"], "verify_iat": False},
        )
    except jwt.PyJWTError:
        raise Refused(401, "The bearer token is not valid.", {"WWW-Authenticate": "Bearer"}) from None


def who(said: dict[str, Any], scope: str) -> str:
    """Return the merchant of the token. Raises Refused."""
    if scope not in said.get("scope", "").split():
        raise Refused(403, f"The token lacks the scope {scope}.")
    return str(said["merchant"])


def admit(merchant: Any) -> None:
    """Raise Refused unless the merchant may sync."""
    if merchant is None or merchant.disabled or merchant.platform != "BYOP":
        raise Refused(403, "This merchant does not bring its own platform.")


def entity_type(text: str) -> str:
    """Return the entity type. Raises Refused."""
    if text not in TYPES:
        raise Refused(400, f"Path parameter entityType: {text!r} should be 'PRODUCT' or 'COLLECTION'.")
    return text


def already_active(sync: Any) -> Refused:
    """Return the 429 error."""
    return Refused(
        429,
        f"Sync {sync.id} of {sync.entity_type} is {sync.status}. Only one sync per entity type may be queued or in "
        "progress; wait for it to end.",
        {"Retry-After": "2", "Link": f'<{API}/syncs/{sync.id}>; rel="monitor"'},
    )


def accepted(sync: Any) -> dict[str, str]:
    """Return the headers of a 202."""
    return {"Location": f"{API}/syncs/{sync.id}", "Retry-After": "2"}


def sync_body(sync: Any) -> dict[str, Any]:
    """Return a sync in the form of the spec, from any object with the columns' names."""
    read, total = sync.records_read, sync.records_total
    return {
        "id": str(sync.id),
        "entityType": sync.entity_type,
        "status": sync.status,
        "queuedAt": _instant(sync.queued_at),
        "startedAt": _instant(sync.started_at),
        "finishedAt": _instant(sync.finished_at),
        "attempt": sync.attempt,
        "progress": {
            "recordsRead": read,
            "recordsTotal": total,
            "percent": None if total is None else min(100, read * 100 // total) if total else 100,
        },
        "result": {
            "created": sync.created, "updated": sync.updated, "unchanged": sync.unchanged,
            "deleted": sync.deleted, "rejected": sync.rejected,
        },
        "failure": None
        if sync.failure_code is None
        else {"code": sync.failure_code, "detail": sync.failure_detail or ""},
        "warnings": [],
        "publication": sync.publication, "generation": sync.generation, "reverts": sync.reverts,
    }  # fmt: skip


def status_body(count: Any, latest: Any) -> dict[str, Any]:
    """Return the status of an entity type. Raises Refused."""
    if count is None or count.updated_at is None or latest is None:
        raise Refused(404, "No sync has succeeded yet.")
    data = {
        "entityType": count.entity_type, "updatedAt": _instant(count.updated_at), "numRecords": count.num_records,
    }  # fmt: skip
    return {"data": data, "meta": {"sync": sync_body(latest), "generation": count.generation}}


def _instant(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):  # SQLite's own
        return f"{value[:10]}T{value[11:23]}Z"
    instant: datetime = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
