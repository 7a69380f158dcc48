"""A gateway, a scripted server in its place, and the client commands."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.client_site import PAGE, Client, Site
from tests.support.commands import Done, Terminal
from tests.support.deployment import Deployment
from tests.support.paced_service import PacedService
from tests.support.scripted_answers import Merchant
from tests.support.serving import serve


@pytest.fixture
def gateway() -> Iterator[Merchant]:
    """Serve scripted responses in place of a gateway."""
    stranger = Merchant()
    with serve(stranger) as url:
        stranger.url = url
        yield stranger


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Site]:
    """One for all tests; each has a shop of its own."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "gateway.db").write_bytes(sqlite_template.read_bytes())
    deployment = Deployment(
        folder, f"sqlite:///{folder / 'gateway.db'}", page_size=str(PAGE), max_page_size=str(PAGE), request_attempts="1"
    )
    service = PacedService()
    with serve(service) as service_url, deployment.serving("--with-worker") as url:
        yield Site(deployment, url, service, service_url)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Site) -> Callable[..., Done]:
    """A command to its end, in this process."""
    terminal = Terminal(monkeypatch, capsys)

    def to_its_end(line: str, status: int = 0, typed: str = "") -> Done:
        done = terminal.run(site.deployment, line, typed)
        assert done.returncode == status, done
        return done

    return to_its_end


@pytest.fixture
def start(site: Site) -> Iterator[Callable[[str], Client]]:
    """Commands in processes of their own, until the test ends."""
    clients: list[Client] = []

    def started(line: str) -> Client:
        clients.append(Client(site.deployment, line))
        return clients[-1]

    yield started
    for each in clients:
        each.kill()
