"""What operators look at: a sync's events, its last heartbeat, and the way to syncs of a status."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

INSTANT = sa.DateTime(timezone=True)
MERCHANT = sa.String(128).with_variant(sa.String(128, collation="C"), "postgresql")


def upgrade() -> None:
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
    op.add_column("syncs", sa.Column("heartbeat_at", INSTANT))
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
    op.drop_column("syncs", "heartbeat_at")
    op.drop_table("sync_events")
