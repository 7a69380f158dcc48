"""The witness of the chaos run: triggers in the database, and invariants checked at any moment."""

import collections
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from product_gateway.model.syncs import EntityType
from tests.support.database_faults import is_postgresql

T = TypeVar("T")

# A sync may write, and what an ended sync has left unpublished may be rolled back.
MAY_WRITE = """EXISTS (SELECT 1 FROM syncs WHERE merchant = {row}.merchant AND entity_type = {row}.entity_type
    AND status = 'IN_PROGRESS')
OR EXISTS (SELECT 1 FROM catalog_counts c LEFT JOIN syncs s ON s.merchant = c.merchant AND s.id = c.unpublished_sync
    WHERE c.merchant = {row}.merchant AND c.entity_type = {row}.entity_type AND c.unpublished_sync IS NOT NULL
    AND (s.id IS NULL OR s.status IN ('FAILED', 'CANCELLED') OR s.publication = 'DISCARDED'))"""
# When a generation is published, catalog_records has exactly what readers are to see from then on.
SHOWN = """INSERT INTO published SELECT merchant, entity_type, NEW.generation, record_id, document FROM catalog_records
    WHERE merchant = NEW.merchant AND entity_type = NEW.entity_type"""
ENDED_AGAIN = "OLD.finished_at IS NOT NULL AND NOT (OLD.publication = 'STAGED' AND NEW.publication <> 'STAGED')"

# Every change of a sync's status or token is kept, every generation that is published, and every write to a catalog
# that no claim stands behind.
TRIGGERS = f"""
CREATE TABLE witnessed (
    number BIGINT GENERATED ALWAYS AS IDENTITY, sync_id UUID, was TEXT, became TEXT, token_was BIGINT, token BIGINT,
    ran_out BOOLEAN
);
CREATE TABLE unclaimed_writes (merchant TEXT, entity_type TEXT, record_id TEXT);
CREATE TABLE published (
    merchant TEXT, entity_type TEXT, generation BIGINT, record_id TEXT, document TEXT,
    PRIMARY KEY (merchant, entity_type, generation, record_id)
);

CREATE FUNCTION witness_sync() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO witnessed (sync_id, became, token) VALUES (NEW.id, NEW.status, NEW.lease_token);
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO witnessed (sync_id, was, token_was) VALUES (OLD.id, OLD.status, OLD.lease_token);
    ELSIF OLD.status <> NEW.status OR OLD.lease_token <> NEW.lease_token OR {ENDED_AGAIN}
        OR NEW.pages_read < OLD.pages_read OR NEW.records_read < OLD.records_read THEN
        INSERT INTO witnessed (sync_id, was, became, token_was, token, ran_out) VALUES
            (NEW.id, OLD.status, NEW.status, OLD.lease_token, NEW.lease_token,
             OLD.lease_expires_at < clock_timestamp());
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER witness AFTER INSERT OR UPDATE OR DELETE ON syncs FOR EACH ROW EXECUTE FUNCTION witness_sync();

CREATE FUNCTION witness_record() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE written RECORD; BEGIN
    IF TG_OP = 'DELETE' THEN written := OLD; ELSE written := NEW; END IF;
    IF NOT ({MAY_WRITE.format(row="written")}) THEN
        INSERT INTO unclaimed_writes VALUES (written.merchant, written.entity_type, written.record_id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER witness AFTER INSERT OR UPDATE OR DELETE ON catalog_records
    FOR EACH ROW EXECUTE FUNCTION witness_record();

CREATE FUNCTION witness_generation() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {SHOWN}; RETURN NULL; END $$;
CREATE TRIGGER witness AFTER UPDATE ON catalog_counts FOR EACH ROW WHEN (OLD.generation <> NEW.generation)
    EXECUTE FUNCTION witness_generation();
"""

# The same for SQLite.
SQLITE_TRIGGERS = f"""
CREATE TABLE witnessed (
    number INTEGER PRIMARY KEY, sync_id TEXT, was TEXT, became TEXT, token_was BIGINT, token BIGINT, ran_out BOOLEAN
);
CREATE TABLE unclaimed_writes (merchant TEXT, entity_type TEXT, record_id TEXT);
CREATE TABLE published (
    merchant TEXT, entity_type TEXT, generation BIGINT, record_id TEXT, document TEXT,
    PRIMARY KEY (merchant, entity_type, generation, record_id)
);
CREATE TRIGGER witness_generation AFTER UPDATE ON catalog_counts WHEN OLD.generation <> NEW.generation BEGIN
    {SHOWN};
END;
CREATE TRIGGER witness_insert AFTER INSERT ON syncs BEGIN
    INSERT INTO witnessed (sync_id, became, token) VALUES (NEW.id, NEW.status, NEW.lease_token);
END;
CREATE TRIGGER witness_delete AFTER DELETE ON syncs BEGIN
    INSERT INTO witnessed (sync_id, was, token_was) VALUES (OLD.id, OLD.status, OLD.lease_token);
END;
CREATE TRIGGER witness_update AFTER UPDATE ON syncs
WHEN OLD.status <> NEW.status OR OLD.lease_token <> NEW.lease_token OR {ENDED_AGAIN}
    OR NEW.pages_read < OLD.pages_read OR NEW.records_read < OLD.records_read BEGIN
    INSERT INTO witnessed (sync_id, was, became, token_was, token, ran_out) VALUES
        (NEW.id, OLD.status, NEW.status, OLD.lease_token, NEW.lease_token,
         OLD.lease_expires_at < strftime('%Y-%m-%d %H:%M:%f000', 'now'));
END;
""" + "".join(
    f"""
CREATE TRIGGER witness_record_{operation} AFTER {operation} ON catalog_records
WHEN NOT ({MAY_WRITE.format(row=row)}) BEGIN
    INSERT INTO unclaimed_writes VALUES ({row}.merchant, {row}.entity_type, {row}.record_id);
END;
"""
    for operation, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD"))
)

TWO_ACTIVE = text(
    "SELECT merchant, entity_type, count(*) FROM syncs WHERE status IN ('QUEUED', 'IN_PROGRESS')"
    " GROUP BY merchant, entity_type HAVING count(*) > 1"
)
# Each is one statement, so that all its numbers are of one moment.
MISCOUNTED = text(
    "SELECT c.merchant, c.entity_type, c.working_records, c.working_bytes, count(r.size) AS held,"
    " coalesce(sum(r.size), 0) AS held_bytes"
    " FROM catalog_counts c LEFT JOIN catalog_records r ON r.merchant = c.merchant AND r.entity_type = c.entity_type"
    " LEFT JOIN syncs s ON s.merchant = c.merchant AND s.id = c.unpublished_sync"
    " WHERE c.unpublished_sync IS NULL OR s.status = 'IN_PROGRESS' OR s.publication = 'STAGED'"
    " GROUP BY c.merchant, c.entity_type, c.working_records, c.working_bytes"
    " HAVING c.working_records <> count(r.size) OR c.working_bytes <> coalesce(sum(r.size), 0)"
)
_OF = "{0}.merchant = c.merchant AND {0}.entity_type = c.entity_type"
_IS = "merchant, entity_type, record_id, document"
VISIBLE = (
    "SELECT r.merchant, r.entity_type, r.record_id, r.document, r.size FROM catalog_counts c JOIN catalog_records r"
    f" ON {_OF.format('r')} AND r.generation <= c.generation UNION ALL"
    " SELECT h.merchant, h.entity_type, h.record_id, h.document, h.size FROM catalog_counts c JOIN catalog_history h"
    f" ON {_OF.format('h')} AND h.from_generation <= c.generation AND h.to_generation > c.generation"
)
WITNESSED = (
    "SELECT p.merchant, p.entity_type, p.record_id, p.document FROM catalog_counts c JOIN published p"
    f" ON {_OF.format('p')} AND p.generation = c.generation"
)
MIXED = text(
    f"WITH visible AS ({VISIBLE}), witnessed AS ({WITNESSED})"
    f" SELECT 'wrong', wrong.* FROM (SELECT {_IS} FROM visible EXCEPT SELECT {_IS} FROM witnessed) wrong UNION ALL"
    f" SELECT 'missing', missing.* FROM (SELECT {_IS} FROM witnessed EXCEPT SELECT {_IS} FROM visible) missing LIMIT 5"
)
MISPUBLISHED = text(
    f"WITH visible AS ({VISIBLE}) SELECT c.merchant, c.entity_type, c.generation, c.num_records, c.num_bytes,"
    " count(v.size) AS held, coalesce(sum(v.size), 0) AS held_bytes"
    f" FROM catalog_counts c LEFT JOIN visible v ON {_OF.format('v')}"
    " GROUP BY c.merchant, c.entity_type, c.generation, c.num_records, c.num_bytes"
    " HAVING c.num_records <> count(v.size) OR c.num_bytes <> coalesce(sum(v.size), 0)"
)
# In the end nothing is unpublished, so that no version is of a later generation than the published one.
LEFT_OVER = text(
    "SELECT r.merchant, r.entity_type, r.record_id FROM catalog_counts c JOIN catalog_records r"
    f" ON {_OF.format('r')} AND r.generation > c.generation UNION ALL"
    " SELECT h.merchant, h.entity_type, h.record_id FROM catalog_counts c JOIN catalog_history h"
    f" ON {_OF.format('h')} AND h.to_generation > c.generation UNION ALL"
    " SELECT merchant, entity_type, 'unpublished' FROM catalog_counts WHERE unpublished_sync IS NOT NULL"
    " OR working_records <> num_records OR working_bytes <> num_bytes"
)

# (was, became, does the token grow): all that docs/sync-states.md knows.
LAWFUL = {
    (None, "QUEUED", False),
    ("QUEUED", "IN_PROGRESS", True),
    ("IN_PROGRESS", "IN_PROGRESS", True),
    ("IN_PROGRESS", "QUEUED", False),
    ("IN_PROGRESS", "SUCCEEDED", False),
    ("IN_PROGRESS", "FAILED", False),
    ("IN_PROGRESS", "CANCELLED", False),
    ("QUEUED", "CANCELLED", False),
}
LOOKS_PER_COMPARISON = 5


class Witness(threading.Thread):
    """Checks the invariants until told to stop. `blind` counts checks without a database."""

    def __init__(self, url: str) -> None:
        super().__init__(name="witness")
        self.looks = 0
        self.blind = 0
        self.violations: list[str] = []
        self._told_to_stop = threading.Event()
        self._engine: Engine
        if is_postgresql(url):
            self._engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), pool_pre_ping=True)
            with self._engine.begin() as connection:
                connection.exec_driver_sql(TRIGGERS)
        else:
            self._engine = create_engine(url, connect_args={"timeout": 30})
            with closing(sqlite3.connect(str(make_url(url).database), timeout=30)) as file:
                file.executescript(SQLITE_TRIGGERS)

    def stop(self) -> None:
        """Stop at the next pause."""
        self._told_to_stop.set()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def run(self) -> None:
        """Check that at most one sync is active, what readers can see, and that the number of records is exact."""
        while not self._told_to_stop.wait(0.1):
            try:
                with self._engine.begin() as connection:
                    self._note("two active at once", connection.execute(TWO_ACTIVE))
                    self._note("counted wrongly", connection.execute(MISCOUNTED))
                    if self.looks % LOOKS_PER_COMPARISON == 0:
                        self._compare(connection)
                self.looks += 1
            except DBAPIError:
                self.blind += 1

    def in_the_end(self, accepted: Iterable[str], cancelled: Iterable[str]) -> None:
        """Check that no promise was lost, and that every token and status change was legal."""
        with self._engine.begin() as connection:
            self._note("written without a claim", connection.execute(text("SELECT * FROM unclaimed_writes LIMIT 5")))
            self._note(
                "ids of pulls that were not deleted", connection.execute(text("SELECT * FROM seen_records LIMIT 5"))
            )
            self._compare(connection)
            self._note("left over", connection.execute(LEFT_OVER))
            self._note_unlawful(connection)
            rows = connection.execute(text("SELECT id, status FROM syncs")).all()
            statuses = {str(UUID(str(row.id))): row.status for row in rows}
        for each in accepted:
            if statuses.get(each) not in ("SUCCEEDED", "FAILED", "CANCELLED"):
                self.violations.append(f"{each} was answered with 202, and is {statuses.get(each)}")
        for each in cancelled:
            if statuses.get(each) != "CANCELLED":
                self.violations.append(f"{each} was cancelled, and is {statuses.get(each)}")

    def generation(self, merchant: str, kind: EntityType, number: int) -> list[Any]:
        """Return the records of a generation as they were published, in order of id."""
        rows = text(
            "SELECT document FROM published WHERE merchant = :merchant AND entity_type = :kind AND generation = :number"
        )
        values = {"merchant": merchant, "kind": kind.value, "number": number}
        found = self._ask(lambda connection: connection.scalars(rows, values).all())
        return sorted((orjson.loads(each) for each in found), key=lambda record: str(record["id"]))

    def statuses(self) -> dict[str, int]:
        """Count the syncs by their final status."""
        how = "CASE WHEN failure_code IS NULL THEN status ELSE status || ' ' || failure_code END"
        return self._ask(
            lambda connection: {
                row[0]: row[1]
                for row in connection.execute(text(f"SELECT {how}, count(*) FROM syncs GROUP BY 1 ORDER BY 1")).all()
            }
        )

    def takeovers(self) -> int:
        """Count the syncs that a worker took over from a lost one."""
        lost = "SELECT count(*) FROM witnessed WHERE was = 'IN_PROGRESS' AND became = was AND token > token_was"
        return self._ask(lambda connection: int(connection.execute(text(lost)).scalar_one()))

    def is_quiet_within(self, seconds: float) -> bool:
        """Wait until no sync is active, no id of a pull is left, and nothing is unpublished."""
        left = (
            "SELECT EXISTS (SELECT 1 FROM syncs WHERE finished_at IS NULL) OR EXISTS (SELECT 1 FROM seen_records)"
            " OR EXISTS (SELECT 1 FROM catalog_counts WHERE unpublished_sync IS NOT NULL)"
        )
        deadline = time.monotonic() + seconds
        while self._ask(lambda connection: bool(connection.execute(text(left)).scalar_one())):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _ask(self, question: Callable[[Connection], T]) -> T:
        with self._engine.begin() as connection:
            return question(connection)

    def _compare(self, connection: Connection) -> None:
        self._note("not the published generation", connection.execute(MIXED))
        self._note("published a wrong number", connection.execute(MISPUBLISHED))

    def _note_unlawful(self, connection: Connection) -> None:
        seen: dict[Any, Any] = collections.defaultdict(lambda: (None, 0))
        for row in connection.execute(text("SELECT * FROM witnessed ORDER BY number")):
            grows = (row.token or 0) > (row.token_was or 0)
            early = row.was == row.became == "IN_PROGRESS" and not row.ran_out
            status, token = seen[row.sync_id]
            follows = status == row.was and token == (row.token_was or 0)
            if (row.was, row.became, grows) not in LAWFUL or early or not follows:
                self.violations.append(f"an unlawful change: {row._asdict()} after {status}, {token}")
            seen[row.sync_id] = (row.became, row.token)

    def _note(self, what: str, rows: Iterable[Any]) -> None:
        self.violations += [f"{what}: {tuple(row)}" for row in rows]
