"""Webhooks, and what is to be delivered to them.

Both tables are emptied by the database itself when a version that does not know them removes a merchant or prunes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

INSTANT = sa.DateTime(timezone=True)
MERCHANT = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("merchant", MERCHANT, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
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
    pending = sa.text("status = 'PENDING'")
    op.create_index(
        "ix_webhook_deliveries_pending",
        "webhook_deliveries",
        ["next_attempt_at"],
        unique=False,
        sqlite_where=pending,
        postgresql_where=pending,
    )


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
