"""A client generated from the public documentation alone works unchanged."""

import importlib
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import pytest
import yaml
from openapi_spec_validator import validate

from product_gateway.model.merchants import Platform
from product_gateway.openapi import documents
from tests.support.contract import DOCUMENT, TITLES, gateway
from tests.support.deployment import API, Deployment, ended

DOCUMENTATION = Path(__file__).with_name("public-documentation.yaml")
PUBLIC = yaml.safe_load(DOCUMENTATION.read_text())
SYNC = f"{API}/sync/{{entityType}}"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Generate strict Pydantic models from the document."""
    path = tmp_path_factory.mktemp("client") / "public_client.py"
    generate = [sys.executable, "-m", "datamodel_code_generator", "--input", str(DOCUMENTATION), "--output", str(path)]
    kind = ["--input-file-type", "openapi", "--output-model-type", "pydantic_v2.BaseModel", "--strict-types", "str"]
    done = subprocess.run([*generate, *kind], cwd=path.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)
        return importlib.import_module("public_client")


def test_the_document_itself_is_valid() -> None:
    """The generator could misread an invalid document."""
    validate(PUBLIC)


@pytest.mark.parametrize("method", ["put", "get"])
def test_every_publicly_documented_response_is_in_the_spec(method: str) -> None:
    """The gateway's spec adds to the public documentation and removes nothing."""
    ours, promised = DOCUMENT["paths"][SYNC][method], PUBLIC["paths"][SYNC][method]
    assert set(promised["responses"]) <= set(ours["responses"])
    parameters = [documents.resolve(DOCUMENT, each) for each in ours.get("parameters", [])]
    assert not [each["name"] for each in parameters if each.get("required")]


def test_the_servers_responses_fit_the_public_models(client: ModuleType, sqlite_template: Path, tmp_path: Path) -> None:
    """Bodies of 202, 4xx and 200 fit the models; additions are ignored."""
    (tmp_path / "gateway.db").write_bytes(sqlite_template.read_bytes())

    def refused(answer: httpx2.Response, status: int) -> None:
        assert answer.status_code == status, answer.text
        [error] = client.Errors.model_validate_json(answer.content).error
        assert (error.status, error.title) == (str(status), TITLES[status])

    with (
        Deployment(tmp_path, "").sample_service() as service,
        gateway(tmp_path, f"sqlite:///{tmp_path / 'gateway.db'}") as served,
    ):
        served.add("shop", service)
        served.add("bento", platform=Platform.BENTO)
        shop, bento, anonymous = served.of("shop"), served.of("bento"), served.client(None)
        path = f"{API}/sync/PRODUCT"
        with shop, bento, anonymous:
            refused(shop.get(path), 404)
            accepted = shop.put(path)
            assert accepted.status_code == 202
            parsed: Any = client.SyncEnqueued.model_validate_json(accepted.content)
            assert parsed.data == accepted.json()["data"]
            for method in ("PUT", "GET"):
                refused(shop.request(method, f"{API}/sync/NONSENSE"), 400)
                refused(anonymous.request(method, path), 401)
                refused(bento.request(method, path), 403)
            refused(shop.put(path), 429)
            with served.deployment.process("worker"):
                ended(shop, accepted.json()["data"])
            there = shop.get(path)
            assert there.status_code == 200
            status = client.SyncStatus.model_validate_json(there.content)
    assert (status.data.entityType, status.data.numRecords) == (client.EntityType.PRODUCT, 24)
    assert abs((datetime.now(UTC) - status.data.updatedAt).total_seconds()) < 60


@pytest.mark.parametrize("status", ["500", "503"])
def test_error_examples_fit_the_public_models(client: ModuleType, status: str) -> None:
    """Checked with the spec's examples; tests of the database and the server produce such responses."""
    name = DOCUMENT["paths"][SYNC]["put"]["responses"][status]["$ref"].rpartition("/")[2]
    example = DOCUMENT["components"]["responses"][name]["content"]["application/json"]["example"]
    assert client.Errors.model_validate(example).error[0].status == status
