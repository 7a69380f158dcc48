"""Check results: passed, failed with findings, or not checked with a reason. They never contain the token."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from product_gateway.check_service.recording_client import Exchange
from product_gateway.check_service.rules import RULES, Rule, Severity
from product_gateway.model.syncs import Counts, EntityType
from product_gateway.telemetry.logs import SHORTEST_SECRET
from product_gateway.telemetry.visible_text import visible

FINDINGS_KEPT = 3  # for each rule and list; further ones are only counted
MAX_TEXT = 600

Subject = EntityType | None  # a list, or the service as a whole


class Result(StrEnum):
    """The state of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_REACHED = "not reached"


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

    def __init__(self, token: str, subjects: Iterable[EntityType]) -> None:
        secrets = {token, quote(token, safe="")} if len(token) >= SHORTEST_SECRET else set()
        self._secrets = sorted(secrets, key=len, reverse=True)
        self.subjects = tuple(subjects)
        self._outcomes: dict[tuple[str, Subject], Outcome] = {}
        self.notes: list[str] = []
        self.stopped = False
        self.measurements: list[Measurement] = []
        self.dry_runs: list[DryRunResult] = []

    def failed(self, code: str, subject: Subject, seen: str, curl: str | None = None) -> None:
        """Record a finding against the rule."""
        before = self._outcomes.get((code, subject))
        findings = before.findings if before is not None else ()
        if len(findings) < FINDINGS_KEPT:
            findings += (Finding(self.plain(seen), None if curl is None else self._without_token(curl)),)
        count = 1 + (before.count if before is not None else 0)
        self._outcomes[code, subject] = Outcome(RULES[code], subject, Result.FAILED, "", findings, count)

    def passed(self, subject: Subject, *codes: str) -> None:
        """Record that the rules hold, except for those that failed."""
        for code in codes:
            before = self._outcomes.get((code, subject))
            if before is None or before.result is Result.PASSED:
                self._outcomes[code, subject] = Outcome(RULES[code], subject, Result.PASSED)

    def skipped(self, subject: Subject, reason: str, *codes: str) -> None:
        """Record that the service has no data to check these rules with."""
        self._not_checked(Result.SKIPPED, subject, reason, codes)

    def not_reached(self, subject: Subject, reason: str, *codes: str) -> None:
        """Record what prevented the checks of these rules, except for those that have an outcome."""
        self._not_checked(Result.NOT_REACHED, subject, reason, codes)

    def _not_checked(self, result: Result, subject: Subject, reason: str, codes: Iterable[str]) -> None:
        for code in codes:
            self._outcomes.setdefault((code, subject), Outcome(RULES[code], subject, result, self.plain(reason)))

    def note(self, text: str) -> None:
        """Add a line to the head of the report."""
        self.notes.append(self.plain(text))

    def outcomes(self) -> list[Outcome]:
        """Return all outcomes, list by list."""
        order = {code: number for number, code in enumerate(RULES)}
        subjects = (*self.subjects, None)
        return sorted(self._outcomes.values(), key=lambda each: (subjects.index(each.subject), order[each.rule.code]))

    def failures(self, severity: Severity) -> list[Outcome]:
        """Return the failed outcomes of this severity."""
        return [each for each in self.outcomes() if each.result is Result.FAILED and each.rule.severity is severity]

    def plain(self, text: str) -> str:
        """Return one line without the token and without control characters, shortened if necessary."""
        text = visible(self._without_token(text))
        return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"

    def _without_token(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "$TOKEN")
        return text


@dataclass(frozen=True, slots=True)
class ListResults:
    """The part of the results that is about one list."""

    all: CheckResults
    entity_type: EntityType

    def failed(self, code: str, seen: str, exchange: Exchange | None = None) -> None:
        """Record a finding against the rule, with the exchange that shows it."""
        self.all.failed(code, self.entity_type, seen, None if exchange is None else exchange.curl)

    def passed(self, *codes: str) -> None:
        """Record that the rules hold, except for those that failed."""
        self.all.passed(self.entity_type, *codes)

    def skipped(self, reason: str, *codes: str) -> None:
        """Record that the list has no data to check these rules with."""
        self.all.skipped(self.entity_type, reason, *codes)

    def not_reached(self, reason: str, *codes: str) -> None:
        """Record what prevented the checks of these rules, except for those that have an outcome."""
        self.all.not_reached(self.entity_type, reason, *codes)
