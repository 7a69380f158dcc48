"""What a distributed planner (Citus) refuses of a statement, by strict rules about its text.

There is no Citus here. The messages are those of Citus 13, and the rules refuse more than it does: they know a
statement of one shard only by a value for each table's `merchant`, in the same SELECT.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from product_gateway.db.tables import metadata

DISTRIBUTED = {name for name, table in metadata.tables.items() if "merchant" in table.columns}
OTHERS = set(metadata.tables) - DISTRIBUTED
VOLATILE = re.compile(
    r"\b(clock_timestamp|timeofday|random|gen_random_uuid|uuid_generate_v4|nextval|setval|pg_(try_)?advisory\w*)\s*\("
)
STABLE = r"(?:statement_timestamp|transaction_timestamp|now|current_setting|to_char|json_agg|age)\s*\(|make_interval\("
AGGREGATE = r"\b(?:count|min|max|sum|avg|json_agg|array_agg)\("
VALUE = r"%\(\w+\)"


@dataclass
class Block:
    """A SELECT, INSERT, UPDATE or DELETE without its subqueries, which are blocks of their own, `#n` in its text."""

    text: str = ""
    outer: "Block | None" = None
    inner: list["Block"] = field(default_factory=list)

    def all(self) -> Iterator["Block"]:
        yield self
        for each in self.inner:
            yield from each.all()

    @property
    def tables(self) -> dict[str, str]:
        """The tables by alias."""
        found = re.findall(r"(?:FROM|JOIN|UPDATE|INTO) (\w+)(?: AS (\w+)| ([a-z]\w*))?", self.text)
        return {alias or bare or name: name for name, alias, bare in found if name in metadata.tables}

    @property
    def distributed(self) -> list[str]:
        return [alias for alias, name in self.tables.items() if name in DISTRIBUTED]

    @property
    def recurring(self) -> bool:
        """Whether the FROM has rows that are the same for each shard: a function, a subquery or a CTE."""
        return bool(re.search(r"(?:FROM|JOIN) (?:\w+\(|#)", self.text)) or any(
            name not in metadata.tables for name in re.findall(r"(?:FROM|JOIN) (\w+)\b(?!\()", self.text)
        )

    @property
    def names_one_merchant(self) -> bool:
        """Whether each distributed table has a value for its merchant, or the merchant of one that has."""
        if re.match(r"INSERT INTO", self.text):
            return inserts_one_merchant(self.text)
        known = {each for each in self.distributed if self._has(each, VALUE)}
        while more := {a for a in self.distributed if a not in known and any(self._same(a, b) for b in known)}:
            known |= more
        return known == set(self.distributed)

    def _has(self, alias: str, value: str) -> bool:
        prefix = rf"{alias}\." if len(self.tables) > 1 else rf"(?:{alias}\.|(?<![\w.]))"
        return bool(re.search(rf"{prefix}merchant = {value}", self.text))

    def _same(self, alias: str, other: str) -> bool:
        both = (rf"\b{alias}\.merchant = {other}\.merchant", rf"\b{other}\.merchant = {alias}\.merchant")
        return any(re.search(each, self.text) for each in both)


def inserts_one_merchant(text: str) -> bool:
    """Whether the merchant comes from a value, or from the merchant of the table that is read."""
    found = re.match(rf"INSERT INTO (\w+) \((\w+)[^)]*\) (?:VALUES \(|SELECT )({VALUE}|\w+\.merchant\b)", text)
    return found is not None and (found[1] not in DISTRIBUTED or found[2] == "merchant")


def parsed(sql: str) -> Block:
    """Split a statement into blocks."""
    top = Block()
    stack: list[tuple[Block, bool]] = [(top, False)]
    for part in re.findall(r"\(|\)|[^()]+", sql):
        block = stack[-1][0]
        if part == ")":
            _, is_block = stack.pop()
            stack[-1][0].text += "" if is_block else ")"
        elif part == "(":
            stack.append((block, False))
            block.text += "("
        elif re.match(r"(SELECT|INSERT|UPDATE|DELETE) ", part) and block.text.endswith("("):
            block.text = block.text[:-1] + f"#{len(block.inner)}"
            made = Block(part, block)
            block.inner.append(made)
            stack[-1] = (made, True)
        else:
            block.text += part
    return top


def is_of_one_merchant(sql: str) -> bool:
    """Whether the statement goes to one shard as a whole."""
    return all(each.names_one_merchant for each in parsed(sql).all())


def refusals(sql: str) -> list[str]:
    """Return what Citus would say to the statement; nothing if it would run it."""
    top = parsed(sql)
    blocks = list(top.all())
    if not any(each.tables for each in blocks):
        return []
    is_router = is_of_one_merchant(sql)
    found = [message for each in blocks for message in _of_block(each, is_router=is_router)]
    if VOLATILE.search(sql):
        found.append("functions used in UPDATE queries on distributed tables must not be VOLATILE")
    if "RECURSIVE" in sql and not is_router:
        found.append("recursive CTEs are not supported in distributed queries")
    if not is_router and re.search(r"\b(EXCEPT|INTERSECT)\b", sql):
        found.append("cannot push down this subquery: Intersect and Except are currently unsupported")
    return found


def _of_block(block: Block, *, is_router: bool) -> Iterator[str]:
    text = block.text
    if re.search(r"\bFOR (NO KEY )?(UPDATE|SHARE|KEY SHARE)\b", text) and (
        not is_router or any(name in OTHERS for name in block.tables.values())
    ):
        yield "could not run distributed query with FOR UPDATE/SHARE commands"
    if re.match(r"(INSERT|UPDATE|DELETE)\b", text):
        yield from _of_modification(block)
    if is_router:
        return
    if text.startswith("INSERT"):
        return
    is_grouped = "GROUP BY" in text or re.search(AGGREGATE, text)
    if is_grouped and block.distributed and re.search(STABLE, text.partition(" FROM ")[0]):
        yield "a function that is not IMMUTABLE beside an aggregate of several shards"
    for each in block.distributed:
        others = [other for other in block.distributed if other != each]
        if others and not any(block._same(each, other) for other in others) and not _from_rows(block, each):
            yield "complex joins are only supported when all distributed tables are co-located and joined on their keys"
        if re.search(rf"LEFT OUTER JOIN {block.tables[each]}\b", text) and block.recurring:
            if not re.search(rf"\b{each}\.merchant = ANY \(", text):
                yield f"{each} would be read as a whole: it is the inner side of an outer join with rows of the query"
        elif block.recurring and not _from_rows(block, each):
            yield "complex joins are only supported when all distributed tables are co-located and joined on their keys"
    yield from _of_correlation(block)


def _from_rows(block: Block, alias: str) -> bool:
    """Whether the table is joined to the rows of the query by its merchant."""
    return bool(re.search(rf"\b{alias}\.merchant = (?:anon_\d+|sent)\.\w*merchant", block.text))


def _of_correlation(block: Block) -> Iterator[str]:
    outer = block.outer
    names = set(outer.tables) if outer else set()
    if outer:
        names |= set(re.findall(r"(?:AS|FROM|JOIN) (\w+)", outer.text))
    used = set(re.findall(r"\b(\w+)\.\w+", block.text)) - set(block.tables) - set(re.findall(r"AS (\w+)", block.text))
    if outer is None or not used & names or not block.tables:
        return
    if outer.recurring or not outer.distributed:
        yield "correlated subqueries are not supported when the FROM clause contains a CTE, a subquery or a function"
    if re.search(r"\b(LIMIT|OFFSET)\b", block.text) or re.search(AGGREGATE, block.text):
        yield "cannot push down this subquery: Limit in subquery, or an aggregate, references a column of another query"
    if not any(
        re.search(rf"\b{a}\.merchant = {b}\.merchant", block.text) for a in block.distributed for b in outer.distributed
    ):
        yield "complex joins are only supported when all distributed tables are co-located and joined on their keys"


def _of_modification(block: Block) -> Iterator[str]:
    text = block.text
    target = re.match(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)", text)
    if target is None or target[1] not in DISTRIBUTED:
        if block.distributed:
            yield "cannot perform select on a distributed table and modify a reference table"
        return
    if not block.names_one_merchant:
        yield "a modification of several merchants"
    values, _, returned = text.partition(" RETURNING ")
    if re.search(STABLE, returned):
        yield "non-IMMUTABLE functions are not allowed in the RETURNING clause"
    if any(re.search(STABLE, each) for each in _calls(values, "coalesce") + _cases(values)):
        yield "non-IMMUTABLE functions are not allowed in CASE or COALESCE statements"
    is_update = not text.startswith("INSERT")
    if is_update and re.search(r"(?:\b\w+\.\w+|(?<!\()\)) [+-] make_interval\(|make_interval\(secs => \w+\.", values):
        yield "STABLE functions used in UPDATE queries cannot be called with column references"
    if re.search(STABLE, values.partition(" DO UPDATE SET ")[2]):
        yield "functions used in the DO UPDATE SET clause of INSERTs on distributed tables must be marked IMMUTABLE"
    if re.search(r"\bSET (?:.*, )?merchant ?=", values):
        yield "modifying the partition value of rows is not allowed"


def _calls(text: str, name: str) -> list[str]:
    """Return the arguments of each call of the function."""
    found = []
    for each in re.finditer(rf"\b{name}\(", text):
        depth, at = 1, each.end()
        while depth and at < len(text):
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            at += 1
        found.append(text[each.end() : at])
    return found


def _cases(text: str) -> list[str]:
    return re.findall(r"\bCASE\b.*?\bEND\b", text)
