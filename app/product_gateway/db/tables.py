"""The tables.

Every key starts with the merchant, so that the tables can be sharded by merchant.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex

from product_gateway.db.types import Instant, MerchantName, RecordId

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

WHERE = "where"  # the key of a partial index's condition in its `info`


@compiles(CreateIndex)
def _create_index(create: CreateIndex, compiler: Any, **kwargs: Any) -> str:
    """Compile partial indexes without importing both dialects, as SQLAlchemy's own options would."""
    made: str = compiler.visit_create_index(create, **kwargs)
    some = create.element.info.get(WHERE)
    return f"{made} WHERE {some}" if some else made


# A literal: with bound values the partial index is not used.
ACTIVE = "status IN ('QUEUED', 'IN_PROGRESS')"


def _counters(*names: str) -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False, server_default="0") for name in names]


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
    # A BYOP merchant needs a product service.
    CheckConstraint("platform = 'BENTO' OR product_service_url IS NOT NULL", name="product_service"),
)

syncs = Table(
    "syncs",
    metadata,
    Column("merchant", MerchantName, ForeignKey("merchants.name"), primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("entity_type", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("queued_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("released_at", Instant),  # when it last yielded to other merchants, which moves it to the end of the queue
    Column("finished_at", Instant),
    Column("idempotency_key", String(255)),
    Column("traceparent", String(55)),  # of the request, if it was made where traces are sent (W3C Trace Context)
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("lost_workers", Integer, nullable=False, server_default="0"),
    Column("lease_owner", String(255)),
    Column("lease_token", BigInteger, nullable=False, server_default="0"),
    Column("lease_expires_at", Instant),
    Column("heartbeat_at", Instant),  # for operators: the worker's last heartbeat
    Column("cursor", Text),  # of the next page
    Column("pull_complete", Boolean, nullable=False, server_default=text("false")),
    # Records without a usable id: each could be one that seems to be missing from the list.
    Column("unidentified", BigInteger, nullable=False, server_default="0"),
    # Records missing from the list that were kept because of unidentified ones.
    Column("not_removed", BigInteger, nullable=False, server_default="0"),
    # Consecutive pages, up to the last one, without a record that is new to the pull.
    Column("pages_without_new", Integer, nullable=False, server_default="0"),
    *_counters("pages_read", "records_read"),
    Column("records_total", BigInteger),
    *_counters("created", "updated", "unchanged", "deleted", "rejected"),
    Column("failure_code", String(64)),
    Column("failure_detail", Text),
    CheckConstraint("entity_type IN ('PRODUCT', 'COLLECTION')", name="entity_type"),
    CheckConstraint("status IN ('QUEUED', 'IN_PROGRESS', 'SUCCEEDED', 'FAILED', 'CANCELLED')", name="status"),
    # An ended sync has an end time, an active one has none.
    CheckConstraint(f"(finished_at IS NULL) = ({ACTIVE})", name="finished"),
    # Only a failed sync has a failure code.
    CheckConstraint("(status = 'FAILED') = (failure_code IS NOT NULL)", name="failure"),
    # Only a sync in progress has a lease.
    CheckConstraint("(status = 'IN_PROGRESS') = (lease_expires_at IS NOT NULL)", name="lease"),
    # The one-active rule: at most one sync of a merchant and entity type is queued or in progress.
    Index("ux_syncs_one_active", "merchant", "entity_type", unique=True, info={WHERE: ACTIVE}),
    # An idempotency key identifies one sync of a merchant, until that sync is pruned.
    Index(
        "ux_syncs_idempotency_key",
        "merchant",
        "idempotency_key",
        unique=True,
        info={WHERE: "idempotency_key IS NOT NULL"},
    ),
    # For pruning.
    Index("ix_syncs_finished_at", "finished_at", info={WHERE: "finished_at IS NOT NULL"}),
    # The latest sync of an entity type, and the history (the database's clock decides what is later, not the ids).
    Index("ix_syncs_latest", "merchant", "entity_type", "queued_at", "id"),
    # The same by status, for operators: of all merchants, or of one.
    Index("ix_syncs_of_status", "status", "entity_type", "queued_at", "id"),
    Index("ix_syncs_of_merchant_and_status", "merchant", "status", "entity_type", "queued_at", "id"),
)
# The start of a queued sync's wait.
waits_since = func.coalesce(syncs.c.released_at, syncs.c.queued_at)
# For claims, which take the oldest. Leases are in no index: a heartbeat must not cost more than its row.
# The status comes first: otherwise SQLite prefers ix_syncs_of_status, and sorts.
for _status, _since in (("QUEUED", waits_since), ("IN_PROGRESS", syncs.c.queued_at)):
    Index(f"ix_syncs_{_status.lower()}", syncs.c.status, _since, syncs.c.id, info={WHERE: f"status = '{_status}'"})

sync_problems = Table(
    "sync_problems",
    metadata,
    Column("merchant", MerchantName, primary_key=True),
    Column("sync_id", Uuid, primary_key=True),
    Column("code", String(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("samples", Text, nullable=False),  # JSON
)

# A log of a sync for people; no decision depends on it.
sync_events = Table(
    "sync_events",
    metadata,
    Column("merchant", MerchantName, primary_key=True),
    Column("sync_id", Uuid, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("number", BigInteger),
    Column("detail", Text),
    sqlite_with_rowid=False,
)

# The ids that a pull has seen. In a table, they survive a crash and need no memory.
seen_records = Table(
    "seen_records",
    metadata,
    Column("merchant", MerchantName, primary_key=True),
    Column("sync_id", Uuid, primary_key=True),
    Column("record_id", RecordId, primary_key=True),
    sqlite_with_rowid=False,
)

catalog_records = Table(
    "catalog_records",
    metadata,
    Column("merchant", MerchantName, primary_key=True),
    Column("entity_type", String(16), primary_key=True),
    Column("record_id", RecordId, primary_key=True),
    # Bytes of document and product_ids in UTF-8. Before them, so that SQLite reads it without reading past it.
    Column("size", Integer, nullable=False),
    Column("document", Text, nullable=False),  # JSON
    Column("product_ids", Text),  # JSON; of a collection
    # Of the raw bytes that the product service sent: shows whether the record has changed.
    Column("digest", LargeBinary(16), nullable=False),
    sqlite_with_rowid=False,
)

# Counted in the transactions that write records, so that reading the numbers costs one row.
catalog_counts = Table(
    "catalog_counts",
    metadata,
    Column("merchant", MerchantName, primary_key=True),
    Column("entity_type", String(16), primary_key=True),
    Column("num_records", BigInteger, nullable=False),
    Column("num_bytes", BigInteger, nullable=False, server_default="0"),  # the sum of catalog_records.size
    Column("updated_at", Instant),  # when the last successful sync finished
    Column("mass_deletion_allowed", Boolean, nullable=False, server_default=text("false")),  # by the operator, once
    CheckConstraint("num_bytes >= 0", name="num_bytes"),
    CheckConstraint("num_records >= 0", name="num_records"),
)

# One row, written by the readiness check: only a commit shows that the database works.
readiness = Table(
    "readiness",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("checked_at", Instant),
    # The oldest compatible revision of the code. A migration that drops something raises it.
    Column("oldest_code", String(32), nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)

# Operators' sessions signed out before they expired: every process refuses their cookies.
ended_sessions = Table(
    "ended_sessions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("expires_at", Instant, nullable=False),
)

# A merchant's webhook receiver, deleted with its merchant by the database.
webhooks = Table(
    "webhooks",
    metadata,
    Column("merchant", MerchantName, ForeignKey("merchants.name", ondelete="CASCADE"), primary_key=True),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),  # encrypted
    Column("previous_secret", Text),  # encrypted; messages are signed with it as well until the time beside it
    Column("previous_secret_until", Instant),
    Column("gone_at", Instant),  # when its receiver answered 410 Gone; it is not called since then
    Column("updated_at", Instant, nullable=False),
)

# One row for each message, written in the transaction that ends the sync, and deleted with the sync.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("merchant", MerchantName, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("sync_id", Uuid, nullable=False),
    Column("event", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # During an attempt, the end of its lease: if the worker is lost, another one makes the next attempt.
    Column("next_attempt_at", Instant),
    Column("last_attempt_at", Instant),
    Column("last_status", Integer),  # HTTP status; null without a response
    Column("last_error", Text),
    Column("finished_at", Instant),
    ForeignKeyConstraint(["merchant", "sync_id"], ["syncs.merchant", "syncs.id"], ondelete="CASCADE"),
    CheckConstraint("event IN ('sync.succeeded', 'sync.failed', 'sync.cancelled')", name="event"),
    CheckConstraint("status IN ('PENDING', 'DELIVERED', 'GIVEN_UP')", name="status"),
    # Only a pending message has a next attempt.
    CheckConstraint("(status = 'PENDING') = (next_attempt_at IS NOT NULL)", name="next_attempt"),
    CheckConstraint("(status = 'PENDING') = (finished_at IS NULL)", name="finished"),
    # A sync ends once, so it has one message.
    Index("ux_webhook_deliveries_sync_event", "merchant", "sync_id", "event", unique=True),
    # Of pending messages, for claims: the one that has been due longest, and the same of one merchant. For metrics: the
    # oldest one. Not "status = 'PENDING'": PostgreSQL takes few rows for pending until it has counted them, and sorts
    # them.
    *(
        Index(f"ix_webhook_deliveries_{name}", *columns, info={WHERE: "next_attempt_at IS NOT NULL"})
        for name, *columns in (
            ("due", "next_attempt_at"),
            ("due_of_merchant", "merchant", "next_attempt_at", "id"),
            ("pending", "created_at"),
        )
    ),
)
