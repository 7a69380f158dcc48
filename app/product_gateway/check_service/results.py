"""What came out of each check: passed, failed with what was seen, or not checked and why. Holds no token."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from product_gateway.check_service.rules import RULES, Rule, Severity
from product_gateway.model.syncs import Counts, EntityType
from product_gateway.telemetry.logs import SHORTEST_SECRET
from product_gateway.telemetry.visible_text import visible

FINDINGS_KEPT = 3  # of each rule and list; the others are counted
LONGEST_TEXT = 600

Subject = EntityType | None  # a list, or the service as a whole


class Result(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen where a rule does not hold, and the command that shows it again (None: no request does)."""

    seen: str
    curl: str | None


@dataclass(slots=True)
class Outcome:
    """How a rule's check ended for a subject. `count` is the number of findings, of which the first are kept."""

    rule: Rule
    subject: Subject
    result: Result
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """How long a page of so many records took, in seconds, and its size in bytes."""

    subject: EntityType
    page_size: int
    records: int
    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """What a sync would do. `complete` is False where only the first pages were read; then nothing is deleted.

    `not_removed` records stay although the list lacks them, since it has records without a usable id.
    """

    subject: EntityType
    against: str
    counts: Counts
    not_removed: int
    samples: dict[str, tuple[str, ...]]
    complete: bool
    code: str | None


class CheckResults:
    """The outcomes of a run, in the order of the rules. Every text that goes in is freed of the token."""

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
        """The rule does not hold."""
        before = self._outcomes.get((code, subject))
        findings = before.findings if before is not None else ()
        if len(findings) < FINDINGS_KEPT:
            findings += (Finding(self.plain(seen), None if curl is None else self._without_token(curl)),)
        count = 1 + (before.count if before is not None else 0)
        self._outcomes[code, subject] = Outcome(RULES[code], subject, Result.FAILED, "", findings, count)

    def passed(self, subject: Subject, *codes: str) -> None:
        """The rules hold, unless they are known not to."""
        for code in codes:
            before = self._outcomes.get((code, subject))
            if before is None or before.result is Result.PASSED:
                self._outcomes[code, subject] = Outcome(RULES[code], subject, Result.PASSED)

    def skipped(self, subject: Subject, reason: str, *codes: str) -> None:
        """There was nothing to check the rules with."""
        for code in codes:
            outcome = Outcome(RULES[code], subject, Result.SKIPPED, self.plain(reason))
            self._outcomes.setdefault((code, subject), outcome)

    def not_reached(self, subject: Subject, reason: str, *codes: str) -> None:
        """What stands in the way of checking the rules; of all that have no outcome, where none is named."""
        for code in codes or RULES:
            outcome = Outcome(RULES[code], subject, Result.NOT_REACHED, self.plain(reason))
            self._outcomes.setdefault((code, subject), outcome)

    def holds(self, code: str, subject: Subject) -> bool:
        """Whether the rule is not known to be broken."""
        outcome = self._outcomes.get((code, subject))
        return outcome is None or outcome.result is not Result.FAILED

    def note(self, text: str) -> None:
        """Something that the reader should know, and that is no finding."""
        self.notes.append(self.plain(text))

    def outcomes(self) -> list[Outcome]:
        """All of them, list by list."""
        order = {code: number for number, code in enumerate(RULES)}
        subjects = (*self.subjects, None)
        return sorted(self._outcomes.values(), key=lambda each: (subjects.index(each.subject), order[each.rule.code]))

    def failures(self, severity: Severity) -> list[Outcome]:
        """Those of this severity that failed."""
        return [each for each in self.outcomes() if each.result is Result.FAILED and each.rule.severity is severity]

    def plain(self, text: str) -> str:
        """In one line that no terminal takes for a command: what a service sends may hold anything."""
        text = visible(self._without_token(text))
        return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"

    def _without_token(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "$TOKEN")
        return text
