"""The catalog: writing pages, removing records and reading."""

import pytest
from sqlalchemy import Connection, Table, func, select, text

from product_gateway.db import catalog, catalog_removal, catalog_write, claims, generations, merchants, syncs, tables
from product_gateway.db.database import Database
from product_gateway.db.enqueue import enqueue
from product_gateway.errors import LeaseLost, RecordNotFound, SettingsError
from product_gateway.model.catalog import CatalogState, Page, Record, Rejection
from product_gateway.model.syncs import Counts
from tests.support.pulls import COLLECTION, LEASE, PRODUCT, RULES, contents, page, pull, started


def test_a_first_sync_creates_every_record(database: Database) -> None:
    assert pull(database, page({"a": "1", "b": "1"}, cursor="2"), page({"c": "1"})) == Counts(created=3)
    assert contents(database) == {"a": "1", "b": "1", "c": "1"}


def test_a_second_sync_counts_created_updated_unchanged_and_deleted_records(database: Database) -> None:
    """Merchants check the counts of a sync first."""
    pull(database, page({"a": "1", "b": "1", "c": "1", "d": "1", "e": "1"}))
    counts = pull(database, page({"a": "1", "b": "2", "f": "1"}))
    assert counts == Counts(created=1, updated=1, unchanged=1, deleted=3)
    assert contents(database) == {"a": "1", "b": "2", "f": "1"}


def test_the_number_of_records_is_the_published_one_and_exact(database: Database) -> None:
    """The transactions that write also count, and the end of the sync publishes the number."""
    claim = started(database)
    assert database.call(catalog.state, "shop", PRODUCT).num_records == 0
    database.call(catalog_write.write_page, claim, page({"a": "1", "b": "1"}, cursor="2"), LEASE)
    assert database.call(catalog.state, "shop", PRODUCT) == CatalogState(0, None, 0)
    pull(database, page({"c": "1"}), claim=claim)
    assert database.call(catalog.state, "shop", PRODUCT).num_records == 3 == len(contents(database))
    pull(database, page({"b": "1"}))
    assert database.call(catalog.state, "shop", PRODUCT).num_records == 1 == len(contents(database))


def test_updated_at_is_when_the_last_successful_sync_finished(database: Database) -> None:
    """A failed sync does not change it."""
    pull(database, page({"a": "1"}))
    state, latest = database.call(catalog.state_and_latest_sync, "shop", PRODUCT)
    assert latest is not None
    assert state.updated_at == latest.finished_at
    database.call(claims.fail, started(database), "INVALID_PAGE", "No JSON.")
    assert database.call(catalog.state, "shop", PRODUCT).updated_at == state.updated_at


def test_a_failed_sync_changes_nothing(database: Database) -> None:
    """The pages that it wrote are never published, and are rolled back before the next sync writes."""
    pull(database, page({"a": "1", "b": "1"}))
    claim = started(database)
    database.call(catalog_write.write_page, claim, page({"a": "2", "c": "1"}, cursor="2"), LEASE)
    assert contents(database) == {"a": "1", "b": "1"}
    database.call(claims.fail, claim, "INVALID_PAGE", "No JSON.")
    assert contents(database) == {"a": "1", "b": "1"}
    assert pull(database, page({"a": "1", "b": "1"})) == Counts(unchanged=2)
    assert contents(database) == {"a": "1", "b": "1"}


def test_an_unchanged_row_is_not_rewritten(database: Database) -> None:
    """A sync without changes should cost the database very little."""
    pull(database, page({"a": "1"}))
    seal = text("UPDATE catalog_records SET document = 'sealed'")
    database.call(lambda connection: connection.execute(seal))
    assert pull(database, page({"a": "1"})) == Counts(unchanged=1)
    assert contents(database) == {"a": "sealed"}


def test_a_rejected_record_with_an_id_keeps_its_old_version(database: Database) -> None:
    """The merchant still has the record; only its new version is invalid."""
    pull(database, page({"a": "1", "b": "1"}))
    counts = pull(database, page({"b": "1"}, Rejection("WRONG_TYPE", "a", "/sku", "no string")))
    assert counts == Counts(unchanged=1, rejected=1)
    assert contents(database) == {"a": "1", "b": "1"}


def test_a_repeated_record_counts_once_and_the_last_one_is_kept(database: Database) -> None:
    """Records move between pages while a merchant works on them."""
    assert pull(database, page({"a": "1", "b": "1"}, cursor="2"), page({"a": "2", "c": "1"})) == Counts(created=3)
    assert contents(database) == {"a": "2", "b": "1", "c": "1"}


def test_an_id_may_repeat_in_valid_and_rejected_records(database: Database) -> None:
    """The pull stores each seen id once, for valid and for rejected records."""
    unfit = [Rejection("TOO_LONG", each, "/title", "Too long.") for each in ("a", "b")]
    pages = [page({"a": "1"}, *unfit, *unfit, cursor="2"), page({"b": "1"}, *unfit, cursor="3"), page({"a": "1"})]
    assert pull(database, *pages) == Counts(created=1, rejected=6)
    assert contents(database) == {"a": "1", "b": "1"}


def test_a_page_and_its_cursor_are_written_together_or_not_at_all(database: Database) -> None:
    """After a crash, the next worker must neither miss a page nor count one twice."""
    claim = started(database)
    too_long = Page((Record("a", '"1"'), Record("b", '"1"')), (), "next", total=2**70)
    with pytest.raises(Exception, match=r"(?i)integer|numeric|out of range|too large"):
        database.call(catalog_write.write_page, claim, too_long, LEASE)
    assert contents(database) == {}
    assert database.call(syncs.get, "shop", claim.sync_id).records_read == 0


def test_a_worker_without_its_lease_cannot_change_the_catalog(database: Database) -> None:
    """The fencing token refuses the writes of a worker whose lease has expired."""
    pull(database, page({"a": "1"}))
    database.call(enqueue, "shop", PRODUCT)
    old = database.call(claims.claim, "old", 0.001, *RULES)
    assert old is not None
    while not database.call(claims.has_claimable, 2):
        pass
    database.call(claims.claim, "new", LEASE, *RULES)
    for write, arguments in (
        (catalog_write.write_page, (page({"a": "2", "b": "1"}), LEASE)),
        (catalog_removal.remove_missing, ("", 10)),
        (generations.succeed, ()),
    ):
        with pytest.raises(LeaseLost):
            database.call(write, old, *arguments)
    assert contents(database) == {"a": "1"}
    assert database.call(catalog.state, "shop", PRODUCT).num_records == 1


def test_merchants_and_entity_types_do_not_touch_each_other(database: Database) -> None:
    """The same id is a different record with another merchant, and as a collection."""
    pull(database, page({"a": "1"}))
    pull(database, page({"a": "2"}), claim=started(database, "other"))
    pull(database, page({"a": "3"}), claim=started(database, "shop", COLLECTION))
    pull(database, page({}))
    assert contents(database) == {}
    assert contents(database, "other") == {"a": "2"}
    assert contents(database, "shop", COLLECTION) == {"a": "3"}


def test_paging_is_in_code_point_order_and_stable_while_records_change(database: Database) -> None:
    """Both databases must agree with the cursor on what comes next."""
    ids = ["A", "B", "a", "b", "z", "É", "é", "ß", "日本", "🍵", "a b", "a/b", "a%2Fb"]
    pull(database, page(dict.fromkeys(ids, "1")))
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        listing = database.call(catalog.page, "shop", PRODUCT, after, 3)
        found += [each.id for each in listing.records]
        after = listing.next_after
        if len(found) == 6:  # what was the last of a page is gone before the next is asked for
            gone = found[-1]
            pull(database, page({each: "1" for each in ids if each != gone} | {"0": "1"}))
    assert found == sorted(ids)
    whole = database.call(catalog.page, "shop", PRODUCT, "", len(ids))
    assert (len(whole.records), whole.next_after) == (len(ids), None), "a full page may be the last"


def test_a_collection_shows_a_page_of_its_products_in_its_own_order(database: Database) -> None:
    """All ids are shown, and the products that the catalog has."""
    pull(database, page({"a": "1", "b": "1", "d": "1"}))
    men = Page((Record("men", '"men"', ("d", "c", "b", "a")),), (), None, None)
    pull(database, men, claim=started(database, "shop", COLLECTION))
    record, first, after, _ = database.call(catalog.collection, "shop", "men", "", 2)
    assert record.product_ids == ("d", "c", "b", "a")
    assert ([each.id for each in first], after) == (["d"], "c")
    _, rest, after, _ = database.call(catalog.collection, "shop", "men", "c", 2)
    assert ([each.id for each in rest], after) == (["b", "a"], None)


def test_a_change_of_a_collections_products_alone_is_a_change(database: Database) -> None:
    """Its own fields may be the same."""
    for ids, expected in (
        (("a", "b"), Counts(created=1)),
        (("b", "a"), Counts(updated=1)),
        (("b", "a"), Counts(unchanged=1)),
    ):
        men = Page((Record("men", '"men"', ids),), (), None, None)
        assert pull(database, men, claim=started(database, "shop", COLLECTION)) == expected


def test_an_unknown_record_is_not_found(database: Database) -> None:
    """A record of another merchant is unknown, too."""
    pull(database, page({"a": "1"}))
    for merchant, record_id in (("shop", "b"), ("other", "a")):
        with pytest.raises(RecordNotFound):
            database.call(catalog.get, merchant, PRODUCT, record_id)


def test_only_the_ids_of_records_that_a_pull_has_not_written_are_kept(database: Database) -> None:
    """A first sync writes half as many rows: the generation of a record says that the pull has seen it."""
    pull(database, page({"a": "1", "b": "1", "c": "1"}))
    while database.call(catalog_removal.delete_seen, "shop", 10):
        pass
    running = started(database)
    sent = page({"a": "1", "b": "2", "d": "1"}, Rejection("WRONG_TYPE", "e", "/sku", "no"), cursor="2")
    seen = select(tables.seen_records.c.record_id)
    for _ in range(2):  # a repetition changes nothing
        database.call(catalog_write.write_page, running, sent, LEASE)
        assert database.call(lambda connection: set(connection.scalars(seen))) == {"a", "e"}
    assert database.call(catalog_removal.missing, running, 10) == ["c"]
    assert database.call(catalog_removal.count_missing, running)[:2] == (1, 4)
    found = database.call(syncs.latest, "shop", PRODUCT)
    assert found is not None
    assert found.counts[:3] == (1, 1, 1), "created, updated, unchanged"


def test_an_id_that_the_pull_has_seen_is_also_that_of_a_written_record(database: Database) -> None:
    """The pull asks the product service for it, to find out whether it can be asked by id. Commas separate ids."""
    running = started(database)
    assert database.call(catalog_removal.any_seen, running) is None
    database.call(catalog_write.write_page, running, page({"a,b": "1"}, cursor="2"), LEASE)
    assert database.call(catalog_removal.any_seen, running) is None
    database.call(catalog_write.write_page, running, page({"c": "1"}, cursor="3"), LEASE)
    assert database.call(catalog_removal.any_seen, running) == "c"


def test_seen_ids_of_ended_pulls_are_deleted_and_those_of_running_pulls_stay(database: Database) -> None:
    """Only the pull that saw the ids needs them."""
    pull(database, page({"a": "1", "b": "1", "c": "1"}))
    running = started(database)
    database.call(catalog_write.write_page, running, page({"a": "1"}, cursor="2"), LEASE)
    while database.call(catalog_removal.delete_seen, "shop", 2):
        pass
    count = text("SELECT count(*) FROM seen_records")
    assert database.call(lambda connection: connection.execute(count).scalar_one()) == 1


def test_removing_a_merchant_deletes_all_its_data_and_stops_its_sync(database: Database) -> None:
    """The data of other merchants stays."""
    for merchant in ("shop", "other"):
        pull(database, page({"a": "1"}, Rejection("WRONG_TYPE", "b", "/sku", "no")), claim=started(database, merchant))
    running = started(database)
    database.call(catalog_write.write_page, running, page({"a": "1"}, cursor="2"), LEASE)
    database.call(merchants.remove, "shop")
    with pytest.raises(LeaseLost):
        database.call(catalog_write.write_page, running, page({"b": "1"}), LEASE)
    for table in (
        tables.syncs,
        tables.sync_problems,
        tables.seen_records,
        tables.catalog_records,
        tables.catalog_counts,
    ):
        assert database.call(_merchants_in, table) == ["other"], table.name
    with pytest.raises(SettingsError):
        database.call(merchants.get, "shop")


def _merchants_in(connection: Connection, table: Table) -> list[str]:
    return list(connection.scalars(select(table.c.merchant).distinct()))


def test_the_bytes_of_a_catalog_are_those_of_its_records(database: Database) -> None:
    """Each page and each removal adds to the sum, which is never counted again, so it must not drift."""

    def counted_and_stored(connection: Connection) -> tuple[int, int]:
        r, c = tables.catalog_records.c, tables.catalog_counts.c
        octets = {"sqlite": "length(CAST({} AS BLOB))", "postgresql": "octet_length({})"}[connection.dialect.name]
        size = f"{octets.format('document')} + coalesce({octets.format('product_ids')}, 0)"
        wrong = connection.execute(select(r.record_id).where(r.size != text(f"({size})"))).all()
        assert wrong == []
        stored = connection.execute(select(func.coalesce(func.sum(r.size), 0)).where(r.merchant == "shop")).scalar_one()
        counted = select(c.num_bytes).where(c.merchant == "shop", c.entity_type == COLLECTION)
        return connection.execute(counted).scalar_one(), int(stored)

    def collection(key: str, title: str, *members: str) -> Record:
        return Record(key, f'{{"title":"{title}"}}', members)

    records = [collection("a", "smørrebrød 🍞", "p1", "ö"), collection("b", "x"), collection("c", "y" * 10)]
    seen = []
    for page_of_records in (
        records,
        records[:2],  # c is removed
        [collection("a", "longer " * 9, "p1"), collection("b", "")],
        [collection("a", "longer " * 9, "p1", "p2", "p3"), collection("b", "")],  # only its products change
        [collection("d", "ü"), collection("d", "üü")],
    ):
        claim = started(database, entity_type=COLLECTION)
        pull(database, Page(tuple({each.id: each for each in page_of_records}.values()), (), None, None), claim=claim)
        counted, stored = database.call(counted_and_stored)
        assert counted == stored
        seen.append(counted)
    assert len(set(seen)) == len(seen)
