"""Pages that are not read: what is sent in the very bytes as before need not be looked at, and nothing else."""

import hashlib
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from product_gateway.db import catalog, claims, syncs, tables
from product_gateway.db.database import Database
from product_gateway.errors import PullFailed
from product_gateway.model.catalog import Page
from product_gateway.model.lazy_page import DIGEST_BYTES, AnyPage, LazyPage
from product_gateway.model.syncs import Counts, EntityType
from product_gateway.sync import records
from tests.db.test_catalog import LEASE, started
from tests.support.written_pages import damaged_pages, pages

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
WHERE, MOST_BYTES = "Page 1", 2**20
VARIANTS: list[dict[str, Any]] = [
    {"title": "Hat"},
    {"title": "Cap"},
    {"title": "Hat", "seen": 1},  # of which nothing is kept: the same record in other bytes
    {"title": "Hat", "seen": 2},
    {"title": 5},
    {"title": "Hat", "createdAt": "yesterday"},
]


def body(*items: dict[str, Any], **pagination: Any) -> bytes:
    """The last page of a list."""
    return orjson.dumps({"items": items, "pagination": {"moreResults": False, **pagination}})


def read(content: bytes, entity_type: EntityType = PRODUCT, most_bytes: int = MOST_BYTES) -> Page:
    """The page, each of its records looked at."""
    return records.contract(entity_type).page(content, WHERE, most_bytes)


def unread(content: bytes, entity_type: EntityType = PRODUCT, most_bytes: int = MOST_BYTES) -> AnyPage:
    """The page as far as it can be known without."""
    return records.contract(entity_type).unread_page(content, WHERE, most_bytes)


def outcome(page: Any, *arguments: Any) -> Page | str:
    """What comes of reading it; as text where it fails."""
    try:
        found: Page = page(*arguments)
    except PullFailed as failed:
        return f"{failed.code}: {failed.detail}"
    return found


@settings(max_examples=200, deadline=None)
@given(pages() | damaged_pages())
def test_a_page_that_is_read_later_is_the_page_that_is_read_at_once(page: tuple[EntityType, bytes]) -> None:
    """With the same failure, to the letter, where it is none."""
    entity_type, content = page

    def later() -> Page:
        found = unread(content, entity_type)
        return found if isinstance(found, Page) else found.read(())

    assert outcome(later) == outcome(read, content, entity_type)


def sync(database: Database, merchant: str, contents: list[bytes], how: Any) -> tuple[Counts, list[Any], int]:
    """A whole sync of the pages; its counts, the catalog after it, and how many records were as before."""
    claim = started(database, merchant)
    as_before = sum(database.call(catalog.write_page, claim, how(each), LEASE).as_before for each in contents)
    if database.call(claims.may_remove, claim) and database.call(catalog.missing, claim, 1):
        database.call(catalog.remove_missing, claim, "", 1000)
    database.call(catalog.succeed, claim)
    while database.call(catalog.delete_seen, merchant, 1000):
        pass
    held = database.call(catalog.page, merchant, PRODUCT, "", 1000).records
    return database.call(syncs.get, merchant, claim.sync_id).counts, list(held), as_before


def kept(database: Database) -> bytes:
    """The digest of the only record."""
    digest: bytes = database.call(lambda connection: connection.scalars(select(tables.catalog_records.c.digest)).one())
    return digest


items = st.builds(lambda name, more: {"id": name, **more}, st.sampled_from("abcdef"), st.sampled_from(VARIANTS))
lists = st.lists(st.lists(items, max_size=5), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(lists, min_size=1, max_size=4))
def test_a_catalog_does_not_depend_on_what_was_left_unread(database: Database, history: list[Any]) -> None:
    """Whatever comes twice, changes back, fits no longer or is gone: the same records, and the same counts."""
    for each in history:
        *before, last = each
        contents = [*(body(*page, moreResults=True, nextCursor="on") for page in before), body(*last)]
        assert sync(database, "shop", contents, unread)[:2] == sync(database, "other", contents, read)[:2]
    for merchant in ("shop", "other"):  # the next example begins with nothing
        sync(database, merchant, [body()], read)


def test_what_comes_as_it_was_is_not_read(database: Database) -> None:
    """Most syncs find little that is new, and to read the rest takes most of their time."""
    first = [{"id": name, "title": "Hat"} for name in "abc"]
    second = [*first[:2], {"id": "c", "title": "Cap"}]
    assert sync(database, "shop", [body(*first)], read)[2] == 0
    page = unread(body(*second))
    assert isinstance(page, LazyPage)
    looked_at: list[Page] = []

    def watched(but: Any) -> Page:
        looked_at.append(page.read(but))
        return looked_at[-1]

    counts, _, as_before = sync(database, "shop", [body()], lambda _: LazyPage(page.sent, watched, page.next_cursor))
    assert (counts, as_before) == (Counts(updated=1, unchanged=2), 2)
    assert [each.id for each in looked_at[0].records] == ["c"]


def test_what_comes_as_it_was_counts_as_before_when_it_is_read_too(database: Database) -> None:
    """By that a pull knows that it can leave the next page unread."""
    contents = [body({"id": "a", "title": "Hat"}, {"id": "b", "title": "Hat"})]
    assert [sync(database, "shop", contents, read)[2] for _ in range(2)] == [0, 2]


def test_other_bytes_of_the_same_record_change_nothing(database: Database) -> None:
    """A service may count views beside what is kept: its records are not written again at each sync."""
    sync(database, "shop", [body({"id": "a", "title": "Hat", "views": 1})], read)
    digest = kept(database)
    for how in (read, unread):
        counts, _, as_before = sync(database, "shop", [body({"id": "a", "title": "Hat", "views": 2})], how)
        assert (counts, as_before, kept(database)) == (Counts(unchanged=1), 0, digest)


@pytest.mark.parametrize("how", [read, unread])
def test_records_of_an_older_version_are_unchanged_and_then_known(database: Database, how: Any) -> None:
    """It kept a digest of what it had read alone. Nobody's first sync after an update may report every record."""
    contents = [body({"id": "a", "title": "Hat"})]
    _, held, _ = sync(database, "shop", contents, read)
    digest = hashlib.blake2b(f"{held[0].document}\0None".encode(), digest_size=16).digest()
    older = update(tables.catalog_records).values(digest=digest)  # as they did
    database.call(lambda connection: connection.execute(older))
    outcomes = [sync(database, "shop", contents, how) for _ in range(2)]
    assert [(counts, as_before) for counts, _, as_before in outcomes] == [(Counts(unchanged=1), n) for n in (0, 1)]
    assert len(kept(database)) == DIGEST_BYTES


def test_another_limit_has_every_record_looked_at_again(database: Database) -> None:
    """What was let through before may be too large now."""
    contents = [body({"id": "a", "title": "Hat" * 50})]
    sync(database, "shop", contents, read)
    counts, held, as_before = sync(database, "shop", contents, lambda each: unread(each, most_bytes=100))
    assert (counts.rejected, as_before, len(held)) == (1, 0, 1)


def test_a_page_that_turns_out_to_be_none_leaves_nothing(database: Database) -> None:
    """It is found while the page is written."""
    sync(database, "shop", [body({"id": "a", "title": "Hat"})], read)
    page = unread(body({"id": "a", "title": "Hat"}, {"id": "b", "title": "Cap"}))
    assert isinstance(page, LazyPage)

    def broken(but: Any) -> Page:
        raise PullFailed("INVALID_PAGE", f"The page without {sorted(but)} is none.")

    claim = started(database)
    with pytest.raises(PullFailed, match=r"The page without \['a'\] is none"):
        database.call(catalog.write_page, claim, LazyPage(page.sent, broken, page.next_cursor), LEASE)
    assert database.call(syncs.get, "shop", claim.sync_id).records_read == 0


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
def test_a_page_whose_records_cannot_be_told_apart_is_read_at_once(content: bytes) -> None:
    """Nothing could be looked up."""
    assert outcome(unread, content) == read(content)
