"""The data directory, as the real commands create and use it: only its owner may read or replace its files."""

import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from product_gateway import data_directory, settings
from product_gateway.auth import encryption, keys
from product_gateway.errors import SettingsError
from tests.support.deployment import ENDS_WITHIN, STARTS_WITHIN, is_ready, within
from tests.support.fork_server import Forked

UMASKS = [0o000, 0o022, 0o077]
ADD = ("merchant", "add", "shop", "--platform", "BYOP", "--product-service-url", "http://127.0.0.1:1")
KEYS = {"secret.key", "signing-key.pem"}
DATABASE = {"gateway.db"}


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a process whose data directory is `var` in the folder."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PRODUCT_GATEWAY_")},
        "PRODUCT_GATEWAY_DATA_DIR": str(folder / "var"),
        "PRODUCT_GATEWAY_ALLOW_PRIVATE_ADDRESSES": "true",
        "PRODUCT_GATEWAY_OPERATIONS_PORT": "0",
        **{f"PRODUCT_GATEWAY_{name.upper()}": value for name, value in more.items()},
    }


def started(folder: Path, umask: int, arguments: Sequence[str], log: Path, **more: str) -> Forked:
    """Start `product-gateway` under the umask."""
    return Forked(arguments, environment(folder, **more), folder, log, umask=umask)


def run(folder: Path, umask: int, *arguments: str, **more: str) -> tuple[int, str]:
    """Run a command; return its exit status and output."""
    log = folder / f"log-{time.monotonic_ns()}"
    process = started(folder, umask, arguments, log, **more)
    try:
        return process.wait(60), log.read_text()
    finally:
        process.kill()


@contextmanager
def running(folder: Path, umask: int, *arguments: str, **more: str) -> Iterator[str]:
    """Start a server under the umask; yield its URL when it is ready."""
    log = folder / f"log-{time.monotonic_ns()}"
    process = started(folder, umask, arguments, log, **more)

    def url() -> str | None:
        said = log.read_text()
        assert process.poll() is None, said
        mark = next((each for each in ("product gateway is at ", "product gateway listens on ") if each in said), None)
        return None if mark is None or not said.endswith("\n") else said.partition(mark)[2].split()[0].rstrip(",")

    try:
        found = str(within(STARTS_WITHIN, url))
        within(STARTS_WITHIN, lambda: is_ready(found))
        yield found
    finally:
        process.terminate()
        process.wait(ENDS_WITHIN)


def modes(directory: Path) -> dict[str, int]:
    """Return the permissions of the directory, named ".", and of everything in it."""
    found = {str(path.relative_to(directory)): path for path in [directory, *directory.rglob("*")]}
    return {name: stat.S_IMODE(path.stat().st_mode) for name, path in found.items()}


def assert_private(directory: Path, wanted: set[str]) -> None:
    """Assert that only the owner has access and that the wanted files exist."""
    found = modes(directory)
    assert found.pop(".") == 0o700
    assert wanted <= set(found), found
    assert set(found.values()) == {0o600}, found


@pytest.mark.parametrize("umask", UMASKS)
def test_only_the_owner_may_use_the_data_directory_under_any_umask(tmp_path: Path, umask: int) -> None:
    """With all files of the demo, while it runs and afterwards."""
    with running(tmp_path, umask, "demo", "--port", "0", "--sample-port", "0", "--delay", "0") as url:
        token = (tmp_path / "var" / "demo.token").read_text().strip()
        answer = httpx2.put(
            f"{url}/product-gateway/v1/sync/PRODUCT", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )
        assert answer.status_code == 202, answer.text
        everything = {*KEYS, "gateway.db", "gateway.db-wal", "gateway.db-shm", "demo.token"}
        assert_private(tmp_path / "var", everything)
    assert_private(tmp_path / "var", {*KEYS, "gateway.db", "demo.token"})


@pytest.mark.parametrize("umask", UMASKS)
@pytest.mark.parametrize(
    ("command", "made"), [(ADD, DATABASE | KEYS), (("migrate",), DATABASE)], ids=["add", "migrate"]
)
def test_a_command_that_creates_the_data_directory_makes_it_private(
    tmp_path: Path, umask: int, command: tuple[str, ...], made: set[str]
) -> None:
    """Also its missing parents."""
    folder = tmp_path / "a" / "b"
    status, said = run(tmp_path, umask, *command, data_dir=str(folder))
    assert status == 0, said
    assert_private(folder, made)
    assert modes(tmp_path)["a"] == 0o700


def test_serve_and_the_commands_after_it_keep_it_private(tmp_path: Path) -> None:
    """Each of them starts under a umask that gives access to everyone."""
    with running(tmp_path, 0o000, "serve", "--port", "0", "--with-worker"):
        assert_private(tmp_path / "var", {*KEYS, "gateway.db", "gateway.db-wal"})
        for command in (ADD, ("token", "shop"), ("merchant", "list"), ("prune",), ("merchant", "show", "shop")):
            status, said = run(tmp_path, 0o000, *command)
            assert status == 0, said
        assert_private(tmp_path / "var", {*KEYS, "gateway.db"})
    (database,) = (tmp_path / "var").glob("*.db")
    status, said = run(tmp_path, 0o000, "migrate", database_url=f"sqlite:///{tmp_path / 'elsewhere' / 'x.db'}")
    assert (status, database.name) == (0, "gateway.db"), said
    assert_private(tmp_path / "elsewhere", {"x.db"})


USERS: dict[str, tuple[str, ...]] = {
    "token": ("token", "shop"),
    "list": ("merchant", "list"),
    "show": ("merchant", "show", "shop"),
    "update": ("merchant", "update", "shop", "--disable"),
    "remove": ("merchant", "remove", "shop", "--yes"),
    "allow": ("merchant", "allow-mass-deletion", "shop", "PRODUCT"),
    "prune": ("prune",),
    "worker": ("worker",),
    "check-service": (
        "check-service",
        "http://127.0.0.1:1",
        "--token-file",
        "token",
        "--merchant",
        "shop",
        "--allow-private-addresses",
    ),
}


@pytest.mark.parametrize("command", [*USERS.values()], ids=USERS)
def test_other_commands_do_not_create_a_data_directory(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A wrong PRODUCT_GATEWAY_DATA_DIR must not lead to a new key or an empty database."""
    (tmp_path / "token").write_text("the-merchants-token")
    status, said = run(tmp_path, 0o022, *command)
    assert status == 1, said
    assert f"There is no data directory at {tmp_path / 'var'}." in said
    assert "Traceback" not in said
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("command", [*USERS.values()], ids=USERS)
def test_other_commands_do_not_write_into_a_foreign_directory(tmp_path: Path, command: tuple[str, ...]) -> None:
    """The wrong directory may exist."""
    (tmp_path / "var").mkdir(mode=0o755)
    (tmp_path / "var" / "notes.txt").touch()
    (tmp_path / "token").write_text("the-merchants-token")
    status, said = run(tmp_path, 0o022, *command)
    assert status == 1, said
    assert f"in {tmp_path / 'var'}. Set PRODUCT_GATEWAY_DATA_DIR" in said
    assert "Traceback" not in said
    assert [path.name for path in (tmp_path / "var").iterdir()] == ["notes.txt"]


def test_a_secret_is_not_encrypted_with_a_new_key_if_the_old_one_is_missing(tmp_path: Path, database_url: str) -> None:
    """The database is elsewhere: the worker could not decrypt the secret."""
    more = {"database_url": database_url}
    status, said = run(tmp_path, 0o022, *ADD, **more)
    assert status == 0, said
    assert_private(tmp_path / "var", KEYS)
    (tmp_path / "token").write_text("the-merchants-token")
    update = ("merchant", "update", "shop", "--product-service-token-file", str(tmp_path / "token"))
    assert run(tmp_path, 0o022, *update, **more)[0] == 0
    for name, reason in (("wrong", "There is no data directory at"), ("other", "There is no secret.key in")):
        if name == "other":
            (tmp_path / name).mkdir()
        status, said = run(tmp_path, 0o022, *update, **more, data_dir=str(tmp_path / name))
        assert status == 1
        assert reason in said
        assert not list((tmp_path).glob(f"{name}/*"))


def test_nothing_is_created_if_database_and_keys_are_elsewhere(tmp_path: Path, database_url: str) -> None:
    """Such a gateway runs on a read-only file system."""
    folder = tmp_path / "keys"
    folder.mkdir()
    elsewhere = settings.load(data_dir=folder)
    pem = keys.verification_key(elsewhere).key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(pem)
    encryption.Secrets(elsewhere)
    more = {
        "database_url": database_url,
        "jwt_public_key_file": str(folder / "public.pem"),
        "secret_key_file": str(folder / "secret.key"),
    }
    with running(tmp_path, 0o022, "serve", "--port", "0", "--with-worker", **more):
        for command in (ADD, ("merchant", "list"), ("prune",)):
            status, said = run(tmp_path, 0o022, *command, **more)
            assert status == 0, said
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702, 0o733])
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("worker",), ADD, ("token", "shop"), ("migrate",)])
def test_a_directory_that_every_user_may_write_to_is_refused(
    tmp_path: Path, mode: int, command: tuple[str, ...]
) -> None:
    """The message contains the command that helps."""
    (tmp_path / "var").mkdir()
    (tmp_path / "var").chmod(mode)
    status, said = run(tmp_path, 0o022, *command)
    assert status == 1
    assert f"every user may write to {tmp_path / 'var'} (mode {mode:04o})" in said
    assert f"Run: chmod 700 {tmp_path / 'var'}" in said
    assert "Traceback" not in said
    assert list((tmp_path / "var").iterdir()) == []
    (tmp_path / "var").chmod(0o700)
    assert run(tmp_path, 0o022, "migrate")[0] == 0


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o755, True), (0o711, True), (0o750, False), (0o2775, True), (0o2770, False)]
)
def test_a_readable_directory_works_with_a_warning(tmp_path: Path, mode: int, warned: bool) -> None:
    """The warning says what to do. Group access is trusted, because Kubernetes needs it."""
    (tmp_path / "var").mkdir()
    (tmp_path / "var").chmod(mode)
    with running(tmp_path, 0o022, "serve", "--port", "0"):
        said = "".join(each.read_text() for each in tmp_path.glob("log-*"))
    assert said.count(f"Every user may read the data directory {tmp_path / 'var'}") == warned
    found = modes(tmp_path / "var")
    assert found.pop(".") == mode
    assert set(found.values()) == {0o600}


@pytest.mark.parametrize("name", ["signing-key.pem", "secret.key"])
@pytest.mark.parametrize(("mode", "refused"), [(0o644, True), (0o602, True), (0o660, False), (0o400, False)])
def test_a_key_that_every_user_may_access_is_refused(tmp_path: Path, name: str, mode: int, refused: bool) -> None:
    """Like ssh, except for the group: Kubernetes volumes with an fsGroup need it."""
    theirs = settings.load(data_dir=tmp_path / "var")
    keys.verification_key(theirs)
    encryption.Secrets(theirs)
    (tmp_path / "var" / name).chmod(mode)
    use = encryption.Secrets if name == "secret.key" else keys.verification_key
    if not refused:
        assert use(theirs)
        return
    with pytest.raises(
        SettingsError, match=rf"every user may access the key .*{name} \(mode 0{mode:o}\)\. Run: chmod 600"
    ):
        use(theirs)


def test_key_files_of_settings_may_be_readable_but_not_writable_for_all(tmp_path: Path) -> None:
    """Secrets that Kubernetes and Docker mount are readable for all users in their container."""
    mount = tmp_path / "..data"
    mount.mkdir()
    (mount / "key").write_bytes(Fernet.generate_key())
    (tmp_path / "key").symlink_to(mount / "key")
    for mode in (0o444, 0o644, 0o440):
        (mount / "key").chmod(mode)
        encryption.Secrets(settings.load(data_dir=tmp_path / "var", secret_key_file=tmp_path / "key"))
    (mount / "key").chmod(0o646)
    with pytest.raises(SettingsError, match=r"SECRET_KEY_FILE: every user may write to .*Run: chmod o-w .*key"):
        settings.load(secret_key_file=tmp_path / "key")


@pytest.mark.parametrize(
    "command", [("serve", "--port", "0"), ADD, ("migrate",), ("token", "shop"), ("merchant", "list")]
)
@pytest.mark.parametrize("kind", ["file", "below a file", "dangling"])
def test_a_path_that_cannot_be_a_directory_is_explained(tmp_path: Path, command: tuple[str, ...], kind: str) -> None:
    """Without a traceback."""
    path = tmp_path / "var"
    if kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_text("")
    path = path / "below" if kind == "below a file" else path
    status, said = run(tmp_path, 0o022, *command, data_dir=str(path))
    assert status == 1
    assert "Traceback" not in said
    reason = {"file": "it is a file", "below a file": "", "dangling": f"symbolic link to {tmp_path / 'nowhere'}, which"}
    assert reason[kind] in said
    assert str(path) in said
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_that_may_not_be_written_to_is_named(tmp_path: Path) -> None:
    """With the system's reason."""
    (tmp_path / "locked").mkdir(mode=0o500)
    status, said = run(tmp_path, 0o022, "migrate", data_dir=str(tmp_path / "locked" / "var"))
    assert (status, "Permission denied" in said) == (1, True)


def test_a_link_to_a_directory_is_followed(tmp_path: Path) -> None:
    """Operators move the directory to another disk this way."""
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "var").symlink_to(tmp_path / "disk")
    data_directory.make(tmp_path / "var")
    (tmp_path / "disk").chmod(0o777)
    with pytest.raises(SettingsError, match="every user may write to"):
        data_directory.make(tmp_path / "var")
