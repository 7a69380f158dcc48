"""Hypothesis strategies for pages of merchants: most of them valid, the others nearly valid."""

import json
from typing import Any

from hypothesis import strategies as st

from product_gateway.model.syncs import EntityType

Anything = st.SearchStrategy[Any]

PLAIN_TIMES = ["2024-02-29T08:30:00Z", "2024-03-01T08:30:00", "2024-03-01T08:30:00.123Z", "2024-03-01T08:30:00.5+02:00"]
ODD_TIMES = """
2023-02-29T08:30:00Z 2024-03-01t08:30:00z 2024-03-01T08:30Z 2024-03-01 20240301T083000Z 2024-03-01T08:30:00.000000Z
2024-03-01T08:30:00.1234567Z 2024-03-01T23:59:59.9999999Z 2024-03-01T08:30:00+00:00 2024-03-01T08:30:00-00:00
2024-03-01T08:30:00+0530 2024-03-01T08:30:00+23:59 2024-03-01T08:30:00+24:00 2024-03-01T24:00:00Z 2024-03-01T08:30:60Z
0001-01-01T00:00:00Z 0001-01-01T00:00:00+01:00 0000-01-01T00:00:00Z 9999-12-31T23:59:59-01:00 2024-W09-5T08:30:00Z
2024-03-01T08:30:00,5Z yesterday 2024-03-01T08:30:00.00000000000000000000000000000000000000000000Z
""".split()  # noqa: SIM905 - as a list it has thirty lines
ODD_TEXTS = ["", "\n", "a\n", "\x7f", "x" * 300, '"thumbnail":{}', '","meta":{}', "\\", "2024-03-01 08:30:00Z\n"]
ODD_NUMBERS = [
    1250.0,
    0.0,
    9007199254740992.0,
    -0.0,
    -1,
    2**53,
    2**63,
    -(2**63),
    2**64,
    10**30,
    5e-324,
    1e-7,
    1e15,
    1e16,
    1e300,
]

names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
texts = st.text(max_size=40) | st.sampled_from(ODD_TEXTS)
numbers = st.integers(0, 2**53 - 1) | st.sampled_from(ODD_NUMBERS) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.none() | st.booleans() | numbers | texts
deep = st.recursive(plain, lambda each: st.lists(each, max_size=3) | st.dictionaries(texts, each, max_size=3))


def mostly(good: Anything, other: Anything = plain) -> Anything:
    """Generate valid values, and sometimes another one."""
    return st.integers(0, 59).flatmap(lambda number: good if number else other)


def records(**more: Anything) -> Anything:
    """Generate the fields that both kinds of records share, an unknown field, and `more`."""
    known: dict[str, Anything] = {
        "description": mostly(texts),
        "createdAt": mostly(st.sampled_from(PLAIN_TIMES), st.sampled_from(ODD_TIMES)),
        "updatedAt": mostly(st.sampled_from(PLAIN_TIMES), texts),
        "meta": mostly(st.dictionaries(texts, plain | st.lists(plain, max_size=2), max_size=3), deep),
        "productCount": deep,
    }
    required = {"id": mostly(names | st.just("twice"), texts), "title": mostly(texts)}
    return st.fixed_dictionaries(required, optional=known | more)


thumbnails = st.fixed_dictionaries({}, optional={"url": mostly(texts), "altText": mostly(st.none()), "width": deep})
products = records(
    thumbnail=mostly(thumbnails), listPrice=mostly(st.integers(0, 2**53 - 1), numbers), sku=mostly(texts)
)
collections = records(products=mostly(st.lists(products, max_size=3)), thumbnail=deep)
paginations = st.fixed_dictionaries(
    {"moreResults": mostly(st.booleans())},
    optional={"totalNumber": deep, "cursor": mostly(names), "nextCursor": mostly(names, texts), "page": deep},
)


@st.composite
def pages(draw: st.DrawFn) -> tuple[EntityType, bytes]:
    """Generate valid pages with any order of members, white space and escapes."""
    kind = draw(st.sampled_from(EntityType))
    items = products if kind is EntityType.PRODUCT else collections
    body = draw(st.fixed_dictionaries({"items": st.lists(items, max_size=3), "pagination": paginations}))
    for each in (body, *body["items"]):
        for name in draw(st.permutations(list(each))):
            each[name] = each.pop(name)
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n\t", " : ")]))
    return kind, json.dumps(body, ensure_ascii=draw(st.booleans()), separators=separators).encode()


@st.composite
def damaged_pages(draw: st.DrawFn) -> tuple[EntityType, bytes]:
    """Generate valid pages with a few bytes changed, added or removed."""
    kind, page = draw(st.sampled_from([(EntityType.PRODUCT, PRODUCT_PAGE), (EntityType.COLLECTION, COLLECTION_PAGE)]))
    found = bytearray(json.dumps(page, ensure_ascii=draw(st.booleans())).encode())
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(found)))
        length = draw(st.integers(0, 3))
        found[start : start + length] = draw(st.sampled_from(SPLINTERS) | st.binary(max_size=2))
    return kind, bytes(found)


PRODUCT = {
    "id": "hat ☃",
    "title": "Hat\u0001\n",
    "description": "",
    "thumbnail": {"url": "https://cdn.example/hat.jpg", "width": 3},
    "listPrice": 5000,
    "sku": None,
    "createdAt": "2021-01-01T00:00:00Z",
    "meta": {"a": [1.5, {"b": True}]},
    "vendor": [{}],
}
COLLECTION = {
    "id": "men",
    "title": "Men",
    "products": [PRODUCT, {"id": "b", "title": "B"}],
    "updatedAt": PLAIN_TIMES[2],
}
PRODUCT_PAGE = {"items": [PRODUCT], "pagination": {"moreResults": True, "nextCursor": "x", "totalNumber": 17}}
COLLECTION_PAGE = {"items": [COLLECTION], "pagination": {"moreResults": False}}
SPLINTERS = [
    b"\\", b'"', b"0", b"e", b"-", b".", b"null", b"true", b",", b"{}", b"[]", b"\\u0000", b"\\ud800", b"\\u007f",
    b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x7f", b"\n", b'"id":"z",', b'"meta":null,', b'"thumbnail":{},',
    b"\\udc00", b"1e999", b"9" * 30, b".0",
]  # fmt: skip

UNUSABLE = [
    rb'"\ud83d"', rb'"a\udc00"', rb'{"\ud800": 1}', b"1e400", b"-1e400", b"9" * 30, b"9" * 5000, b"[1e999]",
    b"[" * 400 + b"]" * 400, b"[" * 5000 + b"]" * 5000, b'{"a":' * 2000 + b"1" + b"}" * 2000,
]  # fmt: skip
"""Valid JSON by its grammar, and nothing that can be kept."""


@st.composite
def pages_with_unusable_values(draw: st.DrawFn) -> tuple[EntityType, bytes, int]:
    """Generate records of which some have an unstorable value in a known or unknown field."""
    kind = draw(st.sampled_from(EntityType))
    number = draw(st.integers(1, 5))
    page: dict[str, Any] = {"items": [], "pagination": {"moreResults": False}}
    fields = ["id", "title", "listPrice", "thumbnail", "meta", "vendor", "products", "createdAt"]
    for each in range(number):
        page["items"].append({"id": f"r{each}", "title": "Hat", "meta": {"a": 1}})
        if draw(st.booleans()):
            value = draw(st.sampled_from(["@", {"url": "@"}, {"a": ["@"]}, [{"id": "p", "title": "P", "vendor": "@"}]]))
            page["items"][-1][draw(st.sampled_from(fields))] = value
    content = json.dumps(page).encode()
    while b'"@"' in content:
        content = content.replace(b'"@"', draw(st.sampled_from(UNUSABLE)), 1)
    return kind, content, number
