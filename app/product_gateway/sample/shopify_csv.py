"""A parser of Shopify product exports (CSV) into records of openapi/product-service.yaml."""

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path
from typing import Any

from product_gateway.errors import SettingsError

Record = dict[str, Any]
Row = dict[str, Any]  # the non-empty cells of a CSV row, by the names in COLUMNS; `price` is in minor units

# Currencies (ISO 4217) whose minor unit is not a hundredth, by number of decimals.
DECIMALS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
# Shopify's column names in lower case, of older and newer exports.
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
MAX_CSV_FIELD = 16 * 1024 * 1024  # characters; HTML descriptions may exceed csv's default of 128 KiB
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_RENAME = (
    "This column may say whether a product is for sale, and is not read. Name it Status or Published, as Shopify does, "
    "or remove it."
)
BLANK = ' \r\n\xa0"' + "".join(SEPARATORS)  # characters of a line without content
# Some spreadsheets quote this line and add empty cells.
SEPARATOR_LINE = re.compile(r' *"?sep=(\\t|\t|[^\w\s"])"?[,;\t|]*\s*', re.IGNORECASE)
# The words that decide whether a product is for sale: the reason why not, or None. Shopify does not translate them, but
# a spreadsheet may. An unknown word must not make a draft public.
FOR_SALE: dict[str, dict[str, str | None]] = {
    "status": {"active": None, "draft": "draft", "archived": "archived", "unlisted": "unlisted"},
    "published": {"true": None, "false": "not published"},
}
# Words of columns that decide about it under another name, such as a translated one. Such a column must not be ignored.
VISIBILITY = re.compile(
    r"status|statut|estado|estatus|stato|stav|stan|durum|статус|状态|狀態|状態|ステータス|상태"
    r"|publish|published|publié|publicado|pubblicato|veröffentlicht|gepubliceerd|publicerad|publiceret|publisert"
    r"|julkaistu|opublikowany|yayınlandı|опубликован|опубликовано|公開|公開済み|已发布|게시됨"
    r"|visible|visibility|visibilité|visibilidad|visibilità|sichtbar|sichtbarkeit|zichtbaar|zichtbaarheid|synlig"
    r"|active|aktiv|actif|activo|attivo|actief|ativo|draft|entwurf|brouillon|borrador|bozza|rascunho|hidden|archived"
)
OF_SOMETHING_ELSE = {"at", "date", "time", "scope", "inventory", "stock", "variant", "fulfillment", "metafields"}


def read(path: Path, lines: Iterable[str], currency: str) -> tuple[list[tuple[str, Record]], Counter[str]]:
    """Return the products for sale, with their places in the file, and the number of the others by reason.

    `lines` have their ends. Prices are in major units of `currency` (ISO 4217) and come out in minor units.
    Raises SettingsError.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CSV_FIELD))
    rows: dict[str, list[Row]] = {}
    for row in _rows(path, lines, currency):
        rows.setdefault(row["handle"], []).append(row)
    reasons = [_not_for_sale(path, each) for each in rows.values()]
    for_sale = [each for each, reason in zip(rows.values(), reasons, strict=True) if reason is None]
    return [(f"line {each[0]['line']}", _product(each)) for each in for_sale], Counter(filter(None, reasons))


def _rows(path: Path, lines: Iterable[str], currency: str) -> Iterator[Row]:
    """Yield the non-empty rows, with their line numbers."""
    lines, skipped, separator = _start(path, lines)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        header = next(reader, [])
        columns = _columns(path, f"{path}, line {skipped + 1}", header, separator)
        line = skipped + reader.line_num + 1
        for cells in reader:
            where = f"{path}, line {line}"
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                _check_cells(where, header, stripped, columns)
                _check_unread(where, header, stripped, columns)
                row: Row = {name: stripped[n] for name, n in columns.items() if stripped[n]}
                if row and "handle" not in row:
                    raise SettingsError(f"{where}: no Handle. Give every row its product's handle.")
                for name in filter(row.get, FOR_SALE):  # the non-empty ones
                    word, known = row[name].lower(), FOR_SALE[name]
                    if word not in known:
                        raise SettingsError(
                            f"{where}, column {header[columns[name]]!r}: {row[name][:80]!r} does not say whether the "
                            f"product is for sale. Write one of {', '.join(known)}, or leave it empty."
                        )
                    row[name] = word
                if "price" in row:
                    place = f"{where}, column {header[columns['price']]!r}"
                    row["price"] = _minor_units(row["price"], currency, place)
                if row:
                    yield {"line": line, **row}
            line = skipped + reader.line_num + 1  # where the next row starts: a row may have several lines
    except csv.Error as error:
        where = f"{path}, line {skipped + reader.line_num}"
        raise SettingsError(f"{where}: not CSV ({error}). Correct the file there.") from None


def _start(path: Path, lines: Iterable[str]) -> tuple[Iterator[str], int, str]:
    """Return the lines from the header on, the number of lines before it, and the column separator.

    The separator is that of Excel's line `sep=;`, or else the first one that yields a column Handle.
    """
    remaining = iter(lines)
    declared = None
    for number, line in enumerate(remaining, 1):
        text = line.lstrip("\ufeff")
        if text.lstrip(' "').lower().startswith("sep="):
            found = SEPARATOR_LINE.fullmatch(text)
            if found is None:
                raise SettingsError(
                    f"{path}, line {number}: {text.strip()[:80]!r} names no separator. Write one character after "
                    "sep=, such as sep=; or remove the line."
                )
            declared = "\t" if found[1] == r"\t" else found[1]
        elif text.strip(BLANK):
            if declared is None:
                most = max(SEPARATORS, key=lambda each: len(_names(text, each)))  # for the message
                declared = next((each for each in SEPARATORS if _names(text, each) & {*COLUMNS["handle"]}), most)
            return chain([text], remaining), number - 1, declared
    return iter(()), 0, declared or ","


def _names(line: str, separator: str) -> set[str]:
    """Return the column names in a line; an empty set if it is not CSV."""
    try:
        return {_name(cell) for cell in next(csv.reader([line], delimiter=separator), [])}
    except csv.Error:
        return set()


def _name(cell: str) -> str:
    """Return a column's name in lower case, without byte order marks, no-break and doubled spaces."""
    return " ".join(cell.replace("\ufeff", " ").split()).lower()


def _columns(path: Path, where: str, header: list[str], separator: str) -> dict[str, int]:
    """Return the indexes of the known columns. Raises SettingsError for a repeated column."""
    found: dict[str, int] = {}
    for n, name in enumerate(map(_name, header)):
        if name in found:
            raise SettingsError(
                f"{where}: the column {header[n].strip()[:80]!r} occurs twice, as column {found[name] + 1} and "
                f"{n + 1}. Remove one of them."
            )
        if name:
            found[name] = n
    columns: dict[str, int] = {}
    for each, names in COLUMNS.items():
        same = [name for name in names if name in found]
        if len(same) > 1:
            both = " and ".join(repr(header[found[name]].strip()) for name in same)
            raise SettingsError(f"{where}: the columns {both} mean the same. Remove one of them.")
        if same:
            columns[each] = found[same[0]]
    if "handle" not in columns:
        listed = separator.join(name.strip() for name in header)[:200]
        raise SettingsError(
            f"{path}: no column Handle (or URL handle) among {listed or 'none'}. Export the products from Shopify as "
            f"CSV. The columns were looked for with {SEPARATORS.get(separator, repr(separator))} between them."
        )
    for name, n in found.items():
        words = set(re.findall(r"[^\W_]+", unicodedata.normalize("NFC", name)))
        if n not in columns.values() and any(map(VISIBILITY.fullmatch, words)) and not words & OF_SOMETHING_ELSE:
            raise SettingsError(f"{where}, column {header[n].strip()[:80]!r}: {_RENAME}")
    return columns


def _check_cells(where: str, header: list[str], cells: list[str], columns: dict[str, int]) -> None:
    """Raise SettingsError for a row whose length does not match the header, and for NUL characters."""
    for n, cell in enumerate(cells):
        if "\0" in cell:
            name = header[n].strip() if n < len(header) else str(n + 1)
            raise SettingsError(
                f"{where}, column {name!r}: a NUL character. Remove it, or export the file as UTF-8 where it is UTF-16."
            )
    advice = "Put cells with a separator or a quotation mark in quotation marks."
    if any(cells[len(header) :]):
        extra = next(n for n in range(len(header), len(cells)) if cells[n])
        raise SettingsError(
            f"{where}, column {extra + 1}: {cells[extra][:80]!r} is in no column, as the header has {len(header)}. "
            f"{advice}"
        )
    missing = [n for n in columns.values() if n >= len(cells)]
    if missing:
        raise SettingsError(
            f"{where}, column {header[min(missing)].strip()!r}: no such cell. The row has {len(cells)} cells, and the "
            f"header {len(header)}. {advice}"
        )


def _check_unread(where: str, header: list[str], cells: list[str], columns: dict[str, int]) -> None:
    """Raise SettingsError for a status in a column that is not read: its name may be translated."""
    for n, cell in enumerate(cells[: len(header)]):
        if FOR_SALE["status"].get(cell.lower()) and n not in columns.values():
            raise SettingsError(f"{where}, column {header[n].strip()[:80]!r}: {cell!r}. {_RENAME}")


def collections(of: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    """Yield a collection per type and per tag of the products. Spellings with the same slug share one."""
    found: dict[str, Record] = {}
    for product in of:
        member = _filled(id=product["id"], title=product.get("title"))  # the list of products has the other fields
        meta = product.get("meta", {})
        groups = [("type", meta["type"])] if "type" in meta else []
        for source, title in groups + [("tag", tag) for tag in meta.get("tags", [])]:
            empty: Record = {"title": title, "products": [], "meta": {"source": source}}
            record_id = f"{source}-{_slug(title)}"
            members = found.setdefault(record_id, {"id": record_id, **empty})["products"]
            if not members or members[-1] is not member:  # two of a product's tags may have the same slug
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


def _not_for_sale(path: Path, rows: list[Row]) -> str | None:
    """Return why the product is not for sale, or None. Raises SettingsError for contradictory rows."""
    reasons = []
    for column, words in FOR_SALE.items():
        said = {row[column]: row["line"] for row in reversed(rows) if column in row}
        if len(said) > 1:
            one, other = sorted(said, key=lambda word: said[word])[:2]
            raise SettingsError(
                f"{path}, line {said[other]}: {COLUMNS[column][0].capitalize()} of {rows[0]['handle'][:80]!r} is "
                f"{other!r}, and {one!r} on line {said[one]}. Give all rows of a product the same, or the first alone."
            )
        reasons += [words[word] for word in said]
    return next((reason for reason in reasons if reason), None)


def _product(rows: list[Row]) -> Record:
    merged = {name: cell for row in reversed(rows) for name, cell in row.items()}  # the first cell of each column
    images = [row for row in rows if "image" in row]
    # Those without a position come last, in the order of the file.
    images.sort(key=lambda row: int(n) if re.fullmatch("[0-9]{1,9}", n := row.get("position", "")) else 10**9)
    variants = [row for row in rows if row.keys() & {"option1", "sku", "price"}]  # other rows are images
    tags = (tag.strip() for tag in merged.get("tags", "").split(","))
    return _filled(
        id=merged["handle"],
        title=merged.get("title"),
        description=_plain_text(merged.get("body", "")),
        thumbnail=_filled(url=images[0]["image"], altText=images[0].get("alt")) if images else None,
        listPrice=variants[0].get("price") if variants else None,
        sku=variants[0].get("sku") if variants else None,
        meta=_filled(
            vendor=merged.get("vendor"),
            type=merged.get("type"),
            tags=[tag for tag in dict.fromkeys(tags) if tag],
            variants=[each for each in map(_variant, variants) if each],
        ),
    )


def _variant(row: Row) -> Record:
    title = " / ".join(row[option] for option in ("option1", "option2", "option3") if option in row)
    title = "" if title == "Default Title" else title  # Shopify's name for the only variant
    return _filled(title=title, sku=row.get("sku"), listPrice=row.get("price"))


def _filled(**members: Any) -> Record:
    return {name: value for name, value in members.items() if value not in (None, "", [], {})}


def _slug(title: str) -> str:
    """Return the title's words in lower case, joined by hyphens. Without words, return the characters' codes."""
    folded = unicodedata.normalize("NFKC", title).casefold()
    slug = "-".join(re.findall(r"\w+", folded)) or "-".join(f"{ord(character):x}" for character in folded)
    return slug[:250]  # with the prefix, an id has at most 255 characters


class _TextParser(HTMLParser):
    """A parser that collects text, with a line break per block."""

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
    """Return the text of HTML: a line per block, spaces collapsed, without scripts and styles."""
    parser = _TextParser()
    parser.feed(re.sub(r"<!\[[^>]*>?", "", html))  # html.parser may raise on Word's marked sections
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.parts).split("\n"))
    return "\n".join(line for line in lines if line)
