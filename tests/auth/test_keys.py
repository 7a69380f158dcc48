"""Keys: created once and kept private, public keys of issuers, and encryption of secrets."""

import asyncio
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from product_gateway import data_directory, settings
from product_gateway.auth import encryption, keys
from product_gateway.auth.tokens import TokenVerifier, static_key
from product_gateway.errors import NotAuthenticated, SettingsError
from product_gateway.settings import Settings

PROCESSES = 8
FOLDERS = 5
MINUTE = timedelta(minutes=1)
TOKEN = "the-plain-token-of-the-merchant"

# Says that it is ready, waits for a line, then makes a token and encrypts a secret in each folder.
RACER = """
import sys
from datetime import timedelta
from pathlib import Path
from product_gateway import data_directory, settings
from product_gateway.auth import encryption, keys
print("ready", flush=True)
sys.stdin.readline()
for folder in sys.argv[1:]:
    theirs = settings.load(data_dir=Path(folder))
    print(keys.issue_token(theirs, "shop", [], timedelta(minutes=1)), encryption.Secrets(theirs).encrypt("secret"))
"""


async def merchant_of(token: str, theirs: Settings) -> str:
    """Return the merchant of a token that the settings' key verifies. Raise NotAuthenticated."""
    return (await TokenVerifier(theirs, static_key(keys.verification_key(theirs))).authenticate(token, {})).merchant


def raced(folders: list[Path]) -> list[list[str]]:
    """Return the output lines of each process, one line for each folder."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", RACER, *map(str, folders)]
    racers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(PROCESSES)]
    try:
        for each in racers:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in racers:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        return [each.communicate(timeout=20)[0].splitlines() for each in racers]
    finally:
        for each in racers:
            each.kill()
            each.communicate()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_many_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    """Otherwise one process would refuse the tokens of another and could not decrypt its secrets."""
    folders = [tmp_path / str(number) for number in range(FOLDERS)]
    said = await asyncio.to_thread(raced, folders)
    for number, folder in enumerate(folders):
        theirs = settings.load(data_dir=folder)
        for lines in said:
            token, secret = lines[number].split()
            assert await merchant_of(token, theirs) == "shop"
            assert encryption.Secrets(theirs).decrypt(secret) == "secret"
        assert names_in(folder) == ["secret.key", "signing-key.pem"], "drafts must not be left behind"


def test_only_the_owner_may_read_the_keys(tmp_path: Path) -> None:
    """The signing key can create tokens of every merchant."""
    theirs = settings.load(data_dir=tmp_path / "var")
    keys.issue_token(theirs, "shop", [], MINUTE)
    encryption.Secrets(theirs)
    data_directory.write_private(tmp_path / "var" / "demo.token", b"token")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "var").iterdir()}
    assert modes == {"secret.key": 0o600, "signing-key.pem": 0o600, "demo.token": 0o600}


def test_a_private_file_is_replaced_atomically(tmp_path: Path) -> None:
    """The mode of the old file does not stay."""
    path = tmp_path / "file"
    path.write_text("old and longer")
    path.chmod(0o644)
    data_directory.write_private(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
    assert names_in(tmp_path) == ["file"]


async def test_an_issued_token_has_the_requested_claims(tmp_path: Path) -> None:
    """And no others, on which a client could come to rely."""
    theirs = settings.load(data_dir=tmp_path, jwt_issuer="me", jwt_audience="you", jwt_merchant_claim="tenant")
    claims = jwt.decode(
        keys.issue_token(theirs, "shop", ["sync:read", "catalog:read"], MINUTE),
        keys.verification_key(theirs).key,
        algorithms=["ES256"],
        audience="you",
        issuer="me",
    )
    assert (claims["tenant"], claims["scope"], claims["exp"] - claims["iat"]) == ("shop", "sync:read catalog:read", 60)
    assert set(claims) == {"tenant", "scope", "iss", "aud", "iat", "exp"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604800), ("999999d", 86399913600)]
)
def test_a_lifetime_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert keys.lifetime(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "1", "h", "1w", "1.5h", "-1h", "+1h", "1 h", "0s", "00h", "9999999d", "1h30m", "٣h"]
)
def test_an_invalid_lifetime_is_refused_with_examples(text: str) -> None:
    """Also zero and more than six digits."""
    with pytest.raises(SettingsError, match="90s, 30m, 1h or 7d"):
        keys.lifetime(text)


def test_a_token_with_an_invalid_merchant_or_scope_is_not_issued(tmp_path: Path) -> None:
    """It would be refused later, where the reason is harder to find."""
    theirs = settings.load(data_dir=tmp_path)
    with pytest.raises(SettingsError, match="cannot be a merchant's name"):
        keys.issue_token(theirs, "no such name", [], MINUTE)
    with pytest.raises(SettingsError, match=r"no scope sync:delete.*sync:write, sync:read, catalog:read"):
        keys.issue_token(theirs, "shop", ["sync:delete", "sync:read"], MINUTE)


@pytest.mark.parametrize("content", ["garbage", "", "locked", "other curve", "folder"])
def test_a_broken_signing_key_is_named_and_left_alone(tmp_path: Path, content: str) -> None:
    """A new key would silently invalidate every issued token."""
    path = tmp_path / "signing-key.pem"
    if content == "folder":
        path.mkdir()
    elif content == "locked":
        path.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), password=b"x"))
    elif content == "other curve":
        path.write_bytes(private_pem(ec.generate_private_key(ec.SECP384R1())))
    else:
        path.write_text(content)
    before = path.is_dir() or path.read_bytes()
    theirs = settings.load(data_dir=tmp_path)
    for use in (lambda: keys.issue_token(theirs, "shop", [], MINUTE), lambda: keys.verification_key(theirs)):
        with pytest.raises(SettingsError, match=r"signing-key.pem"):
            use()
    assert before == (path.is_dir() or path.read_bytes())


def test_a_data_directory_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    """Wrong mounts are a common mistake in containers."""
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    theirs = settings.load(data_dir=in_the_way)
    for use in (lambda: keys.issue_token(theirs, "shop", [], MINUTE), lambda: encryption.Secrets(theirs)):
        with pytest.raises(SettingsError, match=r"PRODUCT_GATEWAY_DATA_DIR: .*file cannot be written to"):
            use()


PRIVATE_KEYS: dict[str, tuple[Any, str]] = {
    "RSA, RS256": (rsa.generate_private_key(65537, 2048), "RS256"),
    "RSA, PS512": (rsa.generate_private_key(65537, 2048), "PS512"),
    "P-256": (ec.generate_private_key(ec.SECP256R1()), "ES256"),
    "P-384": (ec.generate_private_key(ec.SECP384R1()), "ES384"),
    "P-521": (ec.generate_private_key(ec.SECP521R1()), "ES512"),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    "Ed448": (ed448.Ed448PrivateKey.generate(), "EdDSA"),
}


@pytest.mark.parametrize(("key", "algorithm"), PRIVATE_KEYS.values(), ids=PRIVATE_KEYS)
async def test_an_issuers_public_key_verifies_its_tokens_and_no_others(
    tmp_path: Path, key: Any, algorithm: str
) -> None:
    """The gateway needs no secret of the identity provider."""
    theirs = with_public_key(tmp_path, public_pem(key))
    claims = {"iss": "product-gateway", "aud": "product-gateway", "merchant": "shop", "exp": datetime.now(UTC) + MINUTE}
    assert await merchant_of(jwt.encode(claims, key, algorithm), theirs) == "shop"
    own = keys.issue_token(settings.load(data_dir=tmp_path), "shop", [], MINUTE)
    with pytest.raises(NotAuthenticated):
        await merchant_of(own, theirs)


def test_no_token_is_issued_if_another_issuer_is_configured(tmp_path: Path) -> None:
    """The gateway would refuse the token."""
    for theirs in (
        with_public_key(tmp_path, public_pem(ec.generate_private_key(ec.SECP256R1()))),
        settings.load(data_dir=tmp_path, jwks_url="https://id.example/keys"),
    ):
        with pytest.raises(SettingsError, match=r"JWT_PUBLIC_KEY_FILE or PRODUCT_GATEWAY_JWKS_URL.*from there"):
            keys.issue_token(theirs, "shop", [], MINUTE)
    assert not (tmp_path / "signing-key.pem").exists()


EC = ec.generate_private_key(ec.SECP256R1())
NO_PUBLIC_KEYS: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "it is empty"),
    "blank lines": (lambda: b"\n \r\n", "it is empty"),
    "garbage": (lambda: b"\xff\x00garbage", "no line -----BEGIN PUBLIC KEY-----"),
    "PEM of garbage": (
        lambda: b"-----BEGIN PUBLIC KEY-----\nZ2FyYmFnZQ==\n-----END PUBLIC KEY-----\n",
        "cannot be decoded",
    ),
    "half a key": (lambda: public_pem(EC)[:60], "cannot be decoded"),
    "a private key": (lambda: private_pem(EC), "a private key.*openssl pkey -in .*key.pem -pubout"),
    "a locked private key": (lambda: private_pem(EC, b"x"), "a private key.*openssl pkey"),
    "an EC private key of old": (
        lambda: EC.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        "a private key.*openssl pkey",
    ),
    "a certificate": (lambda: certificate(EC), "a certificate.*openssl x509 -in .*key.pem -noout -pubkey"),
    "a chain": (lambda: certificate(EC) * 2, "holds 2 PEM blocks"),
    "two public keys": (lambda: public_pem(EC) * 2, "holds 2 PEM blocks.*JWKS_URL"),
    "a key and its public half": (lambda: private_pem(EC) + public_pem(EC), "holds 2 PEM blocks"),
    "a JWK": (lambda: b'{"kty": "EC"}', "JSON Web Key"),
    "a token": (lambda: b"eyJhbGciOiJFUzI1NiJ9.e30.c2ln", "JSON Web Token"),
    "an SSH key": (
        lambda: EC.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "SSH key.*ssh-keygen -e -m PKCS8",
    ),
    "DER": (
        lambda: EC.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "DER.*openssl pkey -pubin -inform DER",
    ),
    "UTF-16": (lambda: public_pem(EC).decode().encode("utf-16"), "UTF-16"),
    "line ends written out": (lambda: public_pem(EC).replace(b"\n", rb"\n"), r"written out as \\n"),
    "a PGP key": (lambda: b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", r"another kind \(PGP PUBLIC KEY BLOCK\)"),
    "RSA of 1024 bits": (lambda: public_pem(rsa.generate_private_key(65537, 1024)), "has 1024 bits. Use 2048"),
    "secp256k1": (lambda: public_pem(ec.generate_private_key(ec.SECP256K1())), "curve secp256k1. Use P-256"),
    "DSA": (lambda: public_pem(dsa.generate_private_key(1024)), "kind that no supported algorithm uses"),
    "X25519, which cannot sign": (lambda: public_pem(x25519.X25519PrivateKey.generate()), "kind that no supported"),
}


@pytest.mark.parametrize(("make", "reason"), NO_PUBLIC_KEYS.values(), ids=NO_PUBLIC_KEYS)
def test_a_file_without_a_usable_public_key_stops_the_start(
    tmp_path: Path, make: Callable[[], bytes], reason: str
) -> None:
    """The message names the content of the file and the command that converts it."""
    with pytest.raises(
        SettingsError, match=r"PRODUCT_GATEWAY_JWT_PUBLIC_KEY_FILE: .*key\.pem is not a PEM public key"
    ) as refusal:
        keys.verification_key(with_public_key(tmp_path, make()))
    assert re.search(reason, refusal.value.detail), refusal.value.detail
    assert "\n" not in refusal.value.detail


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")
@pytest.mark.parametrize("kind", ["a certificate", "a private key", "DER"])
def test_the_command_in_the_message_makes_a_public_key(tmp_path: Path, kind: str) -> None:
    """Run unchanged, in a folder whose name contains a space."""
    folder = tmp_path / "my keys"
    folder.mkdir()
    with pytest.raises(SettingsError) as refusal:
        keys.verification_key(with_public_key(folder, NO_PUBLIC_KEYS[kind][0]()))
    command = refusal.value.detail[refusal.value.detail.index("openssl ") :].rstrip(".")
    command = command if command.endswith(".pem") else f"{command}.pem"
    subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True, timeout=20)
    made = with_public_key(folder, (folder / "public-key.pem").read_bytes())
    assert keys.verification_key(made).key == EC.public_key()


def certificate(private: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a self-signed certificate, as identity providers export them."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "id.example")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(private, SHA256()).public_bytes(Encoding.PEM)


def test_another_secret_key_does_not_decrypt_a_stored_secret(tmp_path: Path) -> None:
    """The message says what to do: a sync that fails because of it shows the message."""
    mine, other = (encryption.Secrets(settings.load(data_dir=tmp_path / name)) for name in ("a", "b"))
    for stored in (mine.encrypt(TOKEN), "", "garbage", "gärbage"):
        with pytest.raises(SettingsError, match=r"another secret key.*--product-service-token-file") as refusal:
            other.decrypt(stored)
        assert TOKEN not in refusal.value.detail


def with_secret_keys(folder: Path, content: bytes) -> encryption.Secrets:
    """Return Secrets with a key file of this content."""
    (folder / "keys").write_bytes(content)
    return encryption.Secrets(settings.load(data_dir=folder, secret_key_file=folder / "keys"))


@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\n\n  \n# the key before\n"])
def test_the_first_of_several_keys_encrypts_and_all_decrypt(tmp_path: Path, between: bytes) -> None:
    """A key can be rotated while secrets are still encrypted with the old one."""
    old, new = Fernet.generate_key(), Fernet.generate_key()
    stored = with_secret_keys(tmp_path, old).encrypt(TOKEN)
    both = with_secret_keys(tmp_path, new + between + old + b"\n")
    assert both.decrypt(stored) == TOKEN
    anew = both.renewed(stored)
    assert anew is not None
    assert both.renewed(anew) is None
    only_new = with_secret_keys(tmp_path, new)
    assert only_new.decrypt(anew) == only_new.decrypt(both.encrypt(TOKEN)) == TOKEN
    for use in (only_new.decrypt, only_new.renewed):
        with pytest.raises(SettingsError, match="another secret key"):
            use(stored)


def test_a_line_that_is_no_key_is_named_by_its_number_alone(tmp_path: Path) -> None:
    """The message shows nothing of the file: half a key is secret, too."""
    key = Fernet.generate_key()
    with pytest.raises(SettingsError, match=r"one key per line \(line 3 is not a key\)") as refusal:
        with_secret_keys(tmp_path, key + b"\n\n" + key[:-4] + b"\n")
    assert key[:20].decode() not in refusal.value.detail
    with pytest.raises(SettingsError, match="it is empty"):
        with_secret_keys(tmp_path, b"\n# none yet\n")


def test_the_same_secret_looks_different_each_time(tmp_path: Path) -> None:
    """The database does not reveal that two merchants have the same token."""
    secrets = encryption.Secrets(settings.load(data_dir=tmp_path))
    assert secrets.encrypt(TOKEN) != secrets.encrypt(TOKEN)


@pytest.mark.parametrize("content", [b"", b"too short", b"\xff" * 44, b"x" * 44])
def test_a_file_without_a_secret_key_is_named_with_a_way_to_make_one(tmp_path: Path, content: bytes) -> None:
    """Keys get truncated and mixed up when they are copied."""
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"PRODUCT_GATEWAY_SECRET_KEY_FILE: .*generate_key"):
        encryption.Secrets(settings.load(data_dir=tmp_path, secret_key_file=file))


def with_public_key(folder: Path, pem: bytes) -> Settings:
    """Return settings with this public key file."""
    (folder / "key.pem").write_bytes(pem)
    return settings.load(data_dir=folder, jwt_public_key_file=folder / "key.pem")


def public_pem(private: Any) -> bytes:
    pem: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def private_pem(private: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
