"""All tables, as tables.py declares them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

INSTANT = sa.DateTime(timezone=True)
MERCHANT = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")
RECORD_ID = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
ACTIVE = sa.text("status IN ('QUEUED', 'IN_PROGRESS')")


def upgrade() -> None:
    op.create_table(
        "catalog_counts",
        sa.Column("merchant", MERCHANT, nullable=False),
        sa.Column("entity_type", sa.String(length=16), nullable=False),
        sa.Column("num_records", sa.BigInteger(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("updated_at", INSTANT),
        sa.Column("mass_deletion_allowed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint("num_bytes >= 0", name=op.f("ck_catalog_counts_num_bytes")),
        sa.CheckConstraint("num_records >= 0", name=op.f("ck_catalog_counts_num_records")),
        sa.PrimaryKeyConstraint("merchant", "entity_type", name=op.f("pk_catalog_counts")),
    )
    op.create_table(
        "catalog_records",
        sa.Column("merchant", MERCHANT, nullable=False),
        sa.Column("entity_type", sa.String(length=16), nullable=False),
        sa.Column("record_id", RECORD_ID, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("product_ids", sa.Text()),
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False),
        sa.PrimaryKeyConstraint("merchant", "entity_type", "record_id", name=op.f("pk_catalog_records")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "merchants",
        sa.Column("name", MERCHANT, nullable=False),
        sa.Column("platform", sa.String(length=16), nullable=False),
        sa.Column("product_service_url", sa.Text()),
        sa.Column("product_service_token", sa.Text()),
        sa.Column("currency", sa.String(length=3)),
        sa.Column("max_rejected_percent", sa.Integer(), server_default="10", nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint(
            "platform = 'BENTO' OR product_service_url IS NOT NULL", name=op.f("ck_merchants_product_service")
        ),
        sa.CheckConstraint("platform IN ('BYOP', 'BENTO')", name=op.f("ck_merchants_platform")),
        sa.CheckConstraint("max_rejected_percent BETWEEN 0 AND 100", name=op.f("ck_merchants_max_rejected_percent")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_merchants")),
    )
    op.create_table(
        "seen_records",
        sa.Column("merchant", MERCHANT, nullable=False),
        sa.Column("sync_id", sa.Uuid(), nullable=False),
        sa.Column("record_id", RECORD_ID, nullable=False),
        sa.PrimaryKeyConstraint("merchant", "sync_id", "record_id", name=op.f("pk_seen_records")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sync_problems",
        sa.Column("merchant", MERCHANT, nullable=False),
        sa.Column("sync_id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("samples", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("merchant", "sync_id", "code", name=op.f("pk_sync_problems")),
    )
    op.create_table(
        "syncs",
        sa.Column("merchant", MERCHANT, nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("entity_type", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("queued_at", INSTANT, nullable=False),
        sa.Column("started_at", INSTANT),
        sa.Column("released_at", INSTANT),
        sa.Column("finished_at", INSTANT),
        sa.Column("idempotency_key", sa.String(length=255)),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lost_workers", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_owner", sa.String(length=255)),
        sa.Column("lease_token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_expires_at", INSTANT),
        sa.Column("heartbeat_at", INSTANT),
        sa.Column("cursor", sa.Text()),
        sa.Column("pull_complete", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("unidentified", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("not_removed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pages_without_new", sa.Integer(), server_default="0", nullable=False),
        sa.Column("pages_read", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("records_read", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("records_total", sa.BigInteger()),
        sa.Column("created", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("updated", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unchanged", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("deleted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rejected", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failure_code", sa.String(length=64)),
        sa.Column("failure_detail", sa.Text()),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (status IN ('QUEUED', 'IN_PROGRESS'))", name=op.f("ck_syncs_finished")
        ),
        sa.CheckConstraint("(status = 'FAILED') = (failure_code IS NOT NULL)", name=op.f("ck_syncs_failure")),
        sa.CheckConstraint("(status = 'IN_PROGRESS') = (lease_expires_at IS NOT NULL)", name=op.f("ck_syncs_lease")),
        sa.CheckConstraint("entity_type IN ('PRODUCT', 'COLLECTION')", name=op.f("ck_syncs_entity_type")),
        sa.CheckConstraint(
            "status IN ('QUEUED', 'IN_PROGRESS', 'SUCCEEDED', 'FAILED', 'CANCELLED')", name=op.f("ck_syncs_status")
        ),
        sa.ForeignKeyConstraint(["merchant"], ["merchants.name"], name=op.f("fk_syncs_merchant_merchants")),
        sa.PrimaryKeyConstraint("merchant", "id", name=op.f("pk_syncs")),
    )
    queues = (
        ("ix_syncs_queued", "QUEUED", sa.text("coalesce(released_at, queued_at)")),
        ("ix_syncs_in_progress", "IN_PROGRESS", "queued_at"),
    )
    for name, status, since in queues:
        where = sa.text(f"status = '{status}'")
        in_order = ["status", since, "id"]
        op.create_index(name, "syncs", in_order, unique=False, sqlite_where=where, postgresql_where=where)
    op.create_index(
        "ux_syncs_idempotency_key",
        "syncs",
        ["merchant", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index(
        "ix_syncs_finished_at",
        "syncs",
        ["finished_at"],
        unique=False,
        sqlite_where=sa.text("finished_at IS NOT NULL"),
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index("ix_syncs_latest", "syncs", ["merchant", "entity_type", "queued_at", "id"], unique=False)
    op.create_index(
        "ux_syncs_one_active",
        "syncs",
        ["merchant", "entity_type"],
        unique=True,
        sqlite_where=ACTIVE,
        postgresql_where=ACTIVE,
    )
    readiness = op.create_table(
        "readiness",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True)),
        sa.Column("oldest_code", sa.String(length=32), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_readiness_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_readiness")),
    )
    op.bulk_insert(readiness, [{"id": 1, "oldest_code": "0001"}])
    op.create_table(
        "webhooks",
        sa.Column("merchant", MERCHANT, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("previous_secret", sa.Text()),
        sa.Column("previous_secret_until", INSTANT),
        sa.Column("gone_at", INSTANT),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["merchant"], ["merchants.name"], name=op.f("fk_webhooks_merchant_merchants"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("merchant", name=op.f("pk_webhooks")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("merchant", MERCHANT, nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sync_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", INSTANT),
        sa.Column("last_attempt_at", INSTANT),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_error", sa.Text()),
        sa.Column("finished_at", INSTANT),
        sa.CheckConstraint(
            "event IN ('sync.succeeded', 'sync.failed', 'sync.cancelled')", name=op.f("ck_webhook_deliveries_event")
        ),
        sa.CheckConstraint("status IN ('PENDING', 'DELIVERED', 'GIVEN_UP')", name=op.f("ck_webhook_deliveries_status")),
        sa.CheckConstraint(
            "(status = 'PENDING') = (next_attempt_at IS NOT NULL)", name=op.f("ck_webhook_deliveries_next_attempt")
        ),
        sa.CheckConstraint("(status = 'PENDING') = (finished_at IS NULL)", name=op.f("ck_webhook_deliveries_finished")),
        sa.ForeignKeyConstraint(
            ["merchant", "sync_id"],
            ["syncs.merchant", "syncs.id"],
            name=op.f("fk_webhook_deliveries_merchant_syncs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("merchant", "id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index(
        "ux_webhook_deliveries_sync_event", "webhook_deliveries", ["merchant", "sync_id", "event"], unique=True
    )
    pending = sa.text("next_attempt_at IS NOT NULL")
    for name, columns in (
        ("due", ["next_attempt_at"]),
        ("due_of_merchant", ["merchant", "next_attempt_at", "id"]),
        ("pending", ["created_at"]),
    ):
        op.create_index(
            f"ix_webhook_deliveries_{name}",
            "webhook_deliveries",
            columns,
            unique=False,
            sqlite_where=pending,
            postgresql_where=pending,
        )
    op.create_table(
        "sync_events",
        sa.Column("merchant", MERCHANT, nullable=False),
        sa.Column("sync_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("number", sa.BigInteger()),
        sa.Column("detail", sa.Text()),
        sa.PrimaryKeyConstraint("merchant", "sync_id", "id", name=op.f("pk_sync_events")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ended_sessions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ended_sessions")),
    )
    op.create_index("ix_syncs_of_status", "syncs", ["status", "entity_type", "queued_at", "id"], unique=False)
    op.create_index(
        "ix_syncs_of_merchant_and_status",
        "syncs",
        ["merchant", "status", "entity_type", "queued_at", "id"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index("ix_syncs_of_merchant_and_status", table_name="syncs")
    op.drop_index("ix_syncs_of_status", table_name="syncs")
    op.drop_table("ended_sessions")
    op.drop_table("sync_events")
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
    op.drop_table("readiness")
    op.drop_index("ux_syncs_one_active", table_name="syncs")
    op.drop_index("ix_syncs_latest", table_name="syncs")
    op.drop_index("ix_syncs_finished_at", table_name="syncs")
    op.drop_index("ux_syncs_idempotency_key", table_name="syncs")
    op.drop_index("ix_syncs_in_progress", table_name="syncs")
    op.drop_index("ix_syncs_queued", table_name="syncs")
    op.drop_table("syncs")
    op.drop_table("sync_problems")
    op.drop_table("seen_records")
    op.drop_table("merchants")
    op.drop_table("catalog_records")
    op.drop_table("catalog_counts")
