"""Check results: passed, failed with findings, or not checked with a reason. They never contain the token."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar
from urllib.parse import quote

from product_gateway.check_service.recording_client import CheckFailed
from product_gateway.check_service.rules import SERVICES, Kit, Rule, Severity
from product_gateway.model.syncs import Counts, EntityType
from product_gateway.telemetry.logs import SHORTEST_SECRET
from product_gateway.telemetry.visible_text import visible

FINDINGS_KEPT = 3  # for each rule and list; further ones, and repeated ones, are only counted
MAX_TEXT = 600

Subject = EntityType | None  # a list, or the service as a whole
S = TypeVar("S", bound=Subject)


class Result(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_REACHED = "not reached"


class Repeatable(Protocol):
    """A request that a curl command repeats."""

    @property
    def curl(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """An observation that breaks a rule, and a curl command that reproduces it, if one request can."""

    seen: str
    curl: str | None


@dataclass(slots=True)
class Outcome:
    """The result of one rule for a subject. `count` is the number of all findings, `findings` has the first ones."""

    rule: Rule
    subject: Subject
    result: Result
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """The duration of one page request, and the size of the page."""

    subject: EntityType
    page_size: int
    records: int
    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """The expected result of a sync. `complete` is False if it read only the first pages, and deleted nothing.

    `not_removed` records stay although the list lacks them, because the list has records without a usable id.
    """

    subject: EntityType
    against: str
    counts: Counts
    not_removed: int
    samples: dict[str, tuple[str, ...]]
    complete: bool
    code: str | None


class CheckResults:
    """The outcomes of a run, in the order of the rules. The token is removed from all texts."""

    def __init__(self, token: str, subjects: Iterable[EntityType], kit: Kit = SERVICES) -> None:
        self.kit = kit
        secrets = {token, quote(token, safe="")} if len(token) >= SHORTEST_SECRET else set()
        self._secrets = sorted(secrets, key=len, reverse=True)
        self.subjects = tuple(subjects)
        self.by_rule: dict[tuple[str, Subject], Outcome] = {}
        self.notes: list[str] = []
        self.stopped = False
        self.measurements: list[Measurement] = []
        self.dry_runs: list[DryRunResult] = []

    def note(self, text: str) -> None:
        """Add a line to the head of the report."""
        self.notes.append(self.plain(text))

    def outcomes(self) -> list[Outcome]:
        """Return all outcomes, list by list."""
        order = {code: number for number, code in enumerate(self.kit.rules)}
        subjects = (*self.subjects, None)
        return sorted(self.by_rule.values(), key=lambda each: (subjects.index(each.subject), order[each.rule.code]))

    def failures(self, severity: Severity) -> list[Outcome]:
        return [each for each in self.outcomes() if each.result is Result.FAILED and each.rule.severity is severity]

    def name(self, subject: Subject) -> str:
        """Return the subject as reports name it."""
        return self.kit.whole if subject is None else f"{subject.lower()}s"

    def plain(self, text: str) -> str:
        """Return one line without the token and without control characters, shortened if necessary."""
        text = visible(self.without_token(text))
        return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"

    def without_token(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "$TOKEN")
        return text


@dataclass(frozen=True)
class SubjectResults(Generic[S]):
    """The part of the results that is about one subject."""

    all: CheckResults
    subject: S

    def failed(self, code: str, seen: str, exchange: Repeatable | None = None) -> None:
        """Record a finding against the rule, with the exchange that shows it."""
        outcome = self.all.by_rule.get((code, self.subject))
        if outcome is None or outcome.result is not Result.FAILED:
            outcome = self.all.by_rule[code, self.subject] = self._outcome(code, Result.FAILED)
        outcome.count += 1
        if len(outcome.findings) < FINDINGS_KEPT and self.all.plain(seen) not in {
            each.seen for each in outcome.findings
        }:
            curl = None if exchange is None else self.all.without_token(exchange.curl)
            outcome.findings += (Finding(self.all.plain(seen), curl),)

    def passed(self, *codes: str) -> None:
        """Record that the rules hold, except for those that failed or were not checked."""
        for code in codes:
            self.all.by_rule.setdefault((code, self.subject), self._outcome(code, Result.PASSED))

    def not_checked(self, reason: str, *codes: str, result: Result = Result.SKIPPED) -> None:
        """Record why these rules were not checked, except for those that have an outcome.

        SKIPPED: the service has no data to check them with. NOT_REACHED: a fault prevented the check.
        """
        for code in codes:
            outcome = self._outcome(code, result, self.all.plain(reason))
            self.all.by_rule.setdefault((code, self.subject), outcome)

    def _outcome(self, code: str, result: Result, reason: str = "") -> Outcome:
        return Outcome(self.all.kit.rules[code], self.subject, result, reason)

    @contextmanager
    def rule(self, code: str) -> Iterator[None]:
        """Check one rule: it holds unless the block records a finding or raises CheckFailed."""
        try:
            yield
        except CheckFailed as broken:
            self.failed(code, broken.detail, broken.exchange)
        self.passed(code)


ListResults = SubjectResults[EntityType]
