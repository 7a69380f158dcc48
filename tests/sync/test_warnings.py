"""The warning that records were not removed, wherever a sync's result is shown."""

from io import StringIO

import pytest

from product_gateway.check_service.reports import console
from product_gateway.check_service.results import CheckResults, DryRunResult
from product_gateway.client import bodies, formatting
from product_gateway.db import catalog_write, claims, generations, syncs
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.catalog import Page, Rejection
from product_gateway.model.syncs import Counts, EntityType, Sync
from product_gateway.openapi.bodies import sync_body as api_body

PRODUCT = EntityType.PRODUCT


@pytest.fixture
def sync(database: Database) -> Sync:
    """A sync that succeeded, with two records that it could not remove."""
    database.call(enqueue, "shop", PRODUCT)
    claim = database.call(claims.claim, "worker", 30.0, 5, 2)
    assert claim is not None
    nameless = Page((), (Rejection("MISSING_FIELD", None, "/id", "id is missing."),), None, None)
    database.call(catalog_write.write_page, claim, nameless, 30.0)
    database.call(claims.record_not_removed, claim, 2)
    database.call(generations.succeed, claim)
    return database.call(syncs.get, "shop", claim.sync_id)


def test_the_client_command_shows_a_syncs_warnings(sync: Sync) -> None:
    """Below its counts. A gateway of an older version sends none."""
    body = api_body(sync)
    shown = formatting.described(bodies.Sync.model_validate(body)).plain
    assert "\n  RECORDS_NOT_REMOVED: 2 records that the product service's list lacks stayed in the catalog" in shown
    without = {name: value for name, value in body.items() if name != "warnings"}
    assert "RECORDS_NOT_REMOVED" not in formatting.described(bodies.Sync.model_validate(without)).plain


def test_the_report_of_check_service_says_how_many_records_would_stay() -> None:
    """In the dry run's part."""
    results = CheckResults("any-token", [PRODUCT])
    results.dry_runs.append(DryRunResult(PRODUCT, "an empty catalog", Counts(), 12, {}, complete=True, code=None))
    printed = StringIO()
    console.show(results, "http://service.example", None, printed)
    assert "products not removed: 12 that the list lacks." in printed.getvalue()
