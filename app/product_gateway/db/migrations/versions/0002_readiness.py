"""The row that says whether the database can be written to, and which code fits it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    readiness = op.create_table(
        "readiness",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True)),
        sa.Column("oldest_code", sa.String(length=32), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_readiness_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_readiness")),
    )
    op.bulk_insert(readiness, [{"id": 1, "oldest_code": "0001"}])


def downgrade() -> None:
    op.drop_table("readiness")
