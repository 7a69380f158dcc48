"""Catalog files: their formats, and the messages about files that cannot be read."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from product_gateway.errors import SettingsError
from product_gateway.model.syncs import EntityType
from product_gateway.sample import catalog_file
from product_gateway.sample.catalog_file import Catalog

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION


def records(catalog: Catalog, entity_type: EntityType) -> list[dict[str, Any]]:
    """Return all records, in order."""
    return [catalog.record(entity_type, index) for index in range(catalog.count(entity_type))]


def fault(path: Path, content: str | bytes) -> str:
    """Return the message about a file with this content, without its path."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SettingsError) as caught:
        catalog_file.read(path)
    assert str(path) in caught.value.detail
    return caught.value.detail.removeprefix(str(path)).lstrip(",: ")


def test_a_currency_must_be_a_code() -> None:
    """A typing error would change every price by a factor of a hundred."""
    with pytest.raises(SettingsError, match="'pounds' is not a currency"):
        catalog_file.read(catalog_file.SAMPLE, currency="pounds")


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".csv"])
def test_a_byte_order_mark_is_not_part_of_the_data(tmp_path: Path, suffix: str) -> None:
    """Spreadsheets and editors on Windows write one."""
    texts = {".json": '[{"id": "mug", "title": "Mug"}]', ".csv": "Handle,Title\r\nmug,Mug\r\n"}
    path = tmp_path / f"catalog{suffix}"
    path.write_text(texts.get(suffix, '{"id": "mug", "title": "Mug"}\n\n'), encoding="utf-8-sig")
    assert records(catalog_file.read(path), PRODUCT) == [{"id": "mug", "title": "Mug"}]


def test_json_may_be_an_object_of_both_types_or_an_array_of_products(tmp_path: Path) -> None:
    """Either list may be left out; an array is the shortest way to say products."""
    mug, cups = {"id": "mug", "title": "Mug"}, {"id": "cups", "title": "Cups", "products": None}
    path = tmp_path / "catalog.json"
    for content, counts in [([mug], (1, 0)), ({"collections": [cups]}, (0, 1)), ({"products": []}, (0, 0))]:
        path.write_bytes(orjson.dumps(content))
        catalog = catalog_file.read(path)
        assert (catalog.count(PRODUCT), catalog.count(COLLECTION)) == counts
    path.write_bytes(orjson.dumps({"products": [mug], "collections": [cups]}))
    assert catalog_file.read(path).find(COLLECTION, "cups") == cups


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", '{"products": [\n  {"id": }]}', "line 2, column 10: not JSON"),
        ("a.json", '"mug"', "no records"),
        ("a.json", '{"items": []}', "no records"),
        ("a.json", '{"products": [], "collections": {}}', "'collections' must be an array"),
        ("a.json", b'[\n{"id": "caf\xe9"}]', "line 2: byte 0xE9 is not UTF-8"),
        ("a.json", '[{"id": "a", "title": "A"}, {"id": "b"}]', "product 2 ('b'): \"title\" is a required property"),
        ("a.json", '[{"id": "a", "title": "A", "listPrice": "9.99"}]', "product 1 ('a'): /listPrice: \"9.99\" is not"),
        ("a.json", '{"collections": [{"id": "a", "title": "A", "products": [1]}]}', "collection 1 ('a'): /products/0:"),
        (
            "a.json",
            '[{"id": "a", "title": "A"}, {"id": "a", "title": "B"}]',
            "product 2: an earlier product has the id",
        ),
        ("a.json", "[7]", 'product 1: 7 is not of type "object"'),
        ("a.jsonl", '{"id": "a", "title": "A"}\n\n{"id":\n', "line 3, column 7: not JSON"),
        ("a.jsonl", '{"id": "a", "title": "A"}\n{"id": "b"}\n', "line 2 ('b'): \"title\" is a required property"),
        ("a.csv", "Name;Title\r\n", "no column Handle (or URL handle) among Name;Title."),
        ("a.csv", "", "no column Handle (or URL handle) among none."),
        ("a.csv", "Handle,Title\r\nmug,Mug\r\n,Cup\r\n", "line 3: no Handle"),
        ("a.csv", "Handle,Title\r\nmug,Mug\r\ncup,\r\n", "line 3 ('cup'): \"title\" is a required property"),
        ("a.csv", 'Handle,Title\r\nmug,"Mug\r\n', "line 2: not CSV (unexpected end of data)"),
        ("a.xlsx", "", "rename it to what it is: .csv, .json, .jsonl or .ndjson."),
    ],
)
def test_an_error_message_names_its_place(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    """The user has to find the fault in the file."""
    assert fault(tmp_path / name, content).startswith(said)


def test_a_long_value_is_not_repeated_in_full(tmp_path: Path) -> None:
    """A megabyte of description would hide the reason."""
    content = orjson.dumps([{"id": "a", "title": "x" * 1_000_000}])
    said = fault(tmp_path / "a.json", content)
    assert "is longer than 8192 characters. Correct it; the schema Product in product-service.yaml" in said
    assert len(said) < 400


@pytest.mark.parametrize("levels", [250, 251, 1000])
def test_a_record_is_nested_no_deeper_than_a_page_can_hold(tmp_path: Path, levels: int) -> None:
    """Otherwise the file would load, and each page with the record would be a 500."""
    path = tmp_path / "a.json"
    content = '[{"id": "a", "title": "A", "meta": {"a": ' + "[" * levels + "]" * levels + "}}]"
    if levels > 250:
        assert fault(path, content).startswith("product 1 ('a'): its objects and arrays are nested too deeply")
    else:
        path.write_text(content)
        catalog = catalog_file.read(path)
        assert orjson.dumps({"items": [catalog.record(PRODUCT, 0)]})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing files and folders are the usual mistakes in a path."""
    folder = tmp_path / "folder.json"
    folder.mkdir()
    for path in (tmp_path / "missing.csv", folder):
        with pytest.raises(SettingsError, match=f"{path}: cannot be read"):
            catalog_file.read(path)


def test_the_sample_is_a_catalog(tmp_path: Path) -> None:
    """It is part of the package, and new users see it first."""
    catalog = catalog_file.read(catalog_file.SAMPLE)
    assert (catalog.count(PRODUCT), catalog.count(COLLECTION)) == (24, 5)
    for collection in records(catalog, COLLECTION):
        for member in collection["products"]:
            whole = catalog.find(PRODUCT, member["id"])
            assert whole is not None
            assert member.items() <= whole.items()


@pytest.mark.parametrize(("products", "collections"), [(0, 0), (1, 1), (9, 1), (100, 1), (101, 2), (1_000_000, 10_000)])
def test_a_generated_catalog_fits_the_schema_like_a_file(tmp_path: Path, products: int, collections: int) -> None:
    """Measurements of syncs need valid records."""
    catalog = catalog_file.GeneratedCatalog(products)
    assert (catalog.count(PRODUCT), catalog.count(COLLECTION)) == (products, collections)
    some = {
        f"{entity_type.lower()}s": [catalog.record(entity_type, n) for n in {0, count - 1} if 0 <= n < count]
        for entity_type, count in ((PRODUCT, products), (COLLECTION, collections))
    }
    path = tmp_path / "some.json"
    path.write_bytes(orjson.dumps(some))
    catalog_file.read(path)
    for entity_type in EntityType:
        for record in some[f"{entity_type.lower()}s"]:
            assert catalog.find(entity_type, record["id"]) == record
    for collection in some["collections"]:
        assert len(collection["products"]) == min(10, products)


def test_a_generated_catalog_has_no_other_ids() -> None:
    """An id must be found only if the list has it."""
    catalog = catalog_file.GeneratedCatalog(150)
    for record_id in ("product-0000000", "product-0000151", "product-00000001", "product-", "collection-00001"):
        assert catalog.find(PRODUCT, record_id) is None
    with pytest.raises(IndexError):
        catalog.record(PRODUCT, 150)


def test_generated_products_have_a_usual_size() -> None:
    """About 600 bytes of JSON each, and the same at every call."""
    catalog = catalog_file.GeneratedCatalog(5000)
    first = orjson.dumps(catalog.record(PRODUCT, 4321))
    assert 500 <= len(first) <= 700
    assert orjson.dumps(catalog_file.GeneratedCatalog(5000).record(PRODUCT, 4321)) == first
