"""Shopify exports of both formats, real and constructed ones."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pytest

from product_gateway.errors import SettingsError
from product_gateway.model.syncs import EntityType
from product_gateway.sample import catalog_file
from product_gateway.sample.catalog_file import Catalog
from tests.support.deployment import STARTS_WITHIN, Deployment, within

PRODUCT, COLLECTION = EntityType.PRODUCT, EntityType.COLLECTION
EXPORTS = Path(__file__).parents[3] / "shared" / "catalogs"
needs_exports = pytest.mark.skipif(not EXPORTS.is_dir(), reason=f"no real Shopify exports at {EXPORTS}")

HEADER = ["Handle", "Title", "Body (HTML)", "Vendor", "Type", "Tags", "Published", "Option1 Value"]
HEADER += ["Option2 Value", "Variant SKU", "Variant Price", "Image Src", "Image Position", "Image Alt Text", "Status"]
NEWER = {
    "Handle": "URL handle",
    "Body (HTML)": "Description",
    "Published": "Published on online store",
    "Option1 Value": "Option1 value",
    "Option2 Value": "Option2 value",
    "Variant SKU": "SKU",
    "Variant Price": "Price",
    "Image Src": "Product image URL",
    "Image Position": "Image position",
    "Image Alt Text": "Image alt text",
}


def records(catalog: Catalog, entity_type: EntityType) -> list[dict[str, Any]]:
    """Return all records, in order."""
    return [catalog.record(entity_type, index) for index in range(catalog.count(entity_type))]


def export(path: Path, *rows: dict[str, str], newer: bool = False) -> Path:
    """Return a Shopify export with these rows and older or newer column names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADER)
    writer.writerow({name: NEWER.get(name, name) if newer else name for name in HEADER})
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def product(path: Path, *rows: dict[str, str], currency: str = "GBP") -> dict[str, Any]:
    """Return the first product of an export with these rows, which need no handle or title."""
    first = {"Handle": "mug", "Title": "Mug", **rows[0]}
    catalog = catalog_file.read(export(path, first, *({"Handle": "mug", **row} for row in rows[1:])), currency=currency)
    return catalog.record(PRODUCT, 0)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The path of the test's export."""
    return tmp_path / "shop.csv"


@needs_exports
@pytest.mark.parametrize(("name", "products", "collections"), [("apparel.csv", 20, 2), ("home-and-garden.csv", 20, 17)])
def test_each_handle_of_a_real_export_is_one_product(name: str, products: int, collections: int) -> None:
    """22 and 21 rows hold 20 handles each: the other rows are variants."""
    catalog = catalog_file.read(EXPORTS / name)
    assert (catalog.count(PRODUCT), catalog.count(COLLECTION)) == (products, collections)


@needs_exports
def test_a_real_product_has_all_its_variants_with_prices_in_minor_units() -> None:
    """9.99 must become exactly 999, without rounding errors."""
    pot = catalog_file.read(EXPORTS / "home-and-garden.csv").find(PRODUCT, "clay-plant-pot")
    assert pot == {
        "id": "clay-plant-pot",
        "title": "Clay Plant Pot",
        "description": "Classic blown clay pot for plants",
        "thumbnail": {"url": "https://burst.shopifycdn.com/photos/single-sprout-in-a-pot_925x.jpg"},
        "listPrice": 999,
        "meta": {
            "vendor": "Company 123",
            "type": "Outdoor",
            "tags": ["Pot", "Plants"],
            "variants": [{"title": "Regular", "listPrice": 999}, {"title": "Large", "listPrice": 1599}],
        },
    }


@needs_exports
def test_real_descriptions_are_plain_text() -> None:
    """The bodies have paragraphs and no-break spaces, which a catalog does not need."""
    for name in ("apparel.csv", "home-and-garden.csv"):
        for each in records(catalog_file.read(EXPORTS / name), PRODUCT):
            assert not set("<>\xa0") & set(each["description"])
            assert each["description"] == each["description"].strip()


@needs_exports
def test_types_and_tags_of_a_real_export_become_collections() -> None:
    """Shopify exports no collections. Its merchants group products by types and tags."""
    catalog = catalog_file.read(EXPORTS / "home-and-garden.csv")
    bedroom = catalog.find(COLLECTION, "tag-bedroom")
    outdoor = catalog.find(COLLECTION, "type-outdoor")
    assert bedroom is not None
    assert outdoor is not None
    assert [each["id"] for each in bedroom["products"]] == ["copper-light", "antique-drawers", "bedside-table"]
    assert bedroom["products"][0] == {"id": "copper-light", "title": "Copper Light"}
    assert (bedroom["title"], bedroom["meta"]) == ("Bedroom", {"source": "tag"})
    assert (len(outdoor["products"]), outdoor["meta"]) == (7, {"source": "type"})


def test_older_and_newer_column_names_mean_the_same(tmp_path: Path) -> None:
    """Shopify renamed the columns, and merchants have files of both kinds."""
    row = {"Handle": "mug", "Title": "Mug", "Body (HTML)": "<b>Blue</b>", "Type": "Cups", "Variant SKU": "M1"}
    row |= {"Variant Price": "4.50", "Image Src": "https://example.com/mug.jpg", "Image Alt Text": "A mug"}
    older = catalog_file.read(export(tmp_path / "older.csv", row))
    newer = catalog_file.read(export(tmp_path / "newer.csv", row, newer=True))
    assert records(newer, PRODUCT) == records(older, PRODUCT)
    assert records(newer, COLLECTION) == records(older, COLLECTION)
    assert older.record(PRODUCT, 0)["thumbnail"] == {"url": "https://example.com/mug.jpg", "altText": "A mug"}


def test_rows_of_one_handle_are_one_product_wherever_they_stand(shop: Path) -> None:
    """A file that was sorted in a spreadsheet still holds the same products."""
    rows = [{"Handle": "a", "Option1 Value": "L"}, {"Handle": "b", "Title": "B"}, {"Handle": "a", "Title": "A"}]
    first, second = records(catalog_file.read(export(shop, *rows)), PRODUCT)
    assert (first["title"], second["title"]) == ("A", "B")


def test_the_thumbnail_is_the_image_with_the_lowest_position(shop: Path) -> None:
    """Positions are numbers: 10 comes after 9; an image without one comes last."""
    images = [("none.jpg", ""), ("ten.jpg", "10"), ("nine.jpg", "9")]
    rows = [{"Image Src": src, "Image Position": position} for src, position in images]
    assert product(shop, *rows)["thumbnail"] == {"url": "nine.jpg"}


def test_rows_with_an_image_alone_are_no_variants(shop: Path) -> None:
    """Shopify exports further images as rows without other cells."""
    found = product(shop, {"Option1 Value": "Red", "Option2 Value": "XL"}, {"Image Src": "second.jpg"})
    assert found["meta"] == {"variants": [{"title": "Red / XL"}]}


def test_empty_cells_are_absent_fields(shop: Path) -> None:
    """An empty SKU or price would look intended."""
    assert product(shop, {"Option1 Value": "Default Title"}) == {"id": "mug", "title": "Mug"}


@pytest.mark.parametrize(
    ("currency", "text", "minor"),
    [
        ("GBP", "9.99", 999),
        ("GBP", "50", 5000),
        ("GBP", "0.00", 0),
        ("GBP", "1.1", 110),
        ("GBP", "70368744177.63", 7036874417763),
        ("JPY", "1200", 1200),
        ("JPY", "1200.00", 1200),
        ("KRW", "15000", 15000),
        ("KWD", "1.234", 1234),
        ("BHD", "5", 5000),
    ],
)
def test_prices_are_exact_in_the_minor_units_of_the_currency(shop: Path, currency: str, text: str, minor: int) -> None:
    """The currency decides the number of decimals (ISO 4217)."""
    assert product(shop, {"Variant Price": text}, currency=currency)["listPrice"] == minor


@pytest.mark.parametrize("text", ["£9.99", "9,99", "9.999", "-1", "1e3", "NaN", "1_0", "free", "9" * 5000])
def test_the_error_for_an_invalid_price_names_line_and_column(shop: Path, text: str) -> None:
    """The user has to find one wrong cell among thousands."""
    export(shop, {"Handle": "mug", "Title": "A\nmug"}, {"Handle": "mug", "Variant Price": text})
    with pytest.raises(SettingsError) as caught:
        catalog_file.read(shop)
    said = caught.value.detail.removeprefix(str(shop))
    assert said.startswith(f", line 4, column 'Variant Price': '{text[:80]}' is not a price in GBP.")
    assert len(said) < 300


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p>\n<p>Two</p>", "One\nTwo"),
        ("One<br>Two<br/>Three", "One\nTwo\nThree"),
        ("<ul><li>One</li><li><b>T</b>wo</li></ul>", "One\nTwo"),
        ("Tea &amp; toast&nbsp; for\n two &euro;5", "Tea & toast for two €5"),
        ("<style>p { color: red }</style>Red<script>alert('<p>')</script>!", "Red!"),
        ("<!-- hidden -->a < b<![if !supportLists]>c<![odd[x]]>d", "a < bcd"),
    ],
)
def test_html_becomes_text_with_a_line_for_each_block(shop: Path, html: str, text: str) -> None:
    """Some readers of the catalog do not render HTML."""
    assert product(shop, {"Body (HTML)": html})["description"] == text


@pytest.mark.parametrize(("column", "value"), [("Published", "FALSE"), ("Status", "draft"), ("Status", "Archived")])
def test_products_that_are_not_for_sale_are_left_out(shop: Path, column: str, value: str) -> None:
    """Drafts are confidential."""
    rows = [{"Handle": "secret", "Title": "Secret", "Tags": "new", column: value}, {"Handle": "secret"}]
    catalog = catalog_file.read(export(shop, *rows, {"Handle": "mug", "Title": "Mug", "Published": "true"}))
    assert [each["id"] for each in records(catalog, PRODUCT)] == ["mug"]
    assert catalog.count(COLLECTION) == 0


def test_tags_that_differ_in_case_are_one_collection(shop: Path) -> None:
    """Merchants type tags by hand. A product with both spellings is in the collection once."""
    rows = [("a", "New In, new-in"), ("b", "NEW IN"), ("c", "★, Öl")]
    catalog = catalog_file.read(export(shop, *({"Handle": h, "Title": h, "Tags": t} for h, t in rows)))
    found = {each["id"]: [member["id"] for member in each["products"]] for each in records(catalog, COLLECTION)}
    assert found == {"tag-new-in": ["a", "b"], "tag-2605": ["c"], "tag-öl": ["c"]}
    assert catalog.record(COLLECTION, 0)["title"] == "New In"


def test_a_description_may_exceed_the_csv_modules_limit(shop: Path) -> None:
    """csv allows 128 KiB per field by default. Shopify has no such limit."""
    assert len(product(shop, {"Body (HTML)": "<p>word</p>" * 20_000})["description"]) == 20_000 * 5 - 1


def read(path: Path, content: str, encoding: str = "utf-8") -> Catalog:
    """Return the catalog of a CSV file with this content."""
    path.write_bytes(content.encode(encoding))
    return catalog_file.read(path)


def refusal(path: Path, content: str) -> str:
    """Return the message about a CSV file with this content, without its path."""
    with pytest.raises(SettingsError) as caught:
        read(path, content)
    return caught.value.detail.removeprefix(f"{path}, ")


HIDING = [("Published", word) for word in ("FALSCH", "FAUX", "0", "1", "no", "WAHR", "falsе", "false.", "TRUE FALSE")]
HIDING += [("Published on online store", "нет")]
HIDING += [("Status", word) for word in ("suspended", "true", "entwurf", "draft!", "activ", "active,draft")]


@pytest.mark.parametrize(("column", "word"), HIDING)
def test_an_unknown_word_for_visibility_is_refused(shop: Path, column: str, word: str) -> None:
    """A spreadsheet may translate FALSE, which must not make a draft public."""
    said = refusal(shop, f'Handle,Title,{column}\r\nmug,"A\nmug",\r\nmug,,"{word}"\r\n')
    assert said.startswith(f"line 4, column {column!r}: {word!r} does not say whether the product is for sale.")
    assert "true, false" in said or "active, draft, archived, unlisted" in said


@pytest.mark.parametrize(
    "column",
    [
        "Statut",
        "Estado",
        "STATUS*",
        "Product status",
        "Status (product)",
        "Veröffentlicht",
        "Vero\u0308ffentlicht",
        "Publié sur la boutique en ligne",
        "Published?",
        "Published on POS",
        "Sichtbarkeit",
        "ステータス",
        "is_active",
        "Visibility",
    ],
)
def test_a_column_that_may_decide_about_visibility_under_another_name_is_refused(shop: Path, column: str) -> None:
    """A translated header must not make drafts public."""
    said = refusal(shop, f"Handle,Title,{column}\nmug,Mug,x\n")
    assert said.startswith(f"line 1, column {column!r}: This column may say whether a product is for sale, and is not")
    assert said.endswith("Name it Status or Published, as Shopify does, or remove it.")


@pytest.mark.parametrize("word", ["draft", "Archived", " unlisted"])
def test_a_status_in_an_unknown_column_is_refused(shop: Path, word: str) -> None:
    """Shopify does not translate statuses, so that they are found in a column of any name."""
    said = refusal(shop, f"Handle,Title,Trạng thái\ncup,Cup,active\nmug,Mug,{word}\n")
    assert said.startswith(f"line 3, column 'Trạng thái': {word.strip()!r}. This column may say whether a product")


def test_other_columns_of_exports_are_ignored(shop: Path) -> None:
    """They are many, and some have similar names."""
    names = ["Published At", "Published Scope", "Included / International", "Inventory status", "Gift Card", "Cost"]
    names += ["Google Shopping / Custom Product", "Active size (product.metafields.custom.active)", "Variant Status"]
    catalog = read(shop, f"Handle,Title,{','.join(names)}\nmug,Mug{',true' * len(names)}\n")
    assert catalog.summary() == "1 product"


@pytest.mark.parametrize(
    ("column", "word", "reason"),
    [
        ("Status", "unlisted", "unlisted"),
        ("STATUS", " Draft ", "draft"),
        ("Status", "ARCHIVED\xa0", "archived"),
        ("Published", "False", "not published"),
        ("published ON online  store", "\tfalse", "not published"),
    ],
)
def test_left_out_products_are_counted_by_reason(shop: Path, column: str, word: str, reason: str) -> None:
    """The counts explain a catalog that is smaller than expected."""
    rows = f'Handle;Title;{column}\nmug;Mug;"{word}"\nmug;;\ncup;Cup;{word}\n'
    catalog = read(shop, rows)
    assert catalog.summary() == f"0 products, 2 left out ({reason})"
    assert read(shop, f"{rows}jar;Jar;\n").summary() == f"1 product, 2 left out ({reason})"


def test_several_reasons_are_counted_separately(shop: Path) -> None:
    """An unpublished draft counts as a draft."""
    rows = ["a,draft,false", "b,archived,", "c,active,FALSE", "d,draft,true", "e,Active,True", "f,,"]
    catalog = read(shop, "\n".join(["Handle,Status,Published,Title", *(f"{each},T" for each in rows)]))
    assert catalog.summary() == "2 products, 4 left out (2 draft, 1 archived, 1 not published)"
    assert catalog_file.read(catalog_file.SAMPLE).summary() == "24 products"


@pytest.mark.parametrize(("column", "words"), [("Published", ("true", "FALSE")), ("Status", ("draft", "active"))])
def test_rows_of_a_product_must_not_contradict_each_other(shop: Path, column: str, words: tuple[str, str]) -> None:
    """Either could be the intended one."""
    said = refusal(shop, f"Handle,Title,{column}\nmug,Mug,{words[0]}\ncup,Cup,\nmug,,{words[1]}\n")
    assert said.startswith(f"line 4: {column} of 'mug' is {words[1].lower()!r}, and {words[0].lower()!r} on line 2.")


PLAIN = 'Handle,Title,Tags,Published\nmug,"Mug, ""blue""; | \tlarge","a, b",true\ncup,Cup,,false\n'


def separated(by: str) -> str:
    """Return the file `PLAIN` with another separator."""
    text = io.StringIO()
    csv.writer(text, delimiter=by, lineterminator="\n").writerows(csv.reader(io.StringIO(PLAIN)))
    return text.getvalue()


FORMS = {
    "unchanged": PLAIN,
    "CR LF": PLAIN.replace("\n", "\r\n"),
    "CR": PLAIN.replace("\n", "\r"),
    "no end of the last line": PLAIN.rstrip(),
    "semicolons": separated(";"),
    "tabs": separated("\t"),
    "vertical bars": separated("|"),
    "all quoted": PLAIN.replace("Handle,Title,Tags,Published", '"Handle","Title","Tags","Published"'),
    "sep=;": "sep=;\r\n" + separated(";"),
    "sep=,": "sep=,\n" + PLAIN,
    "sep with a tab": "sep=\t\r\n" + separated("\t"),
    "SEP=:": "SEP=:\n" + separated(":"),
    "sep=^": "sep=^\r" + separated("^").replace("\n", "\r"),
    "sep in quotes": '"sep=;"\n' + separated(";"),
    "sep that was saved again": '"sep=;",,,\n' + separated(";"),
    "blank first lines": "\n \r\n\t\n\xa0\n" + PLAIN,
    "blank lines around sep": "\n\nsep=;\n\n" + separated(";"),
    "empty rows first": ',,,\n"","",""\n' + PLAIN,
    "a byte order mark": "\ufeff" + PLAIN,
    "doubled byte order marks": "\ufeff\ufeff" + PLAIN,
    "a mark before a quotation mark": "\ufeff" + PLAIN.replace("Handle", '"Handle"'),
    "marks, blank lines and sep": "\ufeff\n\ufeffsep=;\n\ufeff" + separated(";"),
    "names in other cases with spaces": PLAIN.replace("Handle,Title", "\xa0HANDLE , tiTLe\xa0"),
    "a doubled space in a name": PLAIN.replace("Handle", "URL \xa0handle"),
    "empty rows at the end": PLAIN + "\n,,,\n , ,\n,,,,,,\n",
    "empty columns at the end": "".join(f"{line},,\n" for line in PLAIN.splitlines()),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("form", FORMS)
def test_all_csv_variants_of_spreadsheets_are_read_alike(shop: Path, form: str, encoding: str) -> None:
    """UTF-16 with tabs, for example, is Excel's "Unicode text"."""
    catalog = read(shop, FORMS[form], encoding)
    assert records(catalog, PRODUCT) == [{"id": "mug", "title": 'Mug, "blue"; | \tlarge', "meta": {"tags": ["a", "b"]}}]
    assert catalog.summary() == "1 product, 1 left out (not published)"


REFUSED = {
    "a column twice": (
        "Handle,Title,Status,Title\n",
        "line 1: the column 'Title' occurs twice, as column 2 and 4. Remove one of them.",
    ),
    "a column twice in other letters": (
        "\n\nHandle,Status,\xa0STATUS \nmug,draft,\n",
        "line 3: the column 'STATUS' occurs twice, as column 2 and 3.",
    ),
    "a column twice that is not read": ("Handle;Cost;Cost\n", "line 1: the column 'Cost' occurs twice"),
    "an older and a newer name": (
        "Handle,Published,Title,Published on online store\n",
        "line 1: the columns 'Published' and 'Published on online store' mean the same. Remove one of them.",
    ),
    "too many cells": (
        "sep=;\nHandle;Title\nmug;Mug;more\n",
        "line 3, column 3: 'more' is in no column, as the header has 2.",
    ),
    "too few cells": (
        'Handle,Title,Status\nmug,"A\nmug"\n',
        "line 2, column 'Status': no such cell. The row has 2 cells, and the header 3.",
    ),
    "NUL in a cell": ("Handle,Title\nmug,Mug\ncup,C\0up\n", "line 3, column 'Title': a NUL character."),
    "sep without a separator": ("sep=\nHandle,Title\n", "line 1: 'sep=' names no separator."),
    "sep with two": ("\nsep=;;x\nHandle,Title\n", "line 2: 'sep=;;x' names no separator."),
    "sep with a letter": ("sep=x\nHandle,Title\n", "line 1: 'sep=x' names no separator."),
    "sep with a quotation mark": ('sep="\nHandle,Title\n', "line 1: 'sep=\"' names no separator."),
    "a quotation mark that is not closed": ('\n\nHandle,Title\nmug,"Mug\n', "line 4: not CSV (unexpected end"),
    "a price after blank lines": ("\rsep=;\rHandle;Price\rmug;9,99\r", "line 4, column 'Price': '9,99' is not a price"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_ambiguous_rows_and_columns_are_refused_with_their_place(shop: Path, kind: str) -> None:
    """A missing cell, for example, could hide the status of a draft."""
    content, said = REFUSED[kind]
    assert refusal(shop, content).startswith(said)


def test_a_header_that_contradicts_sep_is_refused(shop: Path) -> None:
    """The line `sep=` takes precedence, as in Excel."""
    with pytest.raises(SettingsError, match=r"among Handle,Title\. .*with semicolons between them\."):
        read(shop, "sep=;\nHandle,Title\nmug,Mug\n")


@pytest.mark.parametrize(("ends", "line"), [("\n", 3), ("\r\n", 3), ("\r", 3)])
def test_bytes_that_are_not_utf_8_are_named_by_their_line(shop: Path, ends: str, line: int) -> None:
    """All line ends are counted."""
    shop.write_bytes(ends.join(["Handle,Title", "mug,Mug", "cafe,Caf\xe9", ""]).encode("latin-1"))
    with pytest.raises(SettingsError, match=rf"line {line}: byte 0xE9 is not UTF-8\. Save or export"):
        catalog_file.read(shop)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"PK\x03\x04" + bytes(50),
            "this is an Excel workbook or a ZIP archive. Open it in the spreadsheet program, and",
        ),
        (b"\xd0\xcf\x11\xe0" + bytes(50), "this is an Excel workbook. Open it in the spreadsheet program, and save it"),
        (gzip.compress(b"Handle,Title\n"), "this is compressed with gzip. Decompress it."),
        (b'"Product ID";"Active (0/1)";"Name *"\n', "among Product ID;Active (0/1);Name *. Export the products from"),
    ],
    ids=["xlsx", "xls", "gzip", "another shop's"],
)
def test_another_kind_of_file_is_named(shop: Path, content: bytes, said: str) -> None:
    """The name of a file says little about it."""
    shop.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        catalog_file.read(shop)
    assert said in caught.value.detail


def test_the_sample_service_prints_the_number_of_products(sqlite_deployment: Deployment, tmp_path: Path) -> None:
    """A file without visible products would look like a broken service."""
    (tmp_path / "drafts.csv").write_text("Handle,Title,Status\nmug,Mug,draft\ncup,Cup,draft\n")
    with sqlite_deployment.process("sample-service", "--port", "0", "--catalog", "drafts.csv") as process:
        process.url()
        assert "drafts.csv: 0 products, 2 left out (draft)\n" in process.log.read_text()
    with sqlite_deployment.process("demo", "--port", "0", "--sample-port", "0", "--catalog", "drafts.csv") as process:
        within(STARTS_WITHIN, lambda: "drafts.csv: 0 products, 2 left out (draft)\n" in process.log.read_text())
