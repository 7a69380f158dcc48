"""The workflows use what the API has, and are those of the quick starts. `make workflows` runs them."""

import re
import shlex
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from product_gateway.openapi import documents
from product_gateway.sandbox.scenarios import Scenario
from tests.support.deployment import API
from tests.support.markdown import TOP
from tests.tools.workflows import FAULTS, FEWEST_CHECKS, FEWEST_WORKFLOWS

GATEWAY, ARAZZO = documents.load(documents.GATEWAY), documents.load(documents.WORKFLOWS)
OPERATIONS = {each["operationId"]: (path, method, each) for path, method, each in documents.operations(GATEWAY)}
WORKFLOWS = {each["workflowId"]: each for each in ARAZZO["workflows"]}
STEPS = {f"{name}.{step['stepId']}": step for name, each in WORKFLOWS.items() for step in each["steps"]}
SESSION = re.search(r"^## A session\n(.*?)^## ", (TOP / "README.md").read_text(), re.MULTILINE | re.DOTALL)
QUICK_START = re.search(r"^# Quick start\n(.*?)^# [A-Z]", GATEWAY["info"]["description"], re.MULTILINE | re.DOTALL)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Request = tuple[str, str, dict[str, str], dict[str, str]]
"""Method, path below the API's prefix, query, and headers except Authorization."""
PUT: Request = ("PUT", "/sync/PRODUCT", {}, {})
WAIT: Request = ("GET", "/syncs/{id}", {}, {"Prefer": "wait=20"})
COMMANDS = {".venv/bin/product-gateway sync PRODUCT --wait-for-active --watch": [WAIT, PUT, WAIT]}


def parameters(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the parameters of a step, with those of the components in place of references."""
    for each in step["parameters"]:
        name = each.get("reference", "").removeprefix("$components.parameters.")
        yield ARAZZO["components"]["parameters"][name] if name else each


def request(step: dict[str, Any]) -> Request:
    """Return the request of a step, with {id} for ids of other responses, and without the sandbox's preferences."""
    path, method, _ = OPERATIONS[step["operationId"]]
    found: dict[str, dict[str, str]] = {"query": {}, "header": {}}
    for each in parameters(step):
        value = "{id}" if str(each["value"]).startswith("$") else str(each["value"])
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", value)
        elif not value.startswith("sync="):
            found[each["in"]][each["name"]] = value
    return method.upper(), path.removeprefix(API), found["query"], found["header"]


def requests(text: str) -> Iterator[Request]:
    """Yield the requests of the curl lines, and of the client commands, in a text."""
    for line in re.findall(r"^(?:\$ )?((?:curl|\.venv/bin/product-gateway sync) .*)$", text.replace("\\\n", ""), re.M):
        for command in (known for known in COMMANDS if line.replace("--token-file var/demo.token ", "") == known):
            yield from COMMANDS[command]
        if line.startswith("curl "):
            words = shlex.split(line)
            given = [words[i + 1].partition(": ") for i, word in enumerate(words) if word == "-H"]
            url = urlsplit(re.sub(r"^\$(API|GATEWAY/product-gateway/v1)", "", words[-1]))
            headers = {name: value for name, _, value in given if value and name != "Authorization"}
            method = words[words.index("-X") + 1] if "-X" in words else "GET"
            yield method, UUID.sub("{id}", url.path), dict(parse_qsl(url.query)), headers


def test_there_are_enough_workflows() -> None:
    """Each has a summary, and its names are unique, as generated documentation expects."""
    assert FEWEST_WORKFLOWS <= len(WORKFLOWS) == len(ARAZZO["workflows"])
    assert len(STEPS) == sum(len(each["steps"]) for each in WORKFLOWS.values())
    assert all(each["summary"] and each["description"] for each in WORKFLOWS.values())
    assert sum(len(each["successCriteria"]) for each in STEPS.values()) >= FEWEST_CHECKS


@pytest.mark.parametrize("name", STEPS)
def test_a_step_uses_what_the_spec_has(name: str) -> None:
    """An undocumented parameter would teach clients something that the gateway may refuse."""
    path, _, operation = OPERATIONS[STEPS[name]["operationId"]]
    known = {(each["in"], each["name"]) for each in documents.parameters(GATEWAY, path, operation)}
    for each in parameters(STEPS[name]):
        allowed = {f"sync={scenario}" for scenario in Scenario} if each["name"] == "Prefer" else set()
        place = each["in"], each["name"]
        assert place in known or place == ("header", "Authorization") or each["value"] in allowed, place
    statuses = re.findall(r"\$statusCode == (\d+)", str(STEPS[name]["successCriteria"]))
    assert len(statuses) == 1
    assert statuses[0] in operation["responses"]


def test_the_quick_start_of_the_reference_is_the_first_workflow() -> None:
    """Its curl lines are the requests of the workflow, which `make workflows` runs."""
    assert QUICK_START is not None
    assert list(requests(QUICK_START[1])) == [request(step) for step in WORKFLOWS["quickStart"]["steps"]]
    assert next(iter(WORKFLOWS)) == "quickStart"


def test_the_session_of_the_readme_is_a_workflow() -> None:
    """Its command waits for the active sync, requests another one and waits for that, as the workflow does."""
    assert SESSION is not None
    assert list(requests(SESSION[1])) == [request(step) for step in WORKFLOWS["waitForActiveSync"]["steps"]]


def test_every_workflow_finds_a_planted_fault() -> None:
    """A workflow that finds none would prove nothing."""
    assert {each.workflow for each in FAULTS} == set(WORKFLOWS)
    assert len(FAULTS) >= 10
