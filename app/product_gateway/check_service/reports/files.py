"""Reports for programs: JUnit XML and JSON."""

from itertools import groupby
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml  # only for writing

import orjson

from product_gateway.check_service.results import CheckResults, Outcome, Result
from product_gateway.check_service.rules import Severity
from product_gateway.errors import SettingsError
from product_gateway.model.syncs import Counts

NOT_CHECKED = (Result.SKIPPED, Result.NOT_REACHED)


def write_junit(results: CheckResults, path: Path) -> None:
    """Write a test suite per list and for the service, and a test case per rule. Raises SettingsError.

    Only errors are failures. Warnings and advice are in the output of a passed case.
    """
    top = Xml.Element("testsuites", {"name": f"product-gateway {results.kit.command}", **_totals(results.outcomes())})
    for subject, group in groupby(results.outcomes(), key=lambda each: each.subject):
        outcomes = list(group)
        suite = Xml.SubElement(top, "testsuite", {"name": results.name(subject), "time": "0", **_totals(outcomes)})
        for outcome in outcomes:
            _case(suite, outcome, f"{results.kit.command}.{results.name(subject)}", results.kit.source)
    Xml.indent(top)
    _write(path, b'<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(top, encoding="utf-8") + b"\n")


def write_json(results: CheckResults, path: Path) -> None:
    """Write all results. Raises SettingsError if the file cannot be written."""
    content: dict[str, Any] = {
        "notes": results.notes,
        "stopped": results.stopped,
        "checks": [
            {
                "code": each.rule.code,
                "severity": each.rule.severity,
                "subject": results.name(each.subject),
                "result": each.result,
                "reason": each.reason,
                "findings": each.findings,
                "count": each.count,
            }
            for each in results.outcomes()
        ],
        "measurements": results.measurements,
        "rehearsals": results.dry_runs,
    }
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    _write(path, orjson.dumps(content, default=Counts._asdict, option=options))


def _totals(outcomes: list[Outcome]) -> dict[str, str]:
    failures = sum(_is_failure(each) for each in outcomes)
    skipped = sum(each.result in NOT_CHECKED for each in outcomes)
    return {"tests": str(len(outcomes)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}


def _is_failure(outcome: Outcome) -> bool:
    return outcome.result is Result.FAILED and outcome.rule.severity is Severity.ERROR


def _case(suite: Xml.Element, outcome: Outcome, classname: str, source: str) -> None:
    rule = outcome.rule
    case = Xml.SubElement(suite, "testcase", name=f"{rule.code}: {rule.must}", classname=classname, time="0")
    if outcome.result in NOT_CHECKED:
        Xml.SubElement(case, "skipped", message=f"{outcome.result}: {outcome.reason}")
    if outcome.result is not Result.FAILED:
        return
    seen = "\n".join(each.seen for each in outcome.findings)
    if _is_failure(outcome):
        failure = Xml.SubElement(case, "failure", message=outcome.findings[0].seen, type=rule.code)
        failure.text = f"{seen}\nExpected: {rule.must}\nDo: {rule.advice}\n{source}: {rule.source}"
        seen = ""
    else:
        seen = f"{rule.severity}: {seen}\nDo: {rule.advice}\n"
    output = Xml.SubElement(case, "system-out")
    output.text = seen + "\n".join(each.curl for each in outcome.findings if each.curl)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}.") from None
