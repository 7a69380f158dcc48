"""The tables, and what is different between SQLite and PostgreSQL.

Every key starts with the merchant, so that the tables can be split by merchant one day.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Instant(TypeDecorator[datetime]):
    """A point in time, always with an offset in Python: timestamptz, or UTC text where there is no such type."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """SQLite keeps no offset, so UTC it is."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """In UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class now(ColumnElement[datetime]):  # noqa: N801 - used like a function of SQL
    """The database's clock, `seconds` from now: the clocks of the machines around it do not matter."""

    inherit_cache = True
    type = Instant()
    _traverse_internals = []  # noqa: RUF012

    def __init__(self, seconds: ColumnElement[Any] | None = None) -> None:
        self.seconds = seconds


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: Any, **kwargs: Any) -> str:
    if element.seconds is None:
        return "clock_timestamp()"
    return f"clock_timestamp() + make_interval(secs => {compiler.process(element.seconds, **kwargs)})"


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: Any, **kwargs: Any) -> str:
    later = "" if element.seconds is None else f", {compiler.process(element.seconds, **kwargs)} || ' seconds'"
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now'{later})"


# Order and comparison by code point on both databases, as the cursors of the catalog need it.
RecordId = String(255).with_variant(String(255, collation="C"), "postgresql")
MerchantName = String(128).with_variant(String(128, collation="C"), "postgresql")

# Literal, not bound: only so is the partial index used.
ACTIVE = "status IN ('QUEUED', 'IN_PROGRESS')"

merchants = Table(
    "merchants",
    metadata,
    Column("name", MerchantName, primary_key=True),
    Column("platform", String(16), nullable=False),
    Column("product_service_url", Text),
    Column("product_service_token", Text),  # encrypted
    Column("currency", String(3)),
    Column("max_rejected_percent", Integer, nullable=False, server_default="10"),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    CheckConstraint("platform IN ('BYOP', 'BENTO')", name="platform"),
    CheckConstraint("max_rejected_percent BETWEEN 0 AND 100", name="max_rejected_percent"),
    # Who brings their own platform has a product service to read from.
    CheckConstraint("platform = 'BENTO' OR product_service_url IS NOT NULL", name="product_service"),
)

syncs = Table(
    "syncs",
    metadata,
    Column("merchant", MerchantName, ForeignKey("merchants.name"), nullable=False),
    Column("id", Uuid, nullable=False),
    Column("entity_type", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("queued_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("idempotency_key", String(255)),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("lost_workers", Integer, nullable=False, server_default="0"),
    Column("lease_owner", String(255)),
    Column("lease_token", BigInteger, nullable=False, server_default="0"),
    Column("lease_expires_at", Instant),
    Column("cursor", Text),  # where the next page starts
    Column("pull_complete", Boolean, nullable=False, server_default=text("false")),
    # A pull with records that cannot be told apart must not remove anything.
    Column("unidentified", BigInteger, nullable=False, server_default="0"),
    Column("pages_read", BigInteger, nullable=False, server_default="0"),
    Column("records_read", BigInteger, nullable=False, server_default="0"),
    Column("records_total", BigInteger),
    Column("created", BigInteger, nullable=False, server_default="0"),
    Column("updated", BigInteger, nullable=False, server_default="0"),
    Column("unchanged", BigInteger, nullable=False, server_default="0"),
    Column("deleted", BigInteger, nullable=False, server_default="0"),
    Column("rejected", BigInteger, nullable=False, server_default="0"),
    Column("failure_code", String(64)),
    Column("failure_detail", Text),
    PrimaryKeyConstraint("merchant", "id"),
    CheckConstraint("entity_type IN ('PRODUCT', 'COLLECTION')", name="entity_type"),
    CheckConstraint("status IN ('QUEUED', 'IN_PROGRESS', 'SUCCEEDED', 'FAILED', 'CANCELLED')", name="status"),
    # What has ended says when; what has not does not.
    CheckConstraint(f"(finished_at IS NULL) = ({ACTIVE})", name="finished"),
    # A failure has a reason, and nothing else has.
    CheckConstraint("(status = 'FAILED') = (failure_code IS NOT NULL)", name="failure"),
    # A sync in progress belongs to somebody until some time, and only such a one does.
    CheckConstraint("(status = 'IN_PROGRESS') = (lease_expires_at IS NOT NULL)", name="lease"),
)

# The rule of the house: of one merchant and entity type, at most one sync is queued or in progress.
Index(
    "ux_syncs_one_active",
    syncs.c.merchant,
    syncs.c.entity_type,
    unique=True,
    sqlite_where=text(ACTIVE),
    postgresql_where=text(ACTIVE),
)
# A merchant's key stands for one sync, for as long as the sync is kept.
Index(
    "ux_syncs_idempotency_key",
    syncs.c.merchant,
    syncs.c.idempotency_key,
    unique=True,
    sqlite_where=text("idempotency_key IS NOT NULL"),
    postgresql_where=text("idempotency_key IS NOT NULL"),
)
# What is old enough to be pruned.
Index(
    "ix_syncs_finished_at",
    syncs.c.finished_at,
    sqlite_where=text("finished_at IS NOT NULL"),
    postgresql_where=text("finished_at IS NOT NULL"),
)
# What a worker looks for. Leases are in no index: a heartbeat must not cost more than its row.
for _status in ("QUEUED", "IN_PROGRESS"):
    _of_status = text(f"status = '{_status}'")
    Index(f"ix_syncs_{_status.lower()}", syncs.c.queued_at, sqlite_where=_of_status, postgresql_where=_of_status)
# The latest sync of an entity type, and the history (the database's clock decides what is later, not the ids).
Index("ix_syncs_latest", syncs.c.merchant, syncs.c.entity_type, syncs.c.queued_at, syncs.c.id)

sync_problems = Table(
    "sync_problems",
    metadata,
    Column("merchant", MerchantName, nullable=False),
    Column("sync_id", Uuid, nullable=False),
    Column("code", String(64), nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("samples", Text, nullable=False),  # JSON
    PrimaryKeyConstraint("merchant", "sync_id", "code"),
)

# The ids that a pull has seen: it knows them after a crash too, and its memory stays flat.
seen_records = Table(
    "seen_records",
    metadata,
    Column("merchant", MerchantName, nullable=False),
    Column("sync_id", Uuid, nullable=False),
    Column("record_id", RecordId, nullable=False),
    PrimaryKeyConstraint("merchant", "sync_id", "record_id"),
    sqlite_with_rowid=False,
)

catalog_records = Table(
    "catalog_records",
    metadata,
    Column("merchant", MerchantName, nullable=False),
    Column("entity_type", String(16), nullable=False),
    Column("record_id", RecordId, nullable=False),
    Column("document", Text, nullable=False),  # JSON
    Column("product_ids", Text),  # JSON; of a collection
    Column("digest", LargeBinary(16), nullable=False),  # of document and product_ids: has the record changed?
    PrimaryKeyConstraint("merchant", "entity_type", "record_id"),
    sqlite_with_rowid=False,
)

# Counted in the transactions that write records, so that reading the number costs one row.
catalog_counts = Table(
    "catalog_counts",
    metadata,
    Column("merchant", MerchantName, nullable=False),
    Column("entity_type", String(16), nullable=False),
    Column("num_records", BigInteger, nullable=False),
    Column("updated_at", Instant),  # when the last successful sync finished
    Column("mass_deletion_allowed", Boolean, nullable=False, server_default=text("false")),  # by the operator, once
    PrimaryKeyConstraint("merchant", "entity_type"),
    CheckConstraint("num_records >= 0", name="num_records"),
)

# One row, which a server that asks itself whether it can serve writes to: only a commit shows that.
readiness = Table(
    "readiness",
    metadata,
    Column("id", SmallInteger, nullable=False, autoincrement=False),
    Column("checked_at", Instant),
    # The revision of the oldest code that fits these tables. A migration that takes something away raises it.
    Column("oldest_code", String(32), nullable=False),
    PrimaryKeyConstraint("id"),
    CheckConstraint("id = 1", name="one_row"),
)
