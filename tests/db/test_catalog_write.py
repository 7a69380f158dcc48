"""The comparison of a page with the catalog."""

from dataclasses import dataclass

import pytest

from product_gateway.db.catalog_write import Changes, Row, classify

OLD = Row("a", 8, '{"a":1}', None, b"old")


@dataclass(frozen=True)
class Case:
    """The stored row, the sent one, and the kind of change."""

    stored: Row | None
    sent: Row
    changes: Changes


@pytest.mark.parametrize(
    "case",
    [
        Case(None, OLD, Changes(["a"], [], [])),
        Case(OLD, OLD, Changes([], [], ["a"])),
        Case(OLD, OLD._replace(digest=b"new"), Changes([], [], ["a"])),
        Case(OLD, OLD._replace(digest=b"new", document='{"a":2}'), Changes([], ["a"], [])),
        Case(OLD, OLD._replace(digest=b"new", product_ids='["b"]'), Changes([], ["a"], [])),
    ],
    ids=["new", "same bytes", "other bytes of the same record", "other document", "other products"],
)
def test_a_record_is_new_changed_or_unchanged(case: Case) -> None:
    """A digest that differs does not make a change: the stored form decides."""
    digests = {} if case.stored is None else {"a": case.stored.digest}
    differing = case.stored is not None and case.stored.digest != case.sent.digest
    stored = {"a": case.stored} if differing and case.stored else {}
    assert classify({"a": case.sent}, digests, stored) == case.changes


def test_each_record_of_a_page_is_classified_by_itself() -> None:
    """The ids keep the order of the page."""
    rows = {each: OLD._replace(record_id=each) for each in "cab"}
    assert classify(rows, {"a": b"old"}, {}) == Changes(["c", "b"], [], ["a"])
