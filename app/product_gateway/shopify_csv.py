"""Products and collections in a Shopify product export (CSV), as records of openapi/product-service.yaml."""

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from product_gateway.errors import SettingsError

Record = dict[str, Any]
Row = dict[str, Any]  # a row of CSV: what it tells, by the names in COLUMNS; `price` is in minor units

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


def products(path: Path, lines: Iterable[str], currency: str) -> Iterator[tuple[str, Record]]:
    """The products, each with its place in the file, without drafts and what is archived or not published.

    Prices are in major units of `currency` (ISO 4217) and come out in minor units. Raises SettingsError.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CSV_FIELD))
    reader = csv.reader(lines, strict=True)
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


def collections(of: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    """A collection for each type and each tag of the products, in their order; spellings with one slug are one."""
    found: dict[str, Record] = {}
    for product in of:
        member = _filled(id=product["id"], title=product.get("title"))  # the whole product is in its own list
        meta = product.get("meta", {})
        groups = [("type", meta["type"])] if "type" in meta else []
        for source, title in groups + [("tag", tag) for tag in meta.get("tags", [])]:
            empty: Record = {"title": title, "products": [], "meta": {"source": source}}
            record_id = f"{source}-{_slug(title)}"
            members = found.setdefault(record_id, {"id": record_id, **empty})["products"]
            if not members or members[-1] is not member:  # two of its tags may have one slug
                members.append(member)
    return ((f"collection of the {each['meta']['source']}", each) for each in found.values())


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
