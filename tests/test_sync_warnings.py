"""The warning that records were not removed, wherever a sync's result is shown."""

from io import StringIO

import pytest

from product_gateway import api_bodies
from product_gateway.client import bodies, words
from product_gateway.conformance import report
from product_gateway.conformance.sheet import Rehearsal, Sheet
from product_gateway.db import Database, catalog, claims, syncs
from product_gateway.model import Counts, EntityType, Page, Rejection, Sync

PRODUCT = EntityType.PRODUCT


@pytest.fixture
def sync(database: Database) -> Sync:
    """A sync that succeeded, with two records that it could not remove."""
    database.call(syncs.enqueue, "shop", PRODUCT)
    claim = database.call(claims.claim, "worker", 30.0, 5, 2)
    assert claim is not None
    nameless = Page((), (Rejection("MISSING_FIELD", None, "/id", "id is missing."),), None, None)
    database.call(catalog.write_page, claim, nameless, 30.0)
    database.call(claims.record_not_removed, claim, 2)
    database.call(catalog.succeed, claim)
    return database.call(syncs.get, "shop", claim.sync_id)


def test_the_client_command_shows_a_syncs_warnings(sync: Sync) -> None:
    """Below its counts. A gateway of an older version sends none."""
    body = api_bodies.sync_body(sync)
    shown = words.described(bodies.Sync.model_validate(body)).plain
    assert "\n  RECORDS_NOT_REMOVED: 2 records that the product service's list lacks stayed in the catalog" in shown
    without = {name: value for name, value in body.items() if name != "warnings"}
    assert "RECORDS_NOT_REMOVED" not in words.described(bodies.Sync.model_validate(without)).plain


def test_the_report_of_check_service_says_how_many_records_would_stay() -> None:
    """In the dry run's part."""
    sheet = Sheet("any-token", [PRODUCT])
    sheet.rehearsals.append(Rehearsal(PRODUCT, "an empty catalog", Counts(), 12, {}, complete=True, code=None))
    printed = StringIO()
    report.show(sheet, "http://service.example", None, printed)
    assert "products not removed: 12 that the list lacks." in printed.getvalue()
