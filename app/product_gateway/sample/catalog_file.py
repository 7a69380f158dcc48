"""Catalogs from a file (JSON, JSON Lines or a Shopify product CSV export), or generated.

All records are validated against openapi/product-service.yaml.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import jsonschema_rs
import orjson

from product_gateway.errors import SettingsError
from product_gateway.model.syncs import EntityType
from product_gateway.openapi import documents
from product_gateway.sample import shopify_csv

SAMPLE = Path(__file__).with_name("sample_catalog.json")

NOTHING: Mapping[str, int] = MappingProxyType({})
_SAVE_AS_CSV = "Open it in the spreadsheet program, and save it as CSV in UTF-8."
_OTHER_FILES = {
    b"PK\x03\x04": ("an Excel workbook or a ZIP archive", _SAVE_AS_CSV),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", _SAVE_AS_CSV),
    b"\x1f\x8b": ("compressed with gzip", "Decompress it."),
}
_ENCODINGS = [  # by a byte order mark, or by the zeros around the first character
    (re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff"), "UTF-32"),
    (re.compile(rb"\xff\xfe|\xfe\xff"), "UTF-16"),
    (re.compile(rb"[^\0]\0\0\0"), "UTF-32-LE"),
    (re.compile(rb"\0\0\0[^\0]"), "UTF-32-BE"),
    (re.compile(rb"[^\0]\0"), "UTF-16-LE"),
    (re.compile(rb"\0[^\0]"), "UTF-16-BE"),
]

Record = dict[str, Any]
Located = tuple[str, Any]  # a place in the file, for messages, and the value there


class Catalog(Protocol):
    """Products and collections in a fixed order. Records are shared: never change one."""

    left_out: Mapping[str, int] = NOTHING
    """The number of products left out, by reason, such as draft or archived."""

    def count(self, entity_type: EntityType) -> int:
        """Return the number of records."""

    def record(self, entity_type: EntityType, index: int) -> Record:
        """Return the record at an index. Raises IndexError."""

    def index(self, entity_type: EntityType, record_id: str) -> int | None:
        """Return the index of the record with this id, or None."""

    def find(self, entity_type: EntityType, record_id: str) -> Record | None:
        index = self.index(entity_type, record_id)
        return None if index is None else self.record(entity_type, index)

    def summary(self) -> str:
        count = self.count(EntityType.PRODUCT)
        text = f"{count} product{'' if count == 1 else 's'}"
        if not self.left_out:
            return text
        reasons = list(self.left_out) if len(self.left_out) == 1 else [f"{n} {why}" for why, n in self.left_out.items()]
        return f"{text}, {sum(self.left_out.values())} left out ({', '.join(reasons)})"


def read(path: Path, *, currency: str = "GBP") -> Catalog:
    """Read a catalog file. Its suffix is .json, .jsonl, .ndjson or .csv.

    JSON has the form `{"products": [...], "collections": [...]}` or is an array of products. JSON Lines has one product
    per line. CSV is a Shopify product export with prices in major units of `currency` (ISO 4217).
    Raises SettingsError for an unreadable file and for invalid records.
    """
    if not re.fullmatch("[A-Z]{3}", currency):
        raise SettingsError(f"{currency!r} is not a currency code. Use ISO 4217, such as GBP.")
    products: Iterable[Located]
    collections: Iterable[Located] = ()
    left_out: Mapping[str, int] = {}
    match path.suffix.lower():
        case ".csv":
            products, left_out = shopify_csv.read(path, _lines(path), currency)
            collections = shopify_csv.collections(product for _, product in products)
        case ".json":
            products, collections = _json(path)
        case ".jsonl" | ".ndjson":
            lines = ((n, line) for n, line in enumerate(_lines(path), 1) if line.strip())
            products = ((f"line {n}", _parsed(path, line.rstrip(), n)) for n, line in lines)
        case _:
            raise SettingsError(f"{path}: rename it to what it is: .csv, .json, .jsonl or .ndjson.")
    located = {EntityType.PRODUCT: products, EntityType.COLLECTION: collections}
    return ListedCatalog({each: _checked(path, each, found) for each, found in located.items()}, left_out)


class ListedCatalog(Catalog):
    """A catalog in memory, from records by id."""

    def __init__(self, by_id: Mapping[EntityType, dict[str, Record]], left_out: Mapping[str, int] = NOTHING) -> None:
        self.left_out = left_out
        self._records = {entity_type: list(each.values()) for entity_type, each in by_id.items()}
        self._indices = {entity_type: {id_: n for n, id_ in enumerate(each)} for entity_type, each in by_id.items()}

    def count(self, entity_type: EntityType) -> int:
        return len(self._records[entity_type])

    def record(self, entity_type: EntityType, index: int) -> Record:
        return self._records[entity_type][index]

    def index(self, entity_type: EntityType, record_id: str) -> int | None:
        return self._indices[entity_type].get(record_id)


@dataclass(frozen=True)
class GeneratedCatalog(Catalog):
    """A catalog of this many products, with a collection for every hundred. It computes record n from n."""

    products: int

    def count(self, entity_type: EntityType) -> int:
        return self.products if entity_type is EntityType.PRODUCT else -(-self.products // 100)

    def record(self, entity_type: EntityType, index: int) -> Record:
        if not 0 <= index < self.count(entity_type):
            raise IndexError(index)
        number, created = index + 1, datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=index)
        times = {"createdAt": created.isoformat(), "updatedAt": (created + timedelta(days=30)).isoformat()}
        if entity_type is EntityType.PRODUCT:
            title = f"Sample product {number}"
            return {
                "id": f"product-{number:07}",
                "title": title,
                "description": f"Product {number} of a made-up catalog, there to see how a sync fares. " * 4,
                "thumbnail": {"url": f"https://images.example.com/product-{number:07}.jpg", "altText": title},
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
    """Return the file's lines with their ends (LF, CR LF or CR), without byte order marks.

    The encoding is UTF-8, or UTF-16 or UTF-32, as Excel's "Unicode text" is.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}). Give the path of a file.") from None
    for start, (what, advice) in _OTHER_FILES.items():
        if content.startswith(start):
            raise SettingsError(f"{path}: this is {what}. {advice}")
    encoding = next((name for start, name in _ENCODINGS if start.match(content)), "UTF-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        before = io.StringIO(content[: error.start].decode(encoding, "ignore") + "x", newline="")
        byte = content[error.start]
        raise SettingsError(
            f"{path}, line {len(list(before))}: byte 0x{byte:02X} is not {encoding}. Save or export the file as UTF-8."
        ) from None
    return io.StringIO(text.lstrip("\ufeff"), newline="")  # keeps all three line ends


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


def _checked(path: Path, entity_type: EntityType, located: Iterable[Located]) -> dict[str, Record]:
    """Return the records by id, in order. Raises SettingsError for an invalid record or a repeated id."""
    by_id: dict[str, Record] = {}
    name = entity_type.capitalize()  # of the schema
    schema = documents.json_schema(documents.load(documents.PRODUCT_SERVICE), name)
    validator = jsonschema_rs.Draft4Validator(schema)
    for where, record in located:
        if not validator.is_valid(record):
            fault = next(iter(validator.iter_errors(record)))
            pointer = "".join(f"/{part}" for part in fault.instance_path)
            # The validator's message starts with the whole value.
            text = fault.message if len(fault.message) <= 300 else "…" + fault.message[-200:]
            known = f" ({record['id']!r:.80})" if isinstance(record, dict) and "id" in record else ""
            raise SettingsError(
                f"{path}, {where}{known}: {pointer and pointer + ': '}{text}. Correct it; the schema {name} in "
                f"{documents.PRODUCT_SERVICE} says what fits."
            )
        try:
            orjson.dumps([[record]])  # nested as deeply as in a page
        except TypeError:
            raise SettingsError(
                f"{path}, {where} ({record['id']!r:.80}): its objects and arrays are nested too deeply to be sent. "
                "Make it flatter."
            ) from None
        if record["id"] in by_id:
            raise SettingsError(
                f"{path}, {where}: an earlier {entity_type.lower()} has the id {record['id']!r} too. "
                "Give each an id of its own, or remove one."
            )
        by_id[record["id"]] = record
    return by_id
