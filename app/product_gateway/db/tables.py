"""The tables.

Every key starts with the merchant, so that the tables can be sharded by merchant.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex

from product_gateway.db.types import Instant, MerchantName, RecordId

metadata = sa.MetaData(
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


AUTOMATIC, MANUAL = "AUTOMATIC", "MANUAL"  # publication of a sync's result
# A literal: with bound values the partial index is not used.
ACTIVE = "status IN ('QUEUED', 'IN_PROGRESS')"


def _counters(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=False, server_default="0") for name in names]


def _content() -> list[sa.Column[Any]]:
    return [
        sa.Column("size", sa.Integer, nullable=False),  # bytes of document and product_ids in UTF-8
        sa.Column("document", sa.Text, nullable=False),  # JSON
        sa.Column("product_ids", sa.Text),  # JSON; of a collection
        # Of the raw bytes that the product service sent: shows whether the record has changed.
        sa.Column("digest", sa.LargeBinary(16), nullable=False),
    ]


merchants = sa.Table(
    "merchants",
    metadata,
    sa.Column("name", MerchantName, primary_key=True),
    sa.Column("platform", sa.String(16), nullable=False),
    sa.Column("product_service_url", sa.Text),
    sa.Column("product_service_token", sa.Text),  # encrypted
    sa.Column("currency", sa.String(3)),
    sa.Column("max_rejected_percent", sa.Integer, nullable=False, server_default="10"),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.CheckConstraint("platform IN ('BYOP', 'BENTO')", name="platform"),
    sa.CheckConstraint("max_rejected_percent BETWEEN 0 AND 100", name="max_rejected_percent"),
    # A BYOP merchant needs a product service.
    sa.CheckConstraint("platform = 'BENTO' OR product_service_url IS NOT NULL", name="product_service"),
)

syncs = sa.Table(
    "syncs",
    metadata,
    sa.Column("merchant", MerchantName, sa.ForeignKey("merchants.name"), primary_key=True),
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("entity_type", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("queued_at", Instant, nullable=False),
    sa.Column("started_at", Instant),
    # When it last yielded to other merchants, which moves it to the end of the queue.
    sa.Column("released_at", Instant),
    sa.Column("finished_at", Instant),
    sa.Column("idempotency_key", sa.String(255)),
    sa.Column("traceparent", sa.String(55)),  # of the request, if it was made where traces are sent (W3C Trace Context)
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("lost_workers", sa.Integer, nullable=False, server_default="0"),
    sa.Column("lease_owner", sa.String(255)),
    sa.Column("lease_token", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("lease_expires_at", Instant),
    sa.Column("heartbeat_at", Instant),  # for operators: the worker's last heartbeat
    sa.Column("cursor", sa.Text),  # of the next page
    sa.Column("pull_complete", sa.Boolean, nullable=False, server_default=sa.text("false")),
    # Records without a usable id: each could be one that seems to be missing from the list.
    sa.Column("unidentified", sa.BigInteger, nullable=False, server_default="0"),
    # Records missing from the list that were kept because of unidentified ones.
    sa.Column("not_removed", sa.BigInteger, nullable=False, server_default="0"),
    # Consecutive pages, up to the last one, without a record that is new to the pull.
    sa.Column("pages_without_new", sa.Integer, nullable=False, server_default="0"),
    *_counters("pages_read", "records_read"),
    sa.Column("records_total", sa.BigInteger),
    *_counters("created", "updated", "unchanged", "deleted", "rejected"),
    sa.Column("failure_code", sa.String(64)),
    sa.Column("failure_detail", sa.Text),
    sa.Column("publish", sa.String(16), nullable=False, server_default=AUTOMATIC),
    sa.Column("publication", sa.String(16)),  # what became of the result of a sync that succeeded
    sa.Column("generation", sa.BigInteger),  # that it published, or has staged
    # Of a revert: the sync that it undoes, and the generation before that sync.
    sa.Column("reverts", sa.Uuid),
    sa.Column("restores", sa.BigInteger),
    sa.CheckConstraint("publish IN ('AUTOMATIC', 'MANUAL')", name="publish"),
    # Only a sync that succeeded has a result to publish.
    sa.CheckConstraint(
        "(status = 'SUCCEEDED') = (publication IS NOT NULL) AND publication IN ('PUBLISHED', 'STAGED', 'DISCARDED')",
        name="publication",
    ),
    sa.CheckConstraint("(reverts IS NULL) = (restores IS NULL)", name="revert"),
    sa.CheckConstraint("entity_type IN ('PRODUCT', 'COLLECTION')", name="entity_type"),
    sa.CheckConstraint("status IN ('QUEUED', 'IN_PROGRESS', 'SUCCEEDED', 'FAILED', 'CANCELLED')", name="status"),
    # An ended sync has an end time, an active one has none.
    sa.CheckConstraint(f"(finished_at IS NULL) = ({ACTIVE})", name="finished"),
    # Only a failed sync has a failure code.
    sa.CheckConstraint("(status = 'FAILED') = (failure_code IS NOT NULL)", name="failure"),
    # Only a sync in progress has a lease.
    sa.CheckConstraint("(status = 'IN_PROGRESS') = (lease_expires_at IS NOT NULL)", name="lease"),
    # The one-active rule: at most one sync of a merchant and entity type is queued or in progress.
    sa.Index("ux_syncs_one_active", "merchant", "entity_type", unique=True, info={WHERE: ACTIVE}),
    # An idempotency key identifies one sync of a merchant, until that sync is pruned.
    sa.Index(
        *("ux_syncs_idempotency_key", "merchant", "idempotency_key"),
        unique=True,
        info={WHERE: "idempotency_key IS NOT NULL"},
    ),
    # For pruning.
    sa.Index("ix_syncs_finished_at", "finished_at", info={WHERE: "finished_at IS NOT NULL"}),
    # The latest sync of an entity type, and the history (the database's clock decides what is later, not the ids).
    sa.Index("ix_syncs_latest", "merchant", "entity_type", "queued_at", "id"),
    # The same by status, for operators: of all merchants, or of one.
    sa.Index("ix_syncs_of_status", "status", "entity_type", "queued_at", "id"),
    sa.Index("ix_syncs_of_merchant_and_status", "merchant", "status", "entity_type", "queued_at", "id"),
)
# The start of a queued sync's wait.
waits_since = sa.func.coalesce(syncs.c.released_at, syncs.c.queued_at)
# For claims, which take the oldest. Leases are in no index: a heartbeat must not cost more than its row.
# The status comes first: otherwise SQLite prefers ix_syncs_of_status, and sorts.
for _status, _since in (("QUEUED", waits_since), ("IN_PROGRESS", syncs.c.queued_at)):
    sa.Index(f"ix_syncs_{_status.lower()}", syncs.c.status, _since, syncs.c.id, info={WHERE: f"status = '{_status}'"})

sync_problems = sa.Table(
    "sync_problems",
    metadata,
    sa.Column("merchant", MerchantName, primary_key=True),
    sa.Column("sync_id", sa.Uuid, primary_key=True),
    sa.Column("code", sa.String(64), primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("samples", sa.Text, nullable=False),  # JSON
)

# A log of a sync for people; no decision depends on it.
sync_events = sa.Table(
    "sync_events",
    metadata,
    sa.Column("merchant", MerchantName, primary_key=True),
    sa.Column("sync_id", sa.Uuid, primary_key=True),
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("number", sa.BigInteger),
    sa.Column("detail", sa.Text),
    sqlite_with_rowid=False,
)

# The ids that a pull has seen, without the records that it has written: the generation of these says so. In a table,
# they survive a crash and need no memory.
seen_records = sa.Table(
    "seen_records",
    metadata,
    sa.Column("merchant", MerchantName, primary_key=True),
    sa.Column("sync_id", sa.Uuid, primary_key=True),
    sa.Column("record_id", RecordId, primary_key=True),
    sqlite_with_rowid=False,
)

catalog_records = sa.Table(
    "catalog_records",
    metadata,
    sa.Column("merchant", MerchantName, primary_key=True),
    sa.Column("entity_type", sa.String(16), primary_key=True),
    sa.Column("record_id", RecordId, primary_key=True),
    # The generation that wrote this version. It and `size` come before the texts: SQLite then reads them alone.
    sa.Column("generation", sa.BigInteger, nullable=False),
    *_content(),
    # For the feed of changes, and to roll back a generation.
    sa.Index("ix_catalog_records_generation", "merchant", "entity_type", "generation", "record_id"),
    sqlite_with_rowid=False,
)

# Versions that a later generation has replaced or removed: each is in the generations from `from_generation` up to,
# and without, `to_generation`.
catalog_history = sa.Table(
    "catalog_history",
    metadata,
    sa.Column("merchant", MerchantName, primary_key=True),
    sa.Column("entity_type", sa.String(16), primary_key=True),
    sa.Column("record_id", RecordId, primary_key=True),
    sa.Column("from_generation", sa.BigInteger, primary_key=True),
    sa.Column("to_generation", sa.BigInteger, nullable=False),
    *_content(),
    sa.CheckConstraint("from_generation < to_generation", name="generations"),
    # For deletions in the feed, for readers while a generation is written, and to roll back and prune.
    sa.Index("ix_catalog_history_to_generation", "merchant", "entity_type", "to_generation", "record_id"),
    # For the feed up to a generation that is no longer the newest.
    sa.Index("ix_catalog_history_from_generation", "merchant", "entity_type", "from_generation", "record_id"),
    sqlite_with_rowid=False,
)

# A generation is the catalog as one successful sync left it. Of each merchant and entity type, the first is 1, and
# none is left out.
catalog_generations = sa.Table(
    "catalog_generations",
    metadata,
    sa.Column("merchant", MerchantName, primary_key=True),
    sa.Column("entity_type", sa.String(16), primary_key=True),
    sa.Column("generation", sa.BigInteger, primary_key=True),
    sa.Column("published_at", Instant, nullable=False),
    sa.Index("ix_catalog_generations_published_at", "published_at"),
)

# Counted in the transactions that write records, so that reading the numbers costs one row.
catalog_counts = sa.Table(
    "catalog_counts",
    metadata,
    sa.Column("merchant", MerchantName, primary_key=True),
    sa.Column("entity_type", sa.String(16), primary_key=True),
    # Of the published generation, which readers see; 0 before the first.
    sa.Column("generation", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("num_records", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("num_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("updated_at", Instant),  # when it was published
    # The oldest generation of which the history has everything.
    sa.Column("oldest_generation", sa.BigInteger, nullable=False, server_default="0"),
    # Of catalog_records, with what `unpublished_sync` has written for the next generation. `working_bytes` is the sum
    # of their sizes. Without such a sync, they equal the published numbers.
    sa.Column("working_records", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("working_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("unpublished_sync", sa.Uuid),
    # By the operator, once.
    sa.Column("mass_deletion_allowed", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.CheckConstraint("working_bytes >= 0", name="working_bytes"),
    sa.CheckConstraint("working_records >= 0", name="working_records"),
    sa.CheckConstraint("oldest_generation BETWEEN 0 AND generation", name="oldest_generation"),
    sa.Index("ix_catalog_counts_updated_at", "updated_at", "merchant", "entity_type"),
    # Few: what has been written and not been published.
    sa.Index("ix_catalog_counts_unpublished", "unpublished_sync", info={WHERE: "unpublished_sync IS NOT NULL"}),
)

# How old a catalog may become, where the operator has set it, and the lapse that its webhook was told about.
max_ages = sa.Table(
    "max_ages",
    metadata,
    sa.Column("merchant", MerchantName, sa.ForeignKey("merchants.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("entity_type", sa.String(16), primary_key=True),
    sa.Column("seconds", sa.Integer, nullable=False),
    sa.Column("since", Instant, nullable=False),  # the age of a catalog that was never published counts from it
    # Set in the transaction that publishes the catalog.
    sa.Column("stale_after", Instant, nullable=False),
    sa.Column("told_at", Instant),  # when a worker found that it is stale; null while it is fresh
    sa.CheckConstraint("entity_type IN ('PRODUCT', 'COLLECTION')", name="entity_type"),
    sa.CheckConstraint("seconds > 0", name="seconds"),
    sa.Index("ix_max_ages_stale_after", "stale_after", "merchant", "entity_type"),
    # For the workers' checks, which do not read the known lapses again.
    sa.Index("ix_max_ages_untold", "stale_after", "merchant", "entity_type", info={WHERE: "told_at IS NULL"}),
)

# One row, written by the readiness check: only a commit shows that the database works.
readiness = sa.Table(
    "readiness",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("checked_at", Instant),
    # The oldest compatible revision of the code. A migration that drops something raises it.
    sa.Column("oldest_code", sa.String(32), nullable=False),
    sa.CheckConstraint("id = 1", name="one_row"),
)

# Operators' sessions signed out before they expired: every process refuses their cookies.
ended_sessions = sa.Table(
    "ended_sessions",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("expires_at", Instant, nullable=False),
)

# A merchant's webhook receiver, deleted with its merchant by the database.
webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("merchant", MerchantName, sa.ForeignKey("merchants.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("secret", sa.Text, nullable=False),  # encrypted
    sa.Column("previous_secret", sa.Text),  # encrypted; messages are signed with it as well until the time beside it
    sa.Column("previous_secret_until", Instant),
    sa.Column("gone_at", Instant),  # when its receiver answered 410 Gone; it is not called since then
    sa.Column("updated_at", Instant, nullable=False),
)

# One row for each message, written in the transaction that ends the sync or finds the catalog stale. A message about a
# sync is deleted with it.
webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("merchant", MerchantName, primary_key=True),
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("sync_id", sa.Uuid),
    sa.Column("event", sa.String(32), nullable=False),
    # Of a catalog that is stale.
    sa.Column("entity_type", sa.String(16)),
    sa.Column("published_at", Instant),  # null if never
    sa.Column("stale_after", Instant),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    # During an attempt, the end of its lease: if the worker is lost, another one makes the next attempt.
    sa.Column("next_attempt_at", Instant),
    sa.Column("last_attempt_at", Instant),
    sa.Column("last_status", sa.Integer),  # HTTP status; null without a response
    sa.Column("last_error", sa.Text),
    sa.Column("finished_at", Instant),
    sa.ForeignKeyConstraint(["merchant", "sync_id"], ["syncs.merchant", "syncs.id"], ondelete="CASCADE"),
    sa.CheckConstraint(
        "event IN ('sync.succeeded', 'sync.failed', 'sync.cancelled', 'sync.published', 'catalog.stale')", name="event"
    ),
    # A message is about a sync, or about a catalog.
    sa.CheckConstraint("(event = 'catalog.stale') = (sync_id IS NULL)", name="sync"),
    sa.CheckConstraint(
        "(sync_id IS NULL) = (entity_type IS NOT NULL) AND (sync_id IS NULL) = (stale_after IS NOT NULL)",
        name="catalog",
    ),
    sa.CheckConstraint("status IN ('PENDING', 'DELIVERED', 'GIVEN_UP')", name="status"),
    # Only a pending message has a next attempt.
    sa.CheckConstraint("(status = 'PENDING') = (next_attempt_at IS NOT NULL)", name="next_attempt"),
    sa.CheckConstraint("(status = 'PENDING') = (finished_at IS NULL)", name="finished"),
    # A sync ends once and is published once, so it has one message of each event. Partial, so that no database takes
    # it for a search by id.
    sa.Index(
        *("ux_webhook_deliveries_sync_event", "merchant", "sync_id", "event"),
        unique=True,
        info={WHERE: "sync_id IS NOT NULL"},
    ),
    # For pruning.
    sa.Index("ix_webhook_deliveries_without_sync", "finished_at", info={WHERE: "sync_id IS NULL"}),
    # Of pending messages, for claims: the one that has been due longest, and the same of one merchant. For metrics: the
    # oldest one. Not "status = 'PENDING'": PostgreSQL takes few rows for pending until it has counted them, and sorts
    # them.
    *(
        sa.Index(f"ix_webhook_deliveries_{name}", *columns, info={WHERE: "next_attempt_at IS NOT NULL"})
        for name, *columns in (
            ("due", "next_attempt_at"),
            ("due_of_merchant", "merchant", "next_attempt_at", "id"),
            ("pending", "created_at"),
        )
    ),
)
