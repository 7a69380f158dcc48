"""The curl line of each operation in the specs: it is the operation's own request, and it runs as written."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from product_gateway.openapi import documents
from tests.support.contract import SERVICE_TOKEN, Gateway
from tests.support.deployment import Deployment

VARIABLES = {"product-gateway.yaml": "GATEWAY", "product-service.yaml": "SERVICE", "operations.yaml": "OPERATIONS"}
DOCUMENTS = {name: documents.load(name) for name in VARIABLES}
HEADINGS = {
    "product-gateway.yaml": [
        *("Quick start", "Authentication", "Sync lifecycle", "Generations and changes", "Waiting for a sync", "Errors"),
        "What clients must tolerate",
    ],
    "product-service.yaml": ["Authentication", "Sync lifecycle", "Paging", "Records", "Errors"],
    "operations.yaml": ["Authentication", "Errors"],
}
OPERATIONS = [(name, *each) for name, document in DOCUMENTS.items() for each in documents.operations(document)]
NAMES = [f"{name} {method.upper()} {path}" for name, path, method, _ in OPERATIONS]
LONGEST = {"streamMonitor": 3}  # seconds; the stream has no end
OPERATOR_TOKEN = "an-operator-token-of-forty-characters-or-so"


def line(operation: Any) -> str:
    """Return the curl line at the start of the operation's description."""
    first = re.match(r"`(curl [^`\n]+)`\n\n\S", operation["description"])
    assert first, f"{operation['operationId']} does not start with a line of curl and an empty line"
    return first[1]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_description_has_the_standard_headings(name: str) -> None:
    """Readers find the same topic under the same heading in each document."""
    found = re.findall(r"^# ([A-Z].+)$", DOCUMENTS[name]["info"]["description"], re.MULTILINE)
    assert found == [*HEADINGS[name], "Conventions"]


@pytest.mark.parametrize("name", ["product-gateway.yaml", "product-service.yaml"])
def test_bento_and_byop_are_explained_once(name: str) -> None:
    """Both words are product names that a new reader cannot know."""
    text = DOCUMENTS[name]["info"]["description"]
    assert len(re.findall(r"\*\*Bento\*\* is ", text)) == 1
    assert text.count("(**BYOP**)") == 1
    assert text.index("**Bento** is") < text.index("# ")


@pytest.mark.parametrize(("name", "path", "method", "operation"), OPERATIONS, ids=NAMES)
def test_an_operation_starts_with_its_own_request_as_a_curl_line(
    name: str, path: str, method: str, operation: Any
) -> None:
    """A reader copies it: method, path and token are those of the operation."""
    words = shlex.split(line(operation))
    assert (words[words.index("-X") + 1] if "-X" in words else "GET") == method.upper()
    template = re.sub(r"\{\w+\}", "[^/]+", path)
    assert re.fullmatch(rf"\${VARIABLES[name]}{template}(\?page_size=\d+)?", words[-1]), words[-1]
    secured = documents.is_secured(DOCUMENTS[name], operation)
    assert ("Authorization: Bearer $TOKEN" in words) is secured


@pytest.fixture(scope="module")
def environment(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """Start a gateway, its operations port and a product service; yield the variables of each document."""
    folder = tmp_path_factory.mktemp("commands")
    shutil.copy(sqlite_template, folder / "gateway.db")
    for file, token in (("service.token", SERVICE_TOKEN), ("operator.token", OPERATOR_TOKEN)):
        (folder / file).write_text(token)
        (folder / file).chmod(0o600)
    deployment = Deployment(
        folder, f"sqlite:///{folder / 'gateway.db'}", operator_token_file=str(folder / "operator.token")
    )
    with (
        deployment.sample_service("--records", "40", "--token-file", str(folder / "service.token")) as service,
        deployment.process("serve", "--port", "0") as serving,
    ):
        served = Gateway(deployment, serving.url())
        served.add("shop", service)
        addresses = {
            "product-gateway.yaml": {"GATEWAY": served.url, "TOKEN": served.token("shop")},
            "product-service.yaml": {"SERVICE": service, "TOKEN": SERVICE_TOKEN},
            "operations.yaml": {"OPERATIONS": serving.operations_url(), "TOKEN": OPERATOR_TOKEN},
        }
        yield {name: {**os.environ, **variables} for name, variables in addresses.items()}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_curl_lines_run_as_written(name: str, environment: dict[str, dict[str, str]]) -> None:
    """Each gets a success, or 404 where the example's id does not exist."""
    for _, _, operation in documents.operations(DOCUMENTS[name]):
        seconds = LONGEST.get(operation["operationId"], 30)
        command = f"{line(operation)} -sS -o /dev/null -w '%{{http_code}}' --max-time {seconds}"
        done = subprocess.run(
            ["sh", "-c", command],
            env=environment[name],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout in operation["responses"], f"{operation['operationId']}: {done.stdout} {done.stderr}"
        assert done.stdout[0] == "2" or done.stdout == "404", f"{operation['operationId']}: {done.stdout}"
