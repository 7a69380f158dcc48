"""The report on the console: findings, measurements, dry runs, skipped checks and a summary."""

import sys
from collections import Counter
from typing import TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from product_gateway.check_service.results import CheckResults, Outcome, Result, Subject
from product_gateway.check_service.rules import Severity
from product_gateway.client import formatting

COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.ADVICE: "cyan"}
PLAIN_WIDTH = 100


def show(results: CheckResults, url: str, seed: int | None, stream: TextIO | None = None) -> None:
    """Write the report, in colour only on a terminal without NO_COLOR (no-color.org)."""
    console = formatting.console(stream or sys.stdout, plain_width=PLAIN_WIDTH, soft_wrap=False)
    console.print(Text(f"{results.kit.title} {url}"), soft_wrap=True)
    for note in results.notes:
        console.print(Text(note))
    if seed is not None:
        console.print(Text(f"Seed of the generated requests: {seed}"))
    for severity in Severity:
        for outcomes in _alike(results, severity):
            _finding(console, results, outcomes)
    _tables(console, results)
    _not_checked(console, results)
    _summary(console, results)


def status(results: CheckResults) -> int:
    """Return the exit status: 1 after an error or an early stop, else 0."""
    return 1 if results.stopped or results.failures(Severity.ERROR) else 0


def _alike(results: CheckResults, severity: Severity) -> list[list[Outcome]]:
    """Return the failures, those with the same findings in both lists together."""
    groups: dict[tuple[str, ...], list[Outcome]] = {}
    for each in results.failures(severity):
        groups.setdefault((each.rule.code, *(finding.seen for finding in each.findings)), []).append(each)
    return list(groups.values())


def _finding(console: Console, results: CheckResults, outcomes: list[Outcome]) -> None:
    outcome, rule = outcomes[0], outcomes[0].rule
    subjects = ", ".join(results.name(each.subject) for each in outcomes)
    more = sum(each.count for each in outcomes) - len(outcomes) * len(outcome.findings)
    console.print()
    title = Text.assemble((f"{rule.severity.upper()} ", COLOURS[rule.severity]), (rule.code, "bold"))
    console.print(title.append(f" ({subjects}) {rule.must}"))
    for finding in outcome.findings:
        _indented(console, f"Seen: {finding.seen}")
        if finding.curl:  # in one line, so that it can be copied
            console.print(Text(f"  $ {finding.curl}", style="dim"), soft_wrap=True)
    if more:
        _indented(console, f"And {more} more like that.")
    _indented(console, f"Do: {rule.advice} ({results.kit.source}: {rule.source}.)")


def _indented(console: Console, text: str) -> None:
    for line in Text(text).wrap(console, console.width - 2):
        line.rstrip()
        console.print(Text("  ").append(line), soft_wrap=True)


def _tables(console: Console, results: CheckResults) -> None:
    if results.measurements:
        table = _table("page_size", "records", "seconds", "records/s", "KiB")
        for each in results.measurements:
            speed = f"{each.records / each.seconds:.0f}"
            row = (str(each.page_size), str(each.records), f"{each.seconds:.3f}", speed, f"{each.bytes / 1024:.0f}")
            table.add_row(results.name(each.subject), *row)
        _section(console, "Speed of the first page", table)
    if results.dry_runs:
        table = _table("created", "updated", "deleted", "unchanged", "rejected", "it would end")
        for run in results.dry_runs:
            counts = run.counts
            figures = (counts.created, counts.updated, counts.deleted, counts.unchanged, counts.rejected)
            end = f"FAILED ({run.code})" if run.code else "SUCCEEDED" if run.complete else "not read to its end"
            table.add_row(results.name(run.subject), *map(str, figures), end)
        _section(console, f"A sync into {results.dry_runs[0].against} (nothing was written)", table)
        for run in results.dry_runs:
            if run.not_removed:
                _indented(console, f"{results.name(run.subject)} not removed: {run.not_removed} that the list lacks. "
                          "It has records without a usable id, and each could be one of them.")  # fmt: skip
            for what in ("updated", "deleted", "rejected"):
                if run.samples.get(what):
                    samples = ", ".join(map(repr, run.samples[what]))
                    _indented(console, results.plain(f"{results.name(run.subject)} {what}, such as {samples}"))


def _not_checked(console: Console, results: CheckResults) -> None:
    reasons: dict[tuple[Subject, str, str], list[str]] = {}
    checked = {each.subject for each in results.outcomes() if each.result is Result.PASSED}
    for each in results.outcomes():
        if each.result in (Result.SKIPPED, Result.NOT_REACHED):
            reasons.setdefault((each.subject, each.result, each.reason), []).append(each.rule.code)
    if reasons:
        console.print()
        console.print(Text("Not checked", style="bold"))
        for (subject, result, reason), codes in reasons.items():
            which = ", ".join(codes) if subject in checked else "all other checks"
            _indented(console, f"{results.name(subject)}, {result}: {reason}: {which}")


def _summary(console: Console, results: CheckResults) -> None:
    counts = Counter(each.result for each in results.outcomes())
    found = {severity: len(_alike(results, severity)) for severity in Severity}
    console.print()
    console.print(
        Text.assemble(
            f"Checks passed: {counts[Result.PASSED]}, skipped: {counts[Result.SKIPPED]}, "
            f"not reached: {counts[Result.NOT_REACHED]}; ",
            (f"errors: {found[Severity.ERROR]}", COLOURS[Severity.ERROR] if found[Severity.ERROR] else "green"),
            f", warnings: {found[Severity.WARNING]}, advice: {found[Severity.ADVICE]}.",
        )
    )


def _table(*columns: str) -> Table:
    table = Table("", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for each in columns:
        table.add_column(each, justify="left" if each == "it would end" else "right")
    return table


def _section(console: Console, title: str, table: Table) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    with console.capture() as printed:
        console.print(Padding(table, (0, 0, 0, 2), expand=False))
    for line in printed.get().splitlines():
        console.file.write(f"{line.rstrip()}\n")
