"""The code samples of the reference: they run unchanged against a real server, in each installed language."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from product_gateway.docs_pages.code_samples import LANGUAGES, with_code_samples
from product_gateway.openapi import documents
from tests.support.contract import SERVICE_TOKEN, Gateway, gateway
from tests.support.deployment import API, within

DOCUMENT = with_code_samples(documents.load(documents.GATEWAY))
OPERATIONS = {each["operationId"]: each for _, _, each in documents.operations(DOCUMENT)}
MISSING = {
    *("getSync", "listSyncProblems", "listSyncChanges", "revertSync", "publishSync", "discardSync"),
    *("cancelSync", "getSyncStatus", "getProduct", "getCollection"),
}
LONGEST = 60  # seconds
RUNNERS = {
    "curl": ["sh"],
    "Python": [sys.executable, "-"],
    "JavaScript": ["node", "--input-type=module"],
    "Java": ["java", "Sample.java"],
}
HERE = [label for label, command in RUNNERS.items() if shutil.which(command[0]) is not None]
TOOLS = {"curl": "sh", "Python": "Python", "JavaScript": "Node 20", "Java": "JDK 17"}
each_language = pytest.mark.parametrize("label", LANGUAGES)


@dataclass(frozen=True)
class Reader:
    """A reader of the reference: a terminal in an own folder, with GATEWAY and TOKEN set."""

    folder: Path
    environment: dict[str, str]

    def starts(self, label: str, source: str) -> subprocess.Popen[str]:
        """Return whether the program of the language starts."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "Sample.java").write_text(source)
        process = subprocess.Popen(
            RUNNERS[label],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write("" if label == "Java" else source)
        process.stdin.close()
        process.stdin = None
        return process


def said(process: subprocess.Popen[str]) -> str:
    """Run the program and return its output. It must exit with 0."""
    try:
        output, errors = process.communicate(timeout=LONGEST)
    finally:
        process.kill()
    assert process.returncode == 0, output + errors
    return output


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Start a gateway without a worker; each language has a merchant, and the service of `shop` has 40 records."""
    folder = tmp_path_factory.mktemp("samples")
    shutil.copy(sqlite_template, folder / "gateway.db")
    (folder / "service.token").write_text(SERVICE_TOKEN)
    with gateway(folder, f"sqlite:///{folder / 'gateway.db'}") as served:
        arguments = ("--records", "40", "--token-file", str(folder / "service.token"))
        with served.deployment.sample_service(*arguments) as service:
            for name in ("shop", *(label.lower() for label in LANGUAGES)):
                served.add(name, service)
            yield served


@pytest.fixture
def reader(served: Gateway, tmp_path: Path) -> Callable[[str], Reader]:
    """Return the reader who uses the token of the merchant."""

    def of(merchant: str) -> Reader:
        environment = {**os.environ, "GATEWAY": served.url, "TOKEN": served.token(merchant)}
        return Reader(tmp_path / merchant, environment)

    return of


def sample(operation_id: str, label: str) -> str:
    """Return the source of a sample."""
    (found,) = (each["source"] for each in OPERATIONS[operation_id]["x-codeSamples"] if each["label"] == label)
    return str(found)


def program(label: str, samples: dict[str, str]) -> str:
    """Return one program of several samples, each preceded by a line with its name."""
    lines = "".join(samples.values()).splitlines(keepends=True)
    imports = "".join(dict.fromkeys(line for line in lines if line.startswith("import ")))
    plain = {
        name: "".join(line for line in source.splitlines(keepends=True) if not line.startswith("import "))
        for name, source in samples.items()
    }
    if label == "Java":
        body = "".join(f'System.out.println("@@ {name}");\n{{\n{source}}}\n' for name, source in plain.items())
        main = f"public static void main(String[] arguments) throws Exception {{\n{body}}}"
        return f"{imports}class Sample {{\n{main}\n}}\n"
    if label == "JavaScript":
        return "".join(f'console.log("@@ {name}");\n{{\n{source}}}\n' for name, source in samples.items())
    if label == "Python":
        return imports + "".join(f'print("@@ {name}")\n{source}' for name, source in plain.items())
    return "".join(f"echo '@@ {name}'\n{source}echo\n" for name, source in samples.items())


def needs(label: str) -> None:
    """Skip the test if the language is not installed."""
    if label not in HERE:
        pytest.skip(f"no {TOOLS[label]} here: the samples in {label} are not run")


@each_language
@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_every_operation_has_a_sample_in_every_language(operation_id: str, label: str) -> None:
    """With a token if the operation needs one."""
    assert "GATEWAY" in sample(operation_id, label)
    secured = bool(OPERATIONS[operation_id].get("security", DOCUMENT["security"]))
    assert ("TOKEN" in sample(operation_id, label)) is secured


@each_language
def test_the_samples_run_unchanged(reader: Callable[[str], Reader], label: str) -> None:
    """They get the documented responses. A type that was never synced is 404."""
    needs(label)
    samples = {each: sample(each, label) for each in OPERATIONS if each != "enqueueSync"}
    answers = said(reader("shop").starts(label, program(label, samples))).split("@@ ")[1:]
    assert len(answers) == len(samples)
    for answer in answers:
        operation_id, _, text = answer.partition("\n")
        status = "404" if operation_id in MISSING else "200"
        assert text.removeprefix("HTTP/1.1 ").startswith(status), f"{operation_id}: {text[:500]}"


def test_the_samples_wait_for_an_active_sync_and_then_for_their_own(
    served: Gateway, reader: Callable[[str], Reader]
) -> None:
    """After a 429 the sample follows `Link`. All languages run at once."""
    paths = dict.fromkeys(HERE, f"{API}/sync/PRODUCT")
    active = {label: ask(served, label, "PUT", path)["data"]["id"] for label, path in paths.items()}
    running = {label: reader(label.lower()).starts(label, alone(label)) for label in HERE}
    within(LONGEST, lambda: met(served) >= len(HERE))
    with served.deployment.process("worker"):
        for label, process in running.items():
            assert "SUCCEEDED" in said(process)
            assert [each["id"] for each in history(served, label)] == [active[label]], f"{label} asked for another sync"
        running = {label: reader(label.lower()).starts(label, alone(label)) for label in HERE}
        for label, process in running.items():
            assert "SUCCEEDED" in said(process)
            assert len(history(served, label)) == 2, f"{label} has not asked for a sync of its own"


def alone(label: str) -> str:
    """Return the sample of enqueueSync as a program."""
    source = sample("enqueueSync", label)
    return program(label, {"enqueueSync": source}) if label == "Java" else source


def ask(served: Gateway, label: str, method: str, path: str) -> dict[str, Any]:
    """Send a request of the language's merchant."""
    with served.of(label.lower()) as client:
        found: dict[str, Any] = client.request(method, path).json()
        return found


def history(served: Gateway, label: str) -> list[dict[str, Any]]:
    """Return the merchant's syncs."""
    found: list[dict[str, Any]] = ask(served, label, "GET", f"{API}/syncs")["data"]
    return found


def met(served: Gateway) -> int:
    """Return the number of requests that were refused because of an active sync, from the gateway's log."""
    return sum(path.read_text().count("status=429") for path in served.deployment.folder.glob("serve-*.log"))


def test_a_sample_of_the_spec_replaces_a_generated_one() -> None:
    put = documents.load(documents.GATEWAY)["paths"][f"{API}/sync/{{entityType}}"]["put"]
    assert OPERATIONS["enqueueSync"]["x-codeSamples"] == put["x-codeSamples"]
    assert [each["label"] for each in put["x-codeSamples"]] == list(LANGUAGES)
