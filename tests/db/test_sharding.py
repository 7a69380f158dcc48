"""Every statement is about one merchant, so that merchants can be spread over machines: docs/scaling.md."""

import re
from pathlib import Path

import pytest
from sqlalchemy import UniqueConstraint

from product_gateway.db import migrate, tables
from product_gateway.db.database import open_database
from tests.support import databases
from tests.tools import record_statements

OF_MERCHANTS = {name for name, table in tables.metadata.tables.items() if "merchant" in table.columns}
# What is about all merchants, by how it is told from the rest, and why it has to be.
EXCEPTIONS = {
    "a claim looks for the oldest sync of anybody": re.compile(
        r"SELECT (syncs\.merchant, syncs\.id, |coalesce\(syncs\.released_at, ).* FROM syncs "
        r"WHERE syncs\.status = '(QUEUED|IN_PROGRESS)' .*"
        r"ORDER BY (syncs\.queued_at|coalesce\(syncs\.released_at, syncs\.queued_at\)), syncs\.id LIMIT"
    ),
    "operators see how much is active": re.compile(r"SELECT .* FROM syncs WHERE status IN \(.*\) GROUP BY"),
    "the next message to a webhook is the one that is due first": re.compile(
        r"SELECT webhook_deliveries\.merchant, webhook_deliveries\.id FROM webhook_deliveries "
        r"WHERE webhook_deliveries\.next_attempt_at <= .*ORDER BY webhook_deliveries\.next_attempt_at LIMIT"
    ),
    "operators see how many messages wait": re.compile(
        r"SELECT count\(\*\) .* FROM \(SELECT .* FROM webhook_deliveries "
        r"WHERE webhook_deliveries\.next_attempt_at IS NOT NULL .* LIMIT"
    ),
    "a worker looks for stale catalogs of anybody, and operators see them": re.compile(
        r"SELECT .* FROM max_ages JOIN merchants ON .* WHERE max_ages\.stale_after <= .* LIMIT"
    ),
    "operators list all max ages": re.compile(
        r"SELECT max_ages\.merchant, max_ages\.entity_type, max_ages\.seconds FROM max_ages$"
    ),
    "old messages about catalogs are pruned for all merchants": re.compile(
        r"SELECT webhook_deliveries\.merchant, webhook_deliveries\.id FROM webhook_deliveries "
        r"WHERE webhook_deliveries\.sync_id IS NULL .* LIMIT"
    ),
    "a worker rolls back what failed syncs of all merchants wrote": re.compile(
        r"SELECT catalog_counts\.merchant, catalog_counts\.entity_type, catalog_counts\.unpublished_sync FROM "
        r"catalog_counts LEFT OUTER JOIN syncs .* WHERE catalog_counts\.unpublished_sync IS NOT NULL .* LIMIT"
    ),
    "old syncs are pruned for all merchants": re.compile(
        r"SELECT syncs\.merchant, syncs\.id FROM syncs WHERE syncs\.finished_at < .* LIMIT"
    ),
}


@pytest.fixture(params=["sqlite", "postgresql"])
def said(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """All that the gateway says to a database, each once, in one line."""
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    if request.param == "postgresql":
        server, template = (request.getfixturevalue(f"postgresql_{each}") for each in ("server", "template"))
        url = databases.copy_of(server, template)
    with open_database(url) as database:
        database.call(migrate.upgrade)
        return sorted({" ".join(each.sql.split()) for each in record_statements.said(database)})


def names_the_merchant(sql: str) -> bool:
    """Whether each use of a table that has a merchant says whose rows it means, or takes the merchant from outside."""
    if inserted := re.match(r"INSERT INTO (\w+) \((\w+)", sql):
        return inserted[1] not in OF_MERCHANTS or inserted[2] == "merchant"
    uses = re.findall(r"(?:FROM|JOIN|UPDATE) (\w+)(?: AS (\w+))?", sql)
    return all(
        re.search(rf"\b{alias or table}\.merchant = (\?|%\(|\w+\.merchant|json_extract\(sent\.value)", sql)
        for table, alias in uses
        if table in OF_MERCHANTS
    )


def test_every_statement_names_its_merchant(said: list[str]) -> None:
    """A distributed PostgreSQL sends it to the one machine that has the merchant; what is about all is listed here."""
    about_all = [each for each in said if not names_the_merchant(each)]
    unexpected = [each for each in about_all if not any(known.match(each) for known in EXCEPTIONS.values())]
    assert unexpected == []
    assert len(said) > 40, "not all that there is was said"
    for why, known in EXCEPTIONS.items():
        assert any(known.match(each) for each in about_all), f"no longer needed: {why}"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT syncs.id FROM syncs WHERE syncs.id = ?",
        "DELETE FROM seen_records WHERE seen_records.sync_id = ?",
        "UPDATE catalog_counts SET num_records = ?",
        "INSERT INTO syncs (id, merchant) VALUES (?, ?)",
        "SELECT 1 FROM syncs WHERE syncs.merchant = ? AND (SELECT 1 FROM seen_records WHERE seen_records.sync_id = ?)",
    ],
)
def test_a_statement_that_does_not_is_found(sql: str) -> None:
    """The test above would see it."""
    assert not names_the_merchant(sql)


def test_every_key_and_unique_index_starts_with_the_merchant() -> None:
    """So what is unique is so on the machine that has the merchant."""
    for table in tables.metadata.tables.values():
        if table.name not in OF_MERCHANTS:
            continue
        unique = [list(index.columns) for index in table.indexes if index.unique]
        unique += [list(each.columns) for each in table.constraints if isinstance(each, UniqueConstraint)]
        for columns in [list(table.primary_key.columns), *unique]:
            assert columns[0].name == "merchant", f"{table.name}: {columns}"


def test_the_page_about_scaling_spreads_every_table() -> None:
    """A table that is forgotten there would stay on one machine, and its transactions would need two."""
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    assert set(re.findall(r"create_distributed_table\('(\w+)', 'merchant'", page)) == OF_MERCHANTS
