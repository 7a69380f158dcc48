"""All tables, as tables.py declares them at this revision."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BOOLEAN, INSTANT, INTEGER, NUMBER = sa.Boolean(), sa.DateTime(timezone=True), sa.Integer(), sa.BigInteger()
ID, CODE, NAME, TEXT = sa.Uuid(), sa.String(16), sa.String(255), sa.Text()
MERCHANT = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
RECORD_ID = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
FALSE = sa.text("false")

metadata = sa.MetaData(
    naming_convention={
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _key(kind: Any, *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, primary_key=True, autoincrement=False) for name in names]


def _required(kind: Any, *names: str, default: Any = None) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False, server_default=default) for name in names]


def _optional(kind: Any, *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind) for name in names]


def _content() -> list[sa.Column[Any]]:
    return [
        *_required(INTEGER, "size"),
        *_required(TEXT, "document"),
        *_optional(TEXT, "product_ids"),
        *_required(sa.LargeBinary(16), "digest"),
    ]


def _index(name: str, *columns: Any, where: str | None = None, unique: bool = False) -> sa.Index:
    some = None if where is None else sa.text(where)
    return sa.Index(name, *columns, unique=unique, sqlite_where=some, postgresql_where=some)


sa.Table(
    "merchants",
    metadata,
    *_key(MERCHANT, "name"),
    *_required(CODE, "platform"),
    *_optional(TEXT, "product_service_url", "product_service_token"),
    *_optional(sa.String(3), "currency"),
    *_required(INTEGER, "max_rejected_percent", default="10"),
    *_required(BOOLEAN, "disabled"),
    *_required(INSTANT, "created_at", "updated_at"),
    sa.CheckConstraint("platform = 'BENTO' OR product_service_url IS NOT NULL", "product_service"),
    sa.CheckConstraint("platform IN ('BYOP', 'BENTO')", "platform"),
    sa.CheckConstraint("max_rejected_percent BETWEEN 0 AND 100", "max_rejected_percent"),
)
sa.Table(
    "syncs",
    metadata,
    *_key(MERCHANT, "merchant"),
    *_key(ID, "id"),
    *_required(CODE, "entity_type", "status"),
    *_required(INSTANT, "queued_at"),
    *_optional(INSTANT, "started_at", "released_at", "finished_at"),
    *_optional(NAME, "idempotency_key"),
    *_optional(sa.String(55), "traceparent"),
    *_required(INTEGER, "attempt", "lost_workers", default="0"),
    *_optional(NAME, "lease_owner"),
    *_required(NUMBER, "lease_token", default="0"),
    *_optional(INSTANT, "lease_expires_at", "heartbeat_at"),
    *_optional(TEXT, "cursor"),
    *_required(BOOLEAN, "pull_complete", default=FALSE),
    *_required(NUMBER, "unidentified", "not_removed", default="0"),
    *_required(INTEGER, "pages_without_new", default="0"),
    *_required(NUMBER, "pages_read", "records_read", default="0"),
    *_optional(NUMBER, "records_total"),
    *_required(NUMBER, "created", "updated", "unchanged", "deleted", "rejected", default="0"),
    *_optional(sa.String(64), "failure_code"),
    *_optional(TEXT, "failure_detail"),
    *_required(CODE, "publish", default="AUTOMATIC"),
    *_optional(CODE, "publication"),
    *_optional(NUMBER, "generation"),
    *_optional(ID, "reverts"),
    *_optional(NUMBER, "restores"),
    sa.ForeignKeyConstraint(["merchant"], ["merchants.name"]),
    sa.CheckConstraint("publish IN ('AUTOMATIC', 'MANUAL')", "publish"),
    sa.CheckConstraint(
        "(status = 'SUCCEEDED') = (publication IS NOT NULL) AND publication IN ('PUBLISHED', 'STAGED', 'DISCARDED')",
        "publication",
    ),
    sa.CheckConstraint("(reverts IS NULL) = (restores IS NULL)", "revert"),
    sa.CheckConstraint("(finished_at IS NULL) = (status IN ('QUEUED', 'IN_PROGRESS'))", "finished"),
    sa.CheckConstraint("(status = 'FAILED') = (failure_code IS NOT NULL)", "failure"),
    sa.CheckConstraint("(status = 'IN_PROGRESS') = (lease_expires_at IS NOT NULL)", "lease"),
    sa.CheckConstraint("entity_type IN ('PRODUCT', 'COLLECTION')", "entity_type"),
    sa.CheckConstraint("status IN ('QUEUED', 'IN_PROGRESS', 'SUCCEEDED', 'FAILED', 'CANCELLED')", "status"),
    _index("ix_syncs_queued", "status", sa.text("coalesce(released_at, queued_at)"), "id", where="status = 'QUEUED'"),
    _index("ix_syncs_in_progress", "status", "queued_at", "id", where="status = 'IN_PROGRESS'"),
    _index("ux_syncs_idempotency_key", "merchant", "idempotency_key", where="idempotency_key IS NOT NULL", unique=True),
    _index("ix_syncs_finished_at", "finished_at", where="finished_at IS NOT NULL"),
    _index("ix_syncs_latest", "merchant", "entity_type", "queued_at", "id"),
    _index("ux_syncs_one_active", "merchant", "entity_type", where="status IN ('QUEUED', 'IN_PROGRESS')", unique=True),
    _index("ix_syncs_of_status", "status", "entity_type", "queued_at", "id"),
    _index("ix_syncs_of_merchant_and_status", "merchant", "status", "entity_type", "queued_at", "id"),
)
sa.Table(
    "sync_problems",
    metadata,
    *_key(MERCHANT, "merchant"),
    *_key(ID, "sync_id"),
    *_key(sa.String(64), "code"),
    *_required(NUMBER, "count"),
    *_required(TEXT, "samples"),
)
sa.Table(
    "sync_events",
    metadata,
    *_key(MERCHANT, "merchant"),
    *_key(ID, "sync_id", "id"),
    *_required(INSTANT, "at"),
    *_required(sa.String(32), "kind"),
    *_optional(NUMBER, "number"),
    *_optional(TEXT, "detail"),
    sqlite_with_rowid=False,
)
sa.Table(
    "seen_records",
    metadata,
    *_key(MERCHANT, "merchant"),
    *_key(ID, "sync_id"),
    *_key(RECORD_ID, "record_id"),
    sqlite_with_rowid=False,
)
sa.Table(
    "catalog_records",
    metadata,
    *_key(MERCHANT, "merchant"),
    *_key(CODE, "entity_type"),
    *_key(RECORD_ID, "record_id"),
    *_required(NUMBER, "generation"),
    *_content(),
    _index("ix_catalog_records_generation", "merchant", "entity_type", "generation", "record_id"),
    sqlite_with_rowid=False,
)
sa.Table(
    "catalog_history",
    metadata,
    *_key(MERCHANT, "merchant"),
    *_key(CODE, "entity_type"),
    *_key(RECORD_ID, "record_id"),
    *_key(NUMBER, "from_generation"),
    *_required(NUMBER, "to_generation"),
    *_content(),
    sa.CheckConstraint("from_generation < to_generation", "generations"),
    _index("ix_catalog_history_to_generation", "merchant", "entity_type", "to_generation", "record_id"),
    _index("ix_catalog_history_from_generation", "merchant", "entity_type", "from_generation", "record_id"),
    sqlite_with_rowid=False,
)
sa.Table(
    "catalog_generations",
    metadata,
    *_key(MERCHANT, "merchant"),
    *_key(CODE, "entity_type"),
    *_key(NUMBER, "generation"),
    *_required(INSTANT, "published_at"),
    _index("ix_catalog_generations_published_at", "published_at"),
)
sa.Table(
    "catalog_counts",
    metadata,
    *_key(MERCHANT, "merchant"),
    *_key(CODE, "entity_type"),
    *_required(NUMBER, "generation", "num_records", "num_bytes", default="0"),
    *_optional(INSTANT, "updated_at"),
    *_required(NUMBER, "oldest_generation", "working_records", "working_bytes", default="0"),
    *_optional(ID, "unpublished_sync"),
    *_required(BOOLEAN, "mass_deletion_allowed", default=FALSE),
    sa.CheckConstraint("working_bytes >= 0", "working_bytes"),
    sa.CheckConstraint("working_records >= 0", "working_records"),
    sa.CheckConstraint("oldest_generation BETWEEN 0 AND generation", "oldest_generation"),
    _index("ix_catalog_counts_updated_at", "updated_at", "merchant", "entity_type"),
    _index("ix_catalog_counts_unpublished", "unpublished_sync", where="unpublished_sync IS NOT NULL"),
)
sa.Table(
    "max_ages",
    metadata,
    *_key(MERCHANT, "merchant"),
    *_key(CODE, "entity_type"),
    *_required(INTEGER, "seconds"),
    *_required(INSTANT, "since", "stale_after"),
    *_optional(INSTANT, "told_at"),
    sa.ForeignKeyConstraint(["merchant"], ["merchants.name"], ondelete="CASCADE"),
    sa.CheckConstraint("entity_type IN ('PRODUCT', 'COLLECTION')", "entity_type"),
    sa.CheckConstraint("seconds > 0", "seconds"),
    _index("ix_max_ages_stale_after", "stale_after", "merchant", "entity_type"),
    _index("ix_max_ages_untold", "stale_after", "merchant", "entity_type", where="told_at IS NULL"),
)
readiness = sa.Table(
    "readiness",
    metadata,
    *_key(sa.SmallInteger(), "id"),
    *_optional(INSTANT, "checked_at"),
    *_required(sa.String(32), "oldest_code"),
    sa.CheckConstraint("id = 1", "one_row"),
)
sa.Table("ended_sessions", metadata, *_key(sa.String(64), "id"), *_required(INSTANT, "expires_at"))
sa.Table(
    "webhooks",
    metadata,
    *_key(MERCHANT, "merchant"),
    *_required(TEXT, "url", "secret"),
    *_optional(TEXT, "previous_secret"),
    *_optional(INSTANT, "previous_secret_until", "gone_at"),
    *_required(INSTANT, "updated_at"),
    sa.ForeignKeyConstraint(["merchant"], ["merchants.name"], ondelete="CASCADE"),
)
sa.Table(
    "webhook_deliveries",
    metadata,
    *_key(MERCHANT, "merchant"),
    *_key(ID, "id"),
    *_optional(ID, "sync_id"),
    *_required(sa.String(32), "event"),
    *_optional(CODE, "entity_type"),
    *_optional(INSTANT, "published_at", "stale_after"),
    *_required(CODE, "status"),
    *_required(INSTANT, "created_at"),
    *_required(INTEGER, "attempts", default="0"),
    *_optional(INSTANT, "next_attempt_at", "last_attempt_at"),
    *_optional(INTEGER, "last_status"),
    *_optional(TEXT, "last_error"),
    *_optional(INSTANT, "finished_at"),
    sa.ForeignKeyConstraint(["merchant", "sync_id"], ["syncs.merchant", "syncs.id"], ondelete="CASCADE"),
    sa.CheckConstraint(
        "event IN ('sync.succeeded', 'sync.failed', 'sync.cancelled', 'sync.published', 'catalog.stale')", "event"
    ),
    sa.CheckConstraint("(event = 'catalog.stale') = (sync_id IS NULL)", "sync"),
    sa.CheckConstraint(
        "(sync_id IS NULL) = (entity_type IS NOT NULL) AND (sync_id IS NULL) = (stale_after IS NOT NULL)", "catalog"
    ),
    sa.CheckConstraint("status IN ('PENDING', 'DELIVERED', 'GIVEN_UP')", "status"),
    sa.CheckConstraint("(status = 'PENDING') = (next_attempt_at IS NOT NULL)", "next_attempt"),
    sa.CheckConstraint("(status = 'PENDING') = (finished_at IS NULL)", "finished"),
    _index(
        *("ux_webhook_deliveries_sync_event", "merchant", "sync_id", "event"), where="sync_id IS NOT NULL", unique=True
    ),
    _index("ix_webhook_deliveries_without_sync", "finished_at", where="sync_id IS NULL"),
    *(
        _index(f"ix_webhook_deliveries_{name}", *columns, where="next_attempt_at IS NOT NULL")
        for name, *columns in (
            ("due", "next_attempt_at"),
            ("due_of_merchant", "merchant", "next_attempt_at", "id"),
            ("pending", "created_at"),
        )
    ),
)


def upgrade() -> None:
    metadata.create_all(op.get_bind(), checkfirst=False)
    op.bulk_insert(readiness, [{"id": 1, "oldest_code": "0001"}])


def downgrade() -> None:
    metadata.drop_all(op.get_bind(), checkfirst=False)
