"""Public keys that verify bearer tokens: their algorithms, and reading one from a PEM file."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from product_gateway.errors import SettingsError

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

MIN_RSA_BITS = 2048  # RFC 7518 §3.3
MAX_RSA_BITS = 16384  # verification time grows with the length
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
EC_ALGORITHMS = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
ALGORITHMS = (*RSA_ALGORITHMS, "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448")
SUPPORTED = f"RSA of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, EC on P-256, P-384 or P-521, Ed25519 and Ed448"

_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----")


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key and the algorithms (RFC 7518 §3.1) that a token may be signed with."""

    key: PublicKey
    algorithms: tuple[str, ...]


def algorithms_of(key: PublicKey) -> tuple[str, ...]:
    """Return the algorithms that fit the key, none if it is too weak. The header of a token has no influence."""
    if isinstance(key, RSAPublicKey):
        return RSA_ALGORITHMS if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS else ()
    if isinstance(key, EllipticCurvePublicKey):
        return EC_ALGORITHMS.get(key.curve.name, ())
    # RFC 9864 deprecates EdDSA in favour of a name for each curve.
    return ("EdDSA", "Ed25519" if isinstance(key, Ed25519PublicKey) else "Ed448")


def read_file(path: Path) -> bytes:
    """Return the content of a key file that a setting names. Raise SettingsError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None


def from_pem(path: Path, setting: str) -> VerificationKey:
    """Return the one public key in a PEM file. Raise SettingsError that names the actual content."""
    content = read_file(path)
    reason = _unlike_a_public_key(path, content)
    if reason is None:
        try:
            key = load_pem_public_key(content)
        except (ValueError, UnsupportedAlgorithm):
            reason = "what is between its BEGIN and END lines cannot be decoded. Copy the whole file again"
        else:
            if isinstance(key, PublicKey) and (algorithms := algorithms_of(key)):
                return VerificationKey(key, algorithms)
            reason = _unsupported(key)
    raise SettingsError(f"{setting}: {path} is not a PEM public key for tokens: {reason}.")


def _unsupported(key: object) -> str:
    if isinstance(key, RSAPublicKey):
        return f"its RSA key has {key.key_size} bits. Use {MIN_RSA_BITS} to {MAX_RSA_BITS}"
    if isinstance(key, EllipticCurvePublicKey):
        return f"its EC key is on the curve {key.curve.name}. Use P-256, P-384, P-521"
    return f"its key is of a kind that no supported algorithm uses. Use {SUPPORTED}"


def _unlike_a_public_key(path: Path, content: bytes) -> str | None:
    """Return why the file is not one public key in PEM, with the command that converts it. None if it may be one."""
    file = shlex.quote(str(path))
    if not content.strip():
        return "it is empty"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is text in UTF-16. Save it as ASCII or UTF-8"
    blocks = [label.decode() for label in _PEM_BLOCK.findall(content)]
    if not blocks:
        return _without_pem(file, content)
    if len(blocks) > 1:
        labels = ", ".join(blocks[:5])
        return f"it holds {len(blocks)} PEM blocks ({labels}). Keep one public key; for several, use JWKS_URL"
    (label,) = blocks
    if label in ("PUBLIC KEY", "RSA PUBLIC KEY"):
        return r"its line ends are written out as \n. Put real line ends in their place" if rb"\n" in content else None
    if label in ("CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"):
        return (
            f"it holds a certificate. Extract its public key: openssl x509 -in {file} -noout -pubkey > public-key.pem"
        )
    if label.endswith("PRIVATE KEY"):
        return (
            "it holds a private key, which belongs to the issuer of the tokens alone. Extract its public key there: "
            f"openssl pkey -in {file} -pubout -out public-key.pem"
        )
    if label == "CERTIFICATE REQUEST":
        return (
            f"it holds a certificate request. Extract its key: openssl req -in {file} -noout -pubkey > public-key.pem"
        )
    return f"it holds a PEM block of another kind ({label}). It must be PUBLIC KEY"


def _without_pem(file: str, content: bytes) -> str:
    start = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"{"):
        return "it holds JSON, perhaps a JSON Web Key (JWK). Set JWKS_URL instead, or convert the key to PEM"
    if re.match(rb"(ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+ |---- BEGIN SSH2", start):
        return f"it holds an SSH key. Convert it: ssh-keygen -e -m PKCS8 -f {file} > public-key.pem"
    if start.startswith(b"eyJ"):
        return "it holds a JSON Web Token. It must hold the public key of the issuer"
    if content.startswith(b"\x30"):
        return f"it holds binary data (DER). Convert it: openssl pkey -pubin -inform DER -in {file} -out public-key.pem"
    return "it has no line -----BEGIN PUBLIC KEY-----"
