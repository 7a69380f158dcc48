"""Applications of the operations port."""

import shutil
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from product_gateway.db.database import Database
from tests.support.databases import url_of
from tests.support.monitor_client import TOKEN, made


@pytest.fixture(scope="module")
def folder(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the operator token and a database that no test changes."""
    folder = tmp_path_factory.mktemp("monitor")
    shutil.copy(sqlite_template, folder / "gateway.db")
    (folder / "operator.token").write_text(f"{TOKEN}\n")
    return folder


@pytest.fixture(scope="module")
def unprotected(folder: Path) -> ASGIApp:
    """Without a token."""
    return made(f"sqlite:///{folder / 'gateway.db'}")


@pytest.fixture(scope="module")
def protected(folder: Path) -> ASGIApp:
    """With one."""
    return made(f"sqlite:///{folder / 'gateway.db'}", operator_token_file=folder / "operator.token")


@pytest.fixture
def app(database: Database) -> ASGIApp:
    """Without a token, over a database with the merchants `shop` and `other`."""
    return made(url_of(database))
