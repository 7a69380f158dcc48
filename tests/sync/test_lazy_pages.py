"""Lazy pages: records whose bytes are unchanged are not decoded, and the result is the same."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from product_gateway.db import catalog, catalog_removal, catalog_write, claims, generations, syncs, tables
from product_gateway.db.database import Database
from product_gateway.errors import PullFailed
from product_gateway.model.catalog import AnyPage, LazyPage, Page
from product_gateway.model.syncs import Claim, Counts, EntityType
from product_gateway.sync import records
from tests.support.pulls import LEASE, started
from tests.support.written_pages import damaged_pages, pages

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
WHERE, MOST_BYTES = "Page 1", 2**20
VARIANTS: list[dict[str, Any]] = [
    {"title": "Hat"},
    {"title": "Cap"},
    {"title": "Hat", "seen": 1},  # the catalog does not keep this field: the same record in other bytes
    {"title": "Hat", "seen": 2},
    {"title": 5},
    {"title": "Hat", "createdAt": "yesterday"},
]


def body(*items: dict[str, Any], **pagination: Any) -> bytes:
    """The last page of a list."""
    return orjson.dumps({"items": items, "pagination": {"moreResults": False, **pagination}})


def read(content: bytes, entity_type: EntityType = PRODUCT, most_bytes: int = MOST_BYTES) -> Page:
    """Decode the whole page."""
    return records.list_schema(entity_type).page(content, WHERE, most_bytes)


def lazy(content: bytes, entity_type: EntityType = PRODUCT, most_bytes: int = MOST_BYTES) -> AnyPage:
    """Decode the page's ids only, where possible."""
    return records.list_schema(entity_type).lazy_page(content, WHERE, most_bytes)


def outcome(page: Any, *arguments: Any) -> Page | str:
    """Return the page, or the failure as text."""
    try:
        found: Page = page(*arguments)
    except PullFailed as failed:
        return f"{failed.code}: {failed.detail}"
    return found


@settings(max_examples=100, deadline=None)
@given(pages() | damaged_pages())
def test_a_lazy_page_decodes_to_the_same_page(page: tuple[EntityType, bytes]) -> None:
    """An invalid page fails with the same message."""
    entity_type, content = page

    def decoded() -> Page:
        found = lazy(content, entity_type)
        return found if isinstance(found, Page) else found.decode(())

    assert outcome(decoded) == outcome(read, content, entity_type)


def write(database: Database, claim: Claim, page: AnyPage) -> int:
    """Write the page as a pull does. Return how many of its records came in the same bytes."""
    known = None
    if isinstance(page, LazyPage):
        known = database.call(catalog_write.find_digests, claim, list(page.digests))
        page = page.decode({each for each, digest in page.digests.items() if known.digests.get(each) == digest})
    return database.call(catalog_write.write_page, claim, page, LEASE, known=known).same_bytes


def sync(database: Database, merchant: str, contents: list[bytes], how: Any) -> tuple[Counts, list[Any], int]:
    """Sync the pages. Return the counts, the catalog's records, and how many records came in the same bytes."""
    claim = started(database, merchant)
    same_bytes = sum(write(database, claim, how(each)) for each in contents)
    if database.call(claims.may_remove, claim) and database.call(catalog_removal.missing, claim, 1):
        database.call(catalog_removal.remove_missing, claim, "", 1000)
    database.call(generations.succeed, claim)
    while database.call(catalog_removal.delete_seen, merchant, 1000):
        pass
    held = database.call(catalog.page, merchant, PRODUCT, "", 1000).records
    return database.call(syncs.get, merchant, claim.sync_id).counts, list(held), same_bytes


def kept(database: Database) -> bytes:
    """Return the digest of the only record."""
    digest: bytes = database.call(lambda connection: connection.scalars(select(tables.catalog_records.c.digest)).one())
    return digest


items = st.builds(lambda name, more: {"id": name, **more}, st.sampled_from("abcdef"), st.sampled_from(VARIANTS))
lists = st.lists(st.lists(items, max_size=5), min_size=1, max_size=3)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(lists, min_size=1, max_size=4))
def test_lazy_and_eager_pages_lead_to_the_same_catalog(database: Database, history: list[Any]) -> None:
    """Records and counts are the same when records repeat, change back, become invalid or disappear."""
    for each in history:
        *before, last = each
        contents = [*(body(*page, moreResults=True, nextCursor="on") for page in before), body(*last)]
        assert sync(database, "shop", contents, lazy)[:2] == sync(database, "other", contents, read)[:2]
    for merchant in ("shop", "other"):  # empty the catalogs for the next example
        sync(database, merchant, [body()], read)


def test_a_record_in_the_same_bytes_is_not_decoded(database: Database) -> None:
    """Most syncs find few changes, and decoding takes most of their time."""
    first = [{"id": name, "title": "Hat"} for name in "abc"]
    second = [*first[:2], {"id": "c", "title": "Cap"}]
    assert sync(database, "shop", [body(*first)], read)[2] == 0
    page = lazy(body(*second))
    assert isinstance(page, LazyPage)
    decoded: list[Page] = []

    def noted(unchanged: Any) -> Page:
        decoded.append(page.decode(unchanged))
        return decoded[-1]

    counts, _, same_bytes = sync(database, "shop", [body()], lambda _: replace(page, decode=noted))
    assert (counts, same_bytes) == (Counts(updated=1, unchanged=2), 2)
    assert [each.id for each in decoded[0].records] == ["c"]


def test_an_eager_page_also_counts_records_in_the_same_bytes(database: Database) -> None:
    """The pull then makes the following pages lazy."""
    contents = [body({"id": "a", "title": "Hat"}, {"id": "b", "title": "Hat"})]
    assert [sync(database, "shop", contents, read)[2] for _ in range(2)] == [0, 2]


def test_other_bytes_of_the_same_record_change_nothing(database: Database) -> None:
    """A service may change fields that the catalog does not keep, such as a view counter. No row is rewritten."""
    sync(database, "shop", [body({"id": "a", "title": "Hat", "views": 1})], read)
    digest = kept(database)
    for how in (read, lazy):
        counts, _, same_bytes = sync(database, "shop", [body({"id": "a", "title": "Hat", "views": 2})], how)
        assert (counts, same_bytes, kept(database)) == (Counts(unchanged=1), 0, digest)


def test_another_size_limit_makes_every_record_be_decoded_again(database: Database) -> None:
    """An unchanged record may exceed the new limit."""
    contents = [body({"id": "a", "title": "Hat" * 50})]
    sync(database, "shop", contents, read)
    counts, held, same_bytes = sync(database, "shop", contents, lambda each: lazy(each, most_bytes=100))
    assert (counts.rejected, same_bytes, len(held)) == (1, 0, 1)


@pytest.mark.parametrize(
    "content",
    [
        body(),
        body({"id": "a", "title": "Hat"}, {"id": "a", "title": "Cap"}),
        body({"title": "Hat"}),
        body({"id": "a\u0000", "title": "Hat"}),
        body({"id": "a" * 256, "title": "Hat"}),
    ],
)
def test_a_page_without_distinct_usable_ids_is_not_lazy(content: bytes) -> None:
    """Its records cannot be looked up by id."""
    assert outcome(lazy, content) == read(content)
