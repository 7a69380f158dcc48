"""The wheel without a checkout: it is complete, and it runs from any folder."""

import importlib.util
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import httpx2
import pytest

from product_gateway.settings import PREFIX
from tests.support.deployment import API, STARTS_WITHIN, Deployment, ended, within

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution, and the wheel from it, as `make dist` does."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(TOP)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """The wheel."""
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture
def deployment(wheel: Path, tmp_path: Path) -> Deployment:
    """An empty folder outside the checkout, where the wheel's files come first on the import path."""
    installed, folder = tmp_path / "installed", tmp_path / "empty"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(installed)]
    subprocess.run([*pip, str(wheel)], check=True, timeout=60)
    folder.mkdir()
    deployment = Deployment(folder, "")
    plain = {name: value for name, value in deployment.environment.items() if not name.startswith(PREFIX)}
    deployment.environment = {**plain, "PYTHONPATH": str(installed), f"{PREFIX}OPERATIONS_PORT": "0"}
    return deployment


def test_the_wheel_has_every_file_of_the_package_and_both_specs(wheel: Path) -> None:
    """Files that are not Python are easily forgotten: migrations, the sample catalog, py.typed."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    deployment = TOP / "app" / "product_gateway"
    files = {
        path.relative_to(deployment)
        for path in deployment.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    specs = {Path("openapi", path.name) for path in (TOP / "openapi").glob("*.yaml")}
    docs = TOP / "docs"
    guides = {Path("docs_pages", "guides", path.relative_to(docs)) for path in docs.rglob("*.md")}
    assert names == {f"product_gateway/{path.as_posix()}" for path in files | specs | guides}
    assert {
        "product_gateway/openapi/product-gateway.yaml",
        "product_gateway/openapi/product-service.yaml",
        "product_gateway/db/migrations/env.py",
        "product_gateway/db/migrations/script.py.mako",
        "product_gateway/db/migrations/versions/0001_first_tables.py",
        "product_gateway/sample/sample_catalog.json",
        "product_gateway/py.typed",
    } <= names


RELATIVE_LINK = re.compile(r"\]\((?!https?://|#)")


def wheel_metadata() -> ModuleType:
    """Import the metadata hook of the build."""
    spec = importlib.util.spec_from_file_location("wheel_metadata", TOP / "deploy" / "wheel_metadata.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_in_the_wheel_has_no_relative_link(wheel: Path) -> None:
    """A package index would show a broken link. No URL is made up: the wheel has one only from PROJECT_URL."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    assert RELATIVE_LINK.search((TOP / "README.md").read_text())
    assert not RELATIVE_LINK.search(metadata)
    assert "# Product gateway" in metadata
    assert "\nProject-URL:" not in metadata


def test_with_a_project_url_the_links_of_the_readme_are_absolute() -> None:
    """Each leads to the file of the release's tag."""
    hook, base = wheel_metadata(), "https://git.example/owner/name"
    text = hook.readme((TOP / "README.md").read_text(), base, "1.2.3")
    links = re.findall(rf"\]\({base}/(?:blob|raw)/v1\.2\.3/([^)#]+)", text)
    assert len(links) > 5
    assert not RELATIVE_LINK.search(text)
    for link in links:
        assert (TOP / link).exists(), link
    for name, url in hook.urls(base, "1.2.3").items():
        assert url.startswith(base), name


def test_the_source_distribution_has_what_make_needs(dist: Path) -> None:
    """Its users can run, test and check the project, as from a clone."""
    (found,) = dist.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "Makefile",
        "pyproject.toml",
        "requirements/dev.txt",
        "openapi/lint/package-lock.json",
        "openapi/lint/redocly.yaml",
    } <= names
    assert {"openapi/product-gateway.yaml", "tests/system/test_wheel.py", "README.md", "LICENSE"} <= names


def assert_from_the_wheel(deployment: Deployment) -> None:
    """Assert that the wheel is tested, not the checkout."""
    where = [sys.executable, "-c", "import product_gateway; print(product_gateway.__file__)"]
    file = subprocess.run(
        where, env=deployment.environment, cwd=deployment.folder, capture_output=True, text=True
    ).stdout
    assert Path(file.strip()).is_relative_to(deployment.folder.with_name("installed"))


def test_another_project_tests_its_client_with_the_wheel_and_pytest(deployment: Deployment) -> None:
    """The unchanged Python recipe: pytest finds the fixture, and the sandbox leaves nothing behind."""
    assert_from_the_wheel(deployment)
    shutil.copy(TOP / "docs" / "recipes" / "test_client.py", deployment.folder)
    temporary = deployment.folder / "temporary"
    temporary.mkdir()
    # of the plugins that happen to be here, this one alone
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TMPDIR": str(temporary)}
    run = [sys.executable, "-m", "pytest", "-p", "product_gateway_sandbox", "-p", "no:cacheprovider", "test_client.py"]
    done = subprocess.run(
        run, env={**deployment.environment, **alone}, cwd=deployment.folder, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert list(temporary.iterdir()) == []
    (entry,) = entry_points(group="pytest11", name="product_gateway_sandbox")
    assert entry.value == "product_gateway.sandbox.pytest_plugin"


def test_the_demo_runs_from_the_wheel_alone(deployment: Deployment) -> None:
    """It needs no checkout, and Ctrl-C ends it without a traceback."""
    assert_from_the_wheel(deployment)
    with deployment.process("demo", "--port", "0", "--sample-port", "0", "--delay", "0") as demo:

        def said() -> re.Match[str] | None:
            return re.search(r"The product gateway is at (\S+),.*Ctrl-C", demo.log.read_text(), re.DOTALL)

        url = within(STARTS_WITHIN, said)[1]
        token = (deployment.folder / "var" / "demo.token").read_text().strip()
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
            assert client.get("/health/ready").status_code == 200  # it listens already, and answers when it can
            asked = client.put(f"{API}/sync/PRODUCT")
            assert asked.status_code == 202
            assert ended(client, asked.json()["data"])["status"] == "SUCCEEDED"
            assert len(client.get(f"{API}/products").json()["data"]) == 24
            assert client.get("/docs/sandbox.md").text.startswith("# The sandbox")
            assert client.get("/openapi.yaml").content == (TOP / "openapi" / "product-gateway.yaml").read_bytes()
        demo.send(signal.SIGINT)
        assert demo.wait() == 0
    assert "Traceback" not in demo.log.read_text()
