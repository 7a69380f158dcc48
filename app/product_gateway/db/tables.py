"""The tables.

Every key starts with the merchant, so that the tables can be split by merchant one day.
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
    PrimaryKeyConstraint,
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

WHERE = "where"  # what an index's `info` has, where it is of some rows only


@compiles(CreateIndex)
def _create_index(create: CreateIndex, compiler: Any, **kwargs: Any) -> str:
    """SQLAlchemy's own way to say it, once for each dialect, imports both: a thirtieth of every start."""
    made: str = compiler.visit_create_index(create, **kwargs)
    some = create.element.info.get(WHERE)
    return f"{made} WHERE {some}" if some else made


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
    Column("released_at", Instant),  # when it last gave way to other merchants: from then on it stands behind them
    Column("finished_at", Instant),
    Column("idempotency_key", String(255)),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("lost_workers", Integer, nullable=False, server_default="0"),
    Column("lease_owner", String(255)),
    Column("lease_token", BigInteger, nullable=False, server_default="0"),
    Column("lease_expires_at", Instant),
    Column("heartbeat_at", Instant),  # for operators: when its worker was last heard of
    Column("cursor", Text),  # where the next page starts
    Column("pull_complete", Boolean, nullable=False, server_default=text("false")),
    # Records without a usable id: each could be one that the list seems to lack.
    Column("unidentified", BigInteger, nullable=False, server_default="0"),
    # Records that the list lacks, and that were not removed because of those.
    Column("not_removed", BigInteger, nullable=False, server_default="0"),
    # Pages in a row, up to the last one, without a record that is new to the pull.
    Column("pages_without_new", Integer, nullable=False, server_default="0"),
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
    info={WHERE: ACTIVE},
)
# A merchant's key stands for one sync, for as long as the sync is kept.
Index(
    "ux_syncs_idempotency_key",
    syncs.c.merchant,
    syncs.c.idempotency_key,
    unique=True,
    info={WHERE: "idempotency_key IS NOT NULL"},
)
# What is old enough to be pruned.
Index(
    "ix_syncs_finished_at",
    syncs.c.finished_at,
    info={WHERE: "finished_at IS NOT NULL"},
)
# Since when a queued sync waits for its turn.
waits_since = func.coalesce(syncs.c.released_at, syncs.c.queued_at)
# For claims, which take the oldest. Leases are in no index: a heartbeat must not cost more than its row.
# The status comes first so that SQLite prefers these to ix_syncs_of_status, which would have to be sorted.
for _status, _since in (("QUEUED", waits_since), ("IN_PROGRESS", syncs.c.queued_at)):
    Index(
        f"ix_syncs_{_status.lower()}",
        *(syncs.c.status, _since, syncs.c.id),
        info={WHERE: f"status = '{_status}'"},
    )
# The latest sync of an entity type, and the history (the database's clock decides what is later, not the ids).
Index("ix_syncs_latest", syncs.c.merchant, syncs.c.entity_type, syncs.c.queued_at, syncs.c.id)
# The same for operators, who look for a status: of all merchants, or of one.
Index("ix_syncs_of_status", syncs.c.status, syncs.c.entity_type, syncs.c.queued_at, syncs.c.id)
Index(
    "ix_syncs_of_merchant_and_status",
    *(syncs.c.merchant, syncs.c.status, syncs.c.entity_type, syncs.c.queued_at, syncs.c.id),
)

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

# What happened to a sync, for people: never read by what decides about it.
sync_events = Table(
    "sync_events",
    metadata,
    Column("merchant", MerchantName, nullable=False),
    Column("sync_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("at", Instant, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("number", BigInteger),
    Column("detail", Text),
    PrimaryKeyConstraint("merchant", "sync_id", "id"),
    sqlite_with_rowid=False,
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
    # Bytes of document and product_ids in UTF-8. Before them, so that SQLite reads it without reading past it.
    Column("size", Integer, nullable=False),
    Column("document", Text, nullable=False),  # JSON
    Column("product_ids", Text),  # JSON; of a collection
    # Of what was sent, 20 bytes: has the record changed? Older versions wrote 16, of document and product_ids.
    Column("digest", LargeBinary(16), nullable=False),
    PrimaryKeyConstraint("merchant", "entity_type", "record_id"),
    sqlite_with_rowid=False,
)

# Counted in the transactions that write records, so that reading the numbers costs one row.
catalog_counts = Table(
    "catalog_counts",
    metadata,
    Column("merchant", MerchantName, nullable=False),
    Column("entity_type", String(16), nullable=False),
    Column("num_records", BigInteger, nullable=False),
    Column("num_bytes", BigInteger, nullable=False, server_default="0"),  # the sum of catalog_records.size
    Column("updated_at", Instant),  # when the last successful sync finished
    Column("mass_deletion_allowed", Boolean, nullable=False, server_default=text("false")),  # by the operator, once
    PrimaryKeyConstraint("merchant", "entity_type"),
    CheckConstraint("num_bytes >= 0", name="num_bytes"),
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

# Sessions of operators that were signed out before their end: their cookies are refused by every process.
ended_sessions = Table(
    "ended_sessions",
    metadata,
    Column("id", String(64), nullable=False),
    Column("expires_at", Instant, nullable=False),
    PrimaryKeyConstraint("id"),
)

# Where a merchant is told how syncs end. It goes with its merchant whoever removes that, also a version before it.
webhooks = Table(
    "webhooks",
    metadata,
    Column("merchant", MerchantName, ForeignKey("merchants.name", ondelete="CASCADE"), nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),  # encrypted
    Column("previous_secret", Text),  # encrypted; messages are signed with it as well until the time beside it
    Column("previous_secret_until", Instant),
    Column("gone_at", Instant),  # when its receiver said that it is no more: from then on it is not called
    Column("updated_at", Instant, nullable=False),
    PrimaryKeyConstraint("merchant"),
)

# One row for each message, written in the transaction that ends the sync. Like the above, it goes with its sync.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("merchant", MerchantName, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("sync_id", Uuid, nullable=False),
    Column("event", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # While an attempt is made, this is the end of its lease: should its worker be lost, another makes the next one.
    Column("next_attempt_at", Instant),
    Column("last_attempt_at", Instant),
    Column("last_status", Integer),  # of HTTP; null where there was no answer
    Column("last_error", Text),
    Column("finished_at", Instant),
    PrimaryKeyConstraint("merchant", "id"),
    ForeignKeyConstraint(["merchant", "sync_id"], ["syncs.merchant", "syncs.id"], ondelete="CASCADE"),
    CheckConstraint("event IN ('sync.succeeded', 'sync.failed', 'sync.cancelled')", name="event"),
    CheckConstraint("status IN ('PENDING', 'DELIVERED', 'GIVEN_UP')", name="status"),
    # What is not over has a next attempt, and nothing else has.
    CheckConstraint("(status = 'PENDING') = (next_attempt_at IS NOT NULL)", name="next_attempt"),
    CheckConstraint("(status = 'PENDING') = (finished_at IS NULL)", name="finished"),
)

# A sync ends once, so it is told once.
Index(
    "ux_webhook_deliveries_sync_event",
    webhook_deliveries.c.merchant,
    webhook_deliveries.c.sync_id,
    webhook_deliveries.c.event,
    unique=True,
)
# Of pending messages, for claims: the one that has been due longest, and the same of one merchant. For metrics: the
# oldest one. Not "status = 'PENDING'": PostgreSQL takes few rows for pending until it has counted them, and sorts them.
for _name, _columns in (
    ("due", (webhook_deliveries.c.next_attempt_at,)),
    (
        "due_of_merchant",
        (webhook_deliveries.c.merchant, webhook_deliveries.c.next_attempt_at, webhook_deliveries.c.id),
    ),
    ("pending", (webhook_deliveries.c.created_at,)),
):
    Index(f"ix_webhook_deliveries_{_name}", *_columns, info={WHERE: "next_attempt_at IS NOT NULL"})
