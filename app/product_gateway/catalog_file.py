"""Product data from a file (JSON, JSON Lines or a Shopify product CSV export), or made up, any amount of it.

What comes out are records of openapi/product-service.yaml, checked against it.
"""

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Protocol

import jsonschema_rs
import orjson

from product_gateway import spec
from product_gateway.model import EntityType, SettingsError

SAMPLE = Path(__file__).with_name("sample_catalog.json")

Record = dict[str, Any]
Row = dict[str, Any]  # a row of CSV: what it tells, by the names in COLUMNS; `price` is in minor units
Located = tuple[str, Any]  # where in the file, for messages; and what stands there

# ISO 4217: the currencies whose minor unit is not a hundredth, by its decimals.
DECIMALS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
}
# What Shopify calls the columns, in lower case: in older exports, and in newer ones.
COLUMNS = {
    "handle": ("handle", "url handle"),
    "title": ("title",),
    "body": ("body (html)", "description"),
    "vendor": ("vendor",),
    "type": ("type", "custom product type"),
    "tags": ("tags",),
    "published": ("published", "published on online store"),
    "status": ("status",),
    "option1": ("option1 value",),
    "option2": ("option2 value",),
    "option3": ("option3 value",),
    "sku": ("variant sku", "sku"),
    "price": ("variant price", "price"),
    "image": ("image src", "product image url"),
    "position": ("image position",),
    "alt": ("image alt text",),
}
BLOCK = re.compile(
    "address|article|aside|blockquote|br|caption|d[dlt]|div|fieldset|figcaption|figure|footer|form|h[1-6r]|header"
    "|li|main|nav|ol|p|pre|section|table|t[dhr]|ul"
)
OPTIONS = ("option1", "option2", "option3")
LONGEST_CSV_FIELD = 16 * 1024 * 1024  # characters; a description in HTML may be larger than csv's own 128 KiB
NOT_FOR_SALE = ("draft", "archived")
SCHEMAS = {EntityType.PRODUCT: "Product", EntityType.COLLECTION: "Collection"}


class Catalog(Protocol):
    """Products and collections in an order that does not change. Records are shared: never change one."""

    def count(self, entity_type: EntityType) -> int:
        """How many records there are."""

    def record(self, entity_type: EntityType, index: int) -> Record:
        """The record at the index, 0 to count - 1. Raises IndexError past the end."""

    def index(self, entity_type: EntityType, record_id: str) -> int | None:
        """Where the record with this id is, or None."""

    def find(self, entity_type: EntityType, record_id: str) -> Record | None:
        """The record with this id, or None."""
        index = self.index(entity_type, record_id)
        return None if index is None else self.record(entity_type, index)


def read(path: Path, *, currency: str = "GBP") -> Catalog:
    """The catalog in the file, whose name says what it is: .json, .jsonl, .ndjson or .csv.

    JSON is `{"products": [...], "collections": [...]}` or an array of products; JSON Lines one product a line;
    CSV a Shopify product export, its prices in major units of `currency` (ISO 4217), made minor here.
    Raises SettingsError for a file that is missing, is not what its name says or has a record that doesn't fit.
    """
    if not re.fullmatch("[A-Z]{3}", currency):
        raise SettingsError(f"{currency!r} is not a currency. Give its code of ISO 4217, such as GBP.")
    products: Iterable[Located]
    collections: Iterable[Located] = ()
    match path.suffix.lower():
        case ".csv":
            products = list(_shopify(path, currency))
            collections = _collections([product for _, product in products])
        case ".json":
            products, collections = _json(path)
        case ".jsonl" | ".ndjson":
            lines = ((n, line) for n, line in enumerate(_lines(path), 1) if line.strip())
            products = ((f"line {n}", _parsed(path, line.rstrip(), n)) for n, line in lines)
        case _:
            raise SettingsError(f"{path}: rename it to what it is: .csv, .json, .jsonl or .ndjson.")
    return _Listed(
        {
            EntityType.PRODUCT: _checked(path, EntityType.PRODUCT, products),
            EntityType.COLLECTION: _checked(path, EntityType.COLLECTION, collections),
        }
    )


def generated(records: int) -> Catalog:
    """That many made-up products, each made when it is asked for, and a collection for every hundred."""
    return _Generated(records)


class _Listed(Catalog):
    """A catalog in memory."""

    def __init__(self, by_id: Mapping[EntityType, dict[str, Record]]) -> None:
        self._records = {entity_type: list(each.values()) for entity_type, each in by_id.items()}
        self._indices = {entity_type: {id_: n for n, id_ in enumerate(each)} for entity_type, each in by_id.items()}

    def count(self, entity_type: EntityType) -> int:
        return len(self._records[entity_type])

    def record(self, entity_type: EntityType, index: int) -> Record:
        return self._records[entity_type][index]

    def index(self, entity_type: EntityType, record_id: str) -> int | None:
        return self._indices[entity_type].get(record_id)


@dataclass(frozen=True)
class _Generated(Catalog):
    """A catalog that holds nothing: record n is worked out from n."""

    products: int

    def count(self, entity_type: EntityType) -> int:
        return self.products if entity_type is EntityType.PRODUCT else -(-self.products // 100)

    def record(self, entity_type: EntityType, index: int) -> Record:
        if not 0 <= index < self.count(entity_type):
            raise IndexError(index)
        number, created = index + 1, datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=index)
        times = {"createdAt": created.isoformat(), "updatedAt": (created + timedelta(days=30)).isoformat()}
        if entity_type is EntityType.PRODUCT:
            return {
                "id": f"product-{number:07}",
                "title": f"Sample product {number}",
                "description": f"Product {number} of a made-up catalog, there to see how a sync fares. " * 4,
                "thumbnail": {
                    "url": f"https://images.example.com/product-{number:07}.jpg",
                    "altText": f"Sample product {number}",
                },
                "listPrice": 100 + index * 37 % 20_000,
                "sku": f"SAMPLE-{number:07}",
                **times,
                "meta": {"vendor": f"Vendor {index % 50 + 1}", "tags": [f"group-{index % 10}", "made-up"]},
            }
        first = max(0, min(index * 100, self.products - 10))
        members = (self.record(EntityType.PRODUCT, n) for n in range(first, min(first + 10, self.products)))
        return {
            "id": f"collection-{number:05}",
            "title": f"Sample collection {number}",
            "description": f"Some of the products from {index * 100 + 1} on.",
            **times,
            "products": [{key: each[key] for key in ("id", "title", "listPrice", "sku")} for each in members],
            "meta": {"source": "made-up"},
        }

    def index(self, entity_type: EntityType, record_id: str) -> int | None:
        number = re.fullmatch(rf"{entity_type.lower()}-([0-9]{{5,18}})", record_id)
        index = int(number[1]) - 1 if number else -1
        known = 0 <= index < self.count(entity_type) and self.record(entity_type, index)["id"] == record_id
        return index if known else None


def _lines(path: Path) -> Iterator[str]:
    """The file's lines with their ends, without a byte order mark."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}). Give the path of a file.") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise SettingsError(
            f"{path}, line {number}: byte 0x{byte:02X} is not UTF-8. Save or export the file as UTF-8."
        ) from None


def _parsed(path: Path, text: str, first_line: int = 1) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise SettingsError(
            f"{path}, line {line}, column {error.colno}: not JSON ({error.msg}). Correct the file there."
        ) from None


def _json(path: Path) -> tuple[Iterator[Located], Iterator[Located]]:
    content = _parsed(path, "".join(_lines(path)))
    content = {"products": content} if isinstance(content, list) else content
    known = ("products", "collections")
    if not isinstance(content, dict) or not any(isinstance(content.get(name), list) for name in known):
        raise SettingsError(
            f'{path}: no records. Write {{"products": [...], "collections": [...]}} or an array of products.'
        )
    wrong = [name for name in known if not isinstance(content.get(name, []), list)]
    if wrong:
        raise SettingsError(f"{path}: {wrong[0]!r} must be an array of records.")
    return _numbered("product", content.get("products", [])), _numbered("collection", content.get("collections", []))


def _numbered(what: str, records: list[Any]) -> Iterator[Located]:
    return ((f"{what} {n}", each) for n, each in enumerate(records, 1))


@cache
def _validator(entity_type: EntityType) -> jsonschema_rs.Draft4Validator:
    schema = spec.json_schema(spec.load(spec.PRODUCT_SERVICE), SCHEMAS[entity_type])
    return jsonschema_rs.Draft4Validator(schema)


def _checked(path: Path, entity_type: EntityType, located: Iterable[Located]) -> dict[str, Record]:
    """The records by id, in their order. Raises SettingsError for one that doesn't fit or has a taken id."""
    by_id: dict[str, Record] = {}
    validator = _validator(entity_type)
    for where, record in located:
        if not validator.is_valid(record):
            fault = next(iter(validator.iter_errors(record)))
            pointer = "".join(f"/{part}" for part in fault.instance_path)
            # The validator quotes the whole value in front of what is wrong with it.
            text = fault.message if len(fault.message) <= 300 else "…" + fault.message[-200:]
            name = f" ({record['id']!r:.80})" if isinstance(record, dict) and "id" in record else ""
            raise SettingsError(
                f"{path}, {where}{name}: {pointer and pointer + ': '}{text}. Correct it; the schema "
                f"{SCHEMAS[entity_type]} in {spec.PRODUCT_SERVICE} says what fits."
            )
        if record["id"] in by_id:
            raise SettingsError(
                f"{path}, {where}: an earlier {entity_type.lower()} has the id {record['id']!r} too. "
                "Give each an id of its own, or remove one."
            )
        by_id[record["id"]] = record
    return by_id


def _shopify(path: Path, currency: str) -> Iterator[Located]:
    """The products of an export, without drafts and what is archived or not published."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CSV_FIELD))
    reader = csv.reader(_lines(path), strict=True)
    rows: dict[str, list[Row]] = {}
    try:
        header = [name.strip() for name in next(reader, [])]
        found = {name.lower(): n for n, name in enumerate(header)}
        columns = {each: found[name] for each, names in COLUMNS.items() for name in names if name in found}
        if "handle" not in columns:
            raise SettingsError(
                f"{path}: no column Handle (or URL handle) among {', '.join(header)[:200] or 'none'}. "
                "Export the products from Shopify as CSV, with commas between the columns."
            )
        line = reader.line_num + 1
        for cells in reader:
            row: Row = {name: cells[n].strip() for name, n in columns.items() if n < len(cells) and cells[n].strip()}
            if row and "handle" not in row:
                raise SettingsError(f"{path}, line {line}: no Handle. Give every row its product's handle.")
            if "price" in row:
                where = f"{path}, line {line}, column {header[columns['price']]!r}"
                row["price"] = _minor_units(row["price"], currency, where)
            if row:
                rows.setdefault(row["handle"], []).append({"line": line, **row})
            line = reader.line_num + 1  # where the next row starts: a row may have several lines
    except csv.Error as error:
        where = f"{path}, line {reader.line_num}"
        raise SettingsError(f"{where}: not CSV ({error}). Correct the file there.") from None
    return ((f"line {each[0]['line']}", _product(each)) for each in rows.values() if _for_sale(each))


def _minor_units(text: str, currency: str, where: str) -> int:
    decimals = next((n for n, currencies in DECIMALS.items() if currency in currencies), 2)
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{0,12})?", text):
        amount = Decimal(text).scaleb(decimals)
        if amount == int(amount):
            return int(amount)
    raise SettingsError(
        f"{where}: {text[:80]!r} is not a price in {currency}. Write it in digits, with a point and at most "
        f"{decimals} decimals, or leave it empty."
    )


def _for_sale(rows: list[Row]) -> bool:
    told = _told(rows)
    return told.get("published", "").lower() != "false" and told.get("status", "").lower() not in NOT_FOR_SALE


def _told(rows: list[Row]) -> Row:
    """What the rows tell of the product as a whole: of each column the first cell that is not empty."""
    told: Row = {}
    for row in rows:
        told = row | told
    return told


def _product(rows: list[Row]) -> Record:
    told = _told(rows)
    images = sorted((row for row in rows if "image" in row), key=_position)
    variants = [row for row in rows if row.keys() & {"option1", "sku", "price"}]  # the rest are images
    tags = (tag.strip() for tag in told.get("tags", "").split(","))
    return _filled(
        id=told["handle"],
        title=told.get("title"),
        description=_plain_text(told.get("body", "")),
        thumbnail=_filled(url=images[0]["image"], altText=images[0].get("alt")) if images else None,
        listPrice=variants[0].get("price") if variants else None,
        sku=variants[0].get("sku") if variants else None,
        meta=_filled(
            vendor=told.get("vendor"),
            type=told.get("type"),
            tags=[tag for tag in dict.fromkeys(tags) if tag],
            variants=[each for each in map(_variant, variants) if each],
        ),
    )


def _variant(row: Row) -> Record:
    title = " / ".join(row[option] for option in OPTIONS if option in row)
    title = "" if title == "Default Title" else title  # Shopify's name for the only variant
    return _filled(title=title, sku=row.get("sku"), listPrice=row.get("price"))


def _position(row: Row) -> int:
    """The image's place; last where it has none, in the order of the file."""
    position = row.get("position", "")
    return int(position) if re.fullmatch("[0-9]{1,9}", position) else 10**9


def _filled(**members: Any) -> Record:
    return {name: value for name, value in members.items() if value not in (None, "", [], {})}


def _collections(products: Iterable[Record]) -> list[Located]:
    """A collection for each type and each tag, in the order of the file; spellings with one slug are one."""
    found: dict[str, Record] = {}
    for product in products:
        meta = product.get("meta", {})
        groups = [("type", meta["type"])] if "type" in meta else []
        for source, title in groups + [("tag", tag) for tag in meta.get("tags", [])]:
            empty: Record = {"title": title, "products": [], "meta": {"source": source}}
            record_id = f"{source}-{_slug(title)}"
            members = found.setdefault(record_id, {"id": record_id, **empty})["products"]
            if not members or members[-1] is not product:  # two of its tags may have one slug
                members.append(product)
    return [(f"collection of the {each['meta']['source']}", each) for each in found.values()]


def _slug(title: str) -> str:
    """The title for an id: words in lower case, joined by hyphens; without a word, the characters' codes."""
    folded = unicodedata.normalize("NFKC", title).casefold()
    slug = "-".join(re.findall(r"\w+", folded)) or "-".join(f"{ord(character):x}" for character in folded)
    return slug[:250]  # with its prefix an id's longest, 255


class _TextOf(HTMLParser):
    """Collects the text of HTML, with a line break for each block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden = self._hidden or tag in ("script", "style")
        self.parts.append("\n" if BLOCK.fullmatch(tag) else "")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = self._hidden and tag not in ("script", "style")
        self.parts.append("\n" if BLOCK.fullmatch(tag) else "")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(re.sub(r"\s+", " ", data))


def _plain_text(html: str) -> str:
    """The text of HTML: a line for each block with words in it, spaces collapsed, no scripts and styles."""
    parser = _TextOf()
    parser.feed(re.sub(r"<!\[[^>]*>?", "", html))  # Word's marked sections, on which html.parser may raise
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.parts).split("\n"))
    return "\n".join(line for line in lines if line)
