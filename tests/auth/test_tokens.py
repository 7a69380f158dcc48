"""Bearer tokens: which are accepted, and what they permit."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from product_gateway import settings
from product_gateway.api.app import create_app
from product_gateway.auth import keys
from product_gateway.auth.claims import Caller
from product_gateway.auth.public_keys import VerificationKey
from product_gateway.auth.tokens import TokenVerifier, static_key
from product_gateway.db import merchants
from product_gateway.db.database import Database
from product_gateway.errors import MissingScope, NotAuthenticated
from product_gateway.openapi import documents
from product_gateway.settings import Settings
from tests.support.issuer import verifying
from tests.support.serving import serve
from tests.support.token_parts import always, claims, hmac_by, written

KEY, OTHER = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
GOOD = {"alg": "ES256", "typ": "JWT"}
FREE: documents.Document = {}
"""An operation that asks for no scope."""


def tokens(**overrides: object) -> TokenVerifier:
    """Return a verifier that accepts the tokens of KEY."""
    return TokenVerifier(settings.load(**overrides), static_key(verifying(KEY)))


def signed(**changes: Any) -> str:
    """Return a token of KEY with valid claims and these changes."""
    return written(GOOD, claims(**changes), by(KEY))


def by(key: EllipticCurvePrivateKey) -> Callable[[bytes], bytes]:
    """Return a function that signs with the key."""
    return lambda message: bytes(jwt.get_algorithm_by_name("ES256").sign(message, key))


async def test_a_valid_token_yields_the_merchant_and_the_scopes() -> None:
    """The merchant comes from the token only."""
    caller = await tokens().authenticate(signed(scope="sync:read catalog:read"), FREE)
    assert caller == Caller("shop", frozenset({"sync:read", "catalog:read"}))


NESTED = "[" * 2500 + "]" * 2500
HUGE = "9" * 5000
NOT_OURS = {
    "alg none": written({"alg": "none"}, claims(), always(b"")),
    "alg None with a signature": written({"alg": "None"}, claims(), by(KEY)),
    "HS256 with the public key as the secret": written({"alg": "HS256"}, claims(), hmac_by(PEM)),
    "HS256 with no secret": written({"alg": "HS256"}, claims(), hmac_by(b"")),
    "signed with another key": written(GOOD, claims(), by(OTHER)),
    "no signature": written(GOOD, claims(), always(b"")),
    "a signature of zeros": written(GOOD, claims(), always(bytes(64))),
    "the signature of another token": signed().rpartition(".")[0] + "." + signed(merchant="other").rpartition(".")[2],
    "an algorithm of another kind of key": written({"alg": "RS256"}, claims(), by(KEY)),
    "no algorithm": written({}, claims(), by(KEY)),
    "an algorithm that is no text": written({"alg": ["ES256"]}, claims(), by(KEY)),
    "an extension that must be understood": written({**GOOD, "crit": ["x"], "x": 1}, claims(), by(KEY)),
    "a key id that is no text": written({**GOOD, "kid": {}}, claims(), by(KEY)),
    "a header that is a list": written("[]", claims(), by(KEY)),
    "a header that is not closed": written("[" * 2500, claims(), by(KEY)),
    "a header that is nested deeply": written(f'{{"x":{NESTED}}}', claims(), by(KEY)),
    "a header with a number of 5,000 digits": written(f'{{"x":{HUGE}}}', claims(), by(KEY)),
    "a header that is not UTF-8": written(b'{"alg":"\xff"}', claims(), by(KEY)),
    "claims that are a list": written(GOOD, "[]", by(KEY)),
    "claims that are no JSON": written(GOOD, "hello", by(KEY)),
    "claims that are nested deeply": written(GOOD, f'{{"x":{NESTED}}}', by(KEY)),
    "claims that are not UTF-8": written(GOOD, b'{"merchant":"\xff"}', by(KEY)),
    "a word": "garbage",
    "three parts of nothing": "..",
    "four parts": signed() + ".x",
    "letters outside of ASCII": signed()[:-3] + "äöü",
    "a space in it": signed().replace(".", ". "),
    "a NUL in it": signed() + "\0",
}


@pytest.mark.parametrize("token", NOT_OURS.values(), ids=NOT_OURS)
async def test_a_token_that_is_malformed_or_not_signed_by_the_key_is_refused(token: str) -> None:
    """Always with a 401, never with an error of the server."""
    with pytest.raises(NotAuthenticated) as refusal:
        await tokens().authenticate(token, FREE)
    assert refusal.value.presented
    assert refusal.value.detail.startswith("Invalid token: ")
    assert token not in refusal.value.detail


NOW = int(time.time())
NO_STRINGS: list[Any] = [7, True, ["shop"], {}]
NO_TIMES: list[Any] = [
    "9999999999", "tomorrow", True, False, [9999999999], {}, float("nan"), float("inf"), -float("inf"), 1e300, 10**30,
    10**400, -1, -(10**400), 253_402_300_800,
]  # fmt: skip
REFUSED_CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"exp": NOW - 1}, r"has expired \(exp\)"),
    ({"exp": 0}, r"has expired \(exp\)"),
    ({"nbf": NOW + 36000}, r"not valid yet \(nbf\)"),
    ({"iat": NOW + 36000}, r"issued in the future \(iat\)"),
    *(
        ({claim: value}, f"its claim {claim} must be a number of seconds from 0 to 253402300799")
        for claim in ("exp", "nbf", "iat")
        for value in NO_TIMES
    ),
    ({"iss": "https://other.example"}, r"another issuer \(iss\)"),
    ({"iss": ["product-gateway"]}, "its claim iss must be a string"),
    ({"aud": "another-service"}, r"another audience \(aud\)"),
    ({"aud": ["a", "b"]}, r"another audience \(aud\)"),
    ({"aud": []}, r"another audience \(aud\)"),
    ({"aud": {"product-gateway": 1}}, "its claim aud must be a string or a list of strings"),
    ({"aud": ["product-gateway", 1]}, "its claim aud must be a string or a list of strings"),
    ({"exp": None}, "lacks the claim exp"),
    ({"iss": None}, "lacks the claim iss"),
    ({"aud": None}, "lacks the claim aud"),
    ({"merchant": None}, "names no merchant: it lacks the claim merchant"),
    ({"merchant": ""}, "names no merchant: its claim merchant is empty"),
    ({"merchant": "s" * 129}, "names no merchant: its claim merchant is longer than 128 characters"),
    *(
        ({"merchant": name}, "names no merchant: its claim merchant must consist of")
        for name in (" shop", "shop\n", "../shop", "-shop", "sh\0p", "shöp")
    ),
    *(({"merchant": name}, "names no merchant: its claim merchant must be a string") for name in NO_STRINGS),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED_CLAIMS)
async def test_an_invalid_claim_is_named(changes: dict[str, Any], reason: str) -> None:
    """A 401 without the reason is hard to debug."""
    with pytest.raises(NotAuthenticated, match=reason):
        await tokens().authenticate(signed(**changes), FREE)


@pytest.mark.parametrize("name", ["shop", "s" * 128, "auth0|5f7c", "a.b:c@d~e+f-g_h", "0"])
async def test_subjects_of_common_identity_providers_are_valid_merchant_names(name: str) -> None:
    """They need no mapping."""
    assert (await tokens().authenticate(signed(merchant=name), FREE)).merchant == name


async def test_one_of_several_audiences_is_enough() -> None:
    """RFC 7519 §4.1.3; identity providers add their own."""
    assert await tokens().authenticate(signed(aud=["userinfo", "product-gateway"]), FREE)


async def test_issuer_audience_and_merchant_claim_are_settings() -> None:
    """Identity providers use different values."""
    theirs = tokens(jwt_issuer="https://id.example/", jwt_audience="gateway", jwt_merchant_claim="https://x/tenant")
    good: dict[str, Any] = {"iss": "https://id.example/", "aud": "gateway", "https://x/tenant": "acme"}
    assert (await theirs.authenticate(signed(**good), FREE)).merchant == "acme"
    with pytest.raises(NotAuthenticated, match=r"another (issuer|audience)"):
        await theirs.authenticate(signed(), FREE)


UNUSED_CLAIMS: dict[str, Any] = {
    "sub": 17, "jti": 5, "azp": ["a"], "nonce": None, "auth_time": "yesterday", "cnf": {"x5t#S256": 1},
    "realm_access": {"roles": [{"a": {"b": [1, [2, [3]]]}}]}, "big": 10**399, "huge": 1e300, "": "empty", "amr": [[]],
}  # fmt: skip


@pytest.mark.parametrize(("claim", "value"), UNUSED_CLAIMS.items())
async def test_a_claim_that_is_not_used_may_have_any_value(claim: str, value: Any) -> None:
    """Identity providers put numbers into sub and objects into custom claims."""
    everything = {"merchant": "shop", "iss": "product-gateway", "aud": "product-gateway", "exp": NOW + 86400}
    caller = await tokens().authenticate(written(GOOD, {**everything, claim: value}, by(KEY)), FREE)
    assert caller.merchant == "shop"


async def test_a_claim_that_is_not_used_may_be_a_number_of_5000_digits() -> None:
    """Python refuses to parse integers of more than 4,300 digits."""
    text = json.dumps(claims())[:-1] + f', "x": -{HUGE}}}'
    assert (await tokens().authenticate(written(GOOD, text, by(KEY)), FREE)).merchant == "shop"
    for name in ("exp", "nbf", "iat"):
        with pytest.raises(NotAuthenticated, match=f"its claim {name} must be a number of seconds"):
            await tokens().authenticate(
                written(GOOD, json.dumps(claims())[:-1] + f', "{name}": {HUGE}}}', by(KEY)), FREE
            )


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_a_clock_that_is_a_little_fast_does_not_invalidate_a_token(claim: str) -> None:
    """The leeway is a setting and does not apply to exp."""
    soon = {claim: time.time() + 6}
    assert await tokens().authenticate(signed(**soon), FREE)
    with pytest.raises(NotAuthenticated, match=rf"not valid yet.*\({claim}\)"):
        await tokens(jwt_leeway_seconds=0).authenticate(signed(**soon), FREE)
    later = {claim: time.time() + 40}
    with pytest.raises(NotAuthenticated, match=rf"not valid yet.*\({claim}\)"):
        await tokens().authenticate(signed(**later), FREE)
    assert await tokens(jwt_leeway_seconds=60).authenticate(signed(**later), FREE)
    with pytest.raises(NotAuthenticated, match="has expired"):
        await tokens(jwt_leeway_seconds=60).authenticate(signed(exp=time.time() - 0.5), FREE)


@pytest.mark.parametrize("levels", [65, 1000, 2500])
async def test_a_token_that_is_nested_too_deep_is_refused(levels: int) -> None:
    """With a fixed limit: the interpreter's limit depends on its version."""
    nested = "[" * levels + "]" * levels
    with pytest.raises(NotAuthenticated, match="its header is nested more than 64 levels deep"):
        await tokens().authenticate(written(f'{{"alg":"ES256","x":{nested}}}', claims(), by(KEY)), FREE)
    with pytest.raises(NotAuthenticated, match="its payload is nested more than 64 levels deep"):
        await tokens().authenticate(written(GOOD, f'{{"x":{nested}}}', by(KEY)), FREE)


FAULTY_HEADERS: list[tuple[Any, str]] = [
    ({"typ": "JWT"}, "its header must have alg, a string"),
    ({"alg": ["ES256"]}, "its header must have alg, a string"),
    ({"alg": "none"}, r"it is not signed \(its alg is none\)"),
    ({"alg": "HS256"}, "its alg HS256 needs a shared secret"),
    ({"alg": "ES256K"}, "its alg must be one of RS256, "),
    ({"alg": "es256"}, "its alg must be one of RS256, "),
    ({"alg": "RS256"}, "its alg must be ES256, "),
    ({"alg": "ES256", "kid": 5}, "its header's kid must be a string"),
    ({"alg": "ES256", "kid": None}, "its header's kid must be a string"),
    ({"alg": "ES256", "crit": ["exp"]}, "its header has crit"),
    ({"alg": "ES256", "b64": False}, "its header's b64 must be true"),
    ("[]", "its header is not a JSON object"),
    ("hello", "its header is not JSON in UTF-8"),
    (b'{"alg":"\xff"}', "its header is not JSON in UTF-8"),
]


@pytest.mark.parametrize(("header", "reason"), FAULTY_HEADERS)
async def test_the_refusal_names_the_member_of_the_header_that_is_at_fault(header: Any, reason: str) -> None:
    """The client must change it."""
    with pytest.raises(NotAuthenticated, match=reason):
        await tokens().authenticate(written(header, claims(), by(KEY)), FREE)


async def test_an_encrypted_or_opaque_token_is_refused_with_the_reason() -> None:
    """The gateway reads signed JWTs only."""
    with pytest.raises(NotAuthenticated, match=r"it is encrypted \(JWE, five parts"):
        await tokens().authenticate("a.b.c.d.e", FREE)
    for opaque in ("garbage", "a.b", "a.b.c.d", signed() + ".x"):
        with pytest.raises(NotAuthenticated, match="it is not a JWT, which has three parts"):
            await tokens().authenticate(opaque, FREE)


async def test_the_refusal_of_a_wrong_signature_names_the_expected_key(tmp_path: Path) -> None:
    """And says how to get a valid token."""
    (tmp_path / "key.pem").write_bytes(PEM)
    forged = written(GOOD, claims(), by(OTHER))
    meant: list[tuple[dict[str, Any], str]] = [
        ({}, "this server's key. For a local token, run `product-gateway token` with the server's data directory"),
        ({"jwt_public_key_file": tmp_path / "key.pem"}, "the key of the issuer that this server trusts"),
        ({"jwks_url": "https://id.example/keys"}, "the key that its issuer publishes under its kid"),
    ]
    for overrides, reason in meant:
        with pytest.raises(NotAuthenticated, match=f"it was not signed with {reason}"):
            await tokens(**overrides).authenticate(forged, FREE)


async def test_the_expected_issuer_and_audience_are_only_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The client must not learn the configuration; the operator sees both values."""
    caplog.set_level("INFO", "product_gateway")
    theirs = tokens(jwt_issuer="https://id.example/expected", jwt_audience="expected-audience")
    different: list[tuple[dict[str, Any], str, str]] = [
        ({"iss": "https://id.example/\nfound"}, "JWT_ISSUER", "https://id.example/expected"),
        ({"iss": "https://id.example/expected", "aud": ["found"]}, "JWT_AUDIENCE", "expected-audience"),
    ]
    for changes, name, expected in different:
        caplog.clear()
        with pytest.raises(NotAuthenticated) as refusal:
            await theirs.authenticate(signed(**changes), FREE)
        assert "expected" not in refusal.value.detail
        (line,) = (each.getMessage() for each in caplog.records)
        assert f"PRODUCT_GATEWAY_{name} is '{expected}'" in line
        assert "found" in line
        assert "\n" not in line


async def test_a_token_of_more_than_8_kilobytes_is_refused() -> None:
    """Common proxies do not pass longer headers."""
    assert await tokens().authenticate(signed(note="x" * 5000), FREE)
    with pytest.raises(NotAuthenticated, match="longer than 8192"):
        await tokens().authenticate(signed(note="x" * 7000), FREE)


NO_SCOPES: list[Any] = [
    None, "", "sync:write", "sync", "sync:reads", "SYNC:READ", "sync:read,sync:write", 5, True, {}, {"sync:read": 1},
    [], ["sync:write"], [["sync:read"]], [5, None, {"a": "sync:read"}], ["sync:read,sync:write"],
]  # fmt: skip


@pytest.mark.parametrize("claim", ["scope", "scp", "permissions"])
@pytest.mark.parametrize("scope", NO_SCOPES)
async def test_a_token_without_the_scope_of_the_operation_is_refused(claim: str, scope: object) -> None:
    """Only whole words of a string or whole members of a list match."""
    with pytest.raises(MissingScope, match=r"the scope sync:read,.*claims scope, scp, permissions:") as refusal:
        await tokens().authenticate(signed(**{"scope": None, claim: scope}), {"x-required-scope": "sync:read"})
    assert refusal.value.scope == "sync:read"


SCOPE_FORMS: list[dict[str, Any]] = [
    {"scope": "sync:read"},
    {"scope": "openid sync:read  x"},
    {"scope": ["openid", "sync:read"]},
    {"scp": "profile sync:read"},  # Entra ID
    {"scp": ["sync:read"]},  # Okta
    {"scope": "openid profile", "permissions": ["sync:read"]},  # Auth0
    {"scope": 5, "scp": [None, "sync:read"]},
    {"scope": "openid product-gateway/sync:read"},  # Cognito, with the resource server's name
]


@pytest.mark.parametrize("form", SCOPE_FORMS)
async def test_scopes_are_read_from_the_common_claims(form: dict[str, Any]) -> None:
    """Identity providers use different claims."""
    assert await tokens().authenticate(signed(**{"scope": None, **form}), {"x-required-scope": "sync:read"})


@pytest.mark.parametrize("value", ["sync:read", ["a", "sync:read"]])
async def test_a_configured_scope_claim_replaces_the_common_ones(value: Any) -> None:
    """Such as `roles`, or a name that is a URL."""
    for name in ("roles", "https://id.example/scopes"):
        theirs = tokens(jwt_scope_claim=name)
        assert await theirs.authenticate(signed(scope=None, **{name: value}), {"x-required-scope": "sync:read"})
        with pytest.raises(MissingScope, match=f"from the claim {name}:"):
            await theirs.authenticate(signed(scope="sync:read", scp=["sync:read"]), {"x-required-scope": "sync:read"})


async def test_scopes_of_other_services_are_ignored() -> None:
    assert await tokens().authenticate(signed(scope="openid sync:read x"), {"x-required-scope": "sync:read"})
    for other in ("other/sync:read", "x/product-gateway/sync:read", "product-gateway/x/sync:read", "sync:read/"):
        with pytest.raises(MissingScope):
            await tokens().authenticate(signed(scope=other), {"x-required-scope": "sync:read"})


async def test_an_invalid_token_is_refused_before_its_scopes_are_checked() -> None:
    """401 comes before 403."""
    with pytest.raises(NotAuthenticated):
        await tokens().authenticate(NOT_OURS["signed with another key"], {"x-required-scope": "sync:write"})


def test_every_secured_operation_names_an_existing_scope() -> None:
    """Without a scope it would be open to every token; with an unknown scope, to none."""
    document = documents.load(documents.GATEWAY)
    for path, method, operation in documents.operations(document):
        secured = bool(operation.get("security", document["security"]))
        named = operation.get("x-required-scope")
        assert (named in keys.SCOPES) if secured else named is None, f"x-required-scope of {method} {path}: {named}"


@pytest.fixture(scope="module")
def gateway(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Settings]]:
    """Start a gateway with its own key; yield its URL and settings."""
    theirs = settings.load(data_dir=tmp_path_factory.mktemp("data"))
    shutil.copy(sqlite_template, theirs.data_dir / "gateway.db")
    with serve(create_app(theirs)) as url:
        yield url, theirs


CHALLENGE = 'Bearer realm="product-gateway"'
METADATA = ', resource_metadata="{}/.well-known/oauth-protected-resource"'
HEADERS: list[tuple[list[tuple[str, bytes]], str]] = [
    ([], CHALLENGE),
    ([("Authorization", b"")], CHALLENGE),
    ([("Authorization", b"Bearer")], CHALLENGE),
    ([("Authorization", b"Basic c2hvcDpzaG9w")], CHALLENGE),
    ([("Authorization", b"Bearer garbage")], f'{CHALLENGE}, error="invalid_token"'),
    ([("Authorization", b"Bearer " + "tökén".encode())], f'{CHALLENGE}, error="invalid_token"'),
    ([("Authorization", b"Bearer " + b"x" * 9000)], f'{CHALLENGE}, error="invalid_token"'),
    ([("Authorization", b"Bearer a.b.c"), ("Authorization", b"Bearer a.b.c")], f'{CHALLENGE}, error="invalid_token"'),
]


@pytest.mark.parametrize(("headers", "challenge"), HEADERS)
def test_a_request_without_a_valid_token_is_401_with_a_challenge(
    gateway: tuple[str, Settings], headers: list[tuple[str, bytes]], challenge: str
) -> None:
    """RFC 6750 §3: the challenge has an error only if the request has a token."""
    sent = [(name.encode(), value) for name, value in headers]
    answer = httpx2.get(f"{gateway[0]}/product-gateway/v1/sync/PRODUCT", headers=sent)
    (error,) = answer.json()["error"]
    described = f', error_description="{error["detail"]}"' if "error=" in challenge else ""
    wanted = f"{challenge}{described}{METADATA.format(gateway[0])}"
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, wanted)
    assert (error["status"], error["title"]) == ("401", "Unauthorized")


def test_a_missing_scope_is_403_and_named_in_the_challenge(gateway: tuple[str, Settings]) -> None:
    """RFC 6750 §3.1: insufficient_scope, before the parameters are validated."""
    url, theirs = gateway
    token = keys.issue_token(theirs, "shop", ["sync:read"], timedelta(minutes=1))
    answer = httpx2.put(f"{url}/product-gateway/v1/sync/NONSENSE", headers={"Authorization": f"bearer {token}"})
    assert answer.status_code == 403
    wanted = f'{CHALLENGE}, error="insufficient_scope", scope="sync:write"{METADATA.format(url)}'
    assert answer.headers["WWW-Authenticate"] == wanted


class TwoKeys:
    """A key source with one key at a time."""

    def __init__(self) -> None:
        self.key: VerificationKey | None = verifying(KEY)

    async def find(self, key_id: str | None, algorithm: str) -> VerificationKey:
        if self.key is None:
            raise NotAuthenticated("There is no such key.")
        return self.key


async def test_a_signature_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than the rest of a request."""
    checked, token = tokens(), signed()
    first = await checked.authenticate(token, FREE)
    monkeypatch.delattr(jwt.PyJWS, "decode")
    assert await checked.authenticate(token, FREE) == first
    with pytest.raises(MissingScope):
        await checked.authenticate(token, {"x-required-scope": "sync:write"})


@pytest.mark.parametrize("after", [None, verifying(OTHER)])
async def test_a_cached_token_is_refused_when_its_key_is_gone(after: VerificationKey | None) -> None:
    """Withdrawn, or replaced under the same key id."""
    issuer = TwoKeys()
    checked, token = TokenVerifier(settings.load(), issuer.find), signed()
    at_first = issuer.key
    await checked.authenticate(token, FREE)
    issuer.key = after
    for _ in range(2):
        with pytest.raises(NotAuthenticated):
            await checked.authenticate(token, FREE)
    issuer.key = at_first
    await checked.authenticate(token, FREE)


async def test_a_cached_token_is_refused_when_it_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the second."""
    checked, now = tokens(), time.time()
    token = signed(exp=int(now) + 100)
    await checked.authenticate(token, FREE)
    monkeypatch.setattr(time, "time", lambda: int(now) + 99.9)
    await checked.authenticate(token, FREE)
    monkeypatch.setattr(time, "time", lambda: int(now) + 100)
    with pytest.raises(NotAuthenticated, match="expired"):
        await checked.authenticate(token, FREE)


async def test_the_cache_of_verified_tokens_is_bounded() -> None:
    """An issuer can sign any number of tokens."""
    checked = TokenVerifier(settings.load(), static_key(verifying(KEY)), cache_size=2)
    for name in ("one", "two", "three", "one"):
        assert (await checked.authenticate(signed(merchant=name), FREE)).merchant == name
        assert len(checked._cache) <= 2


def test_a_merchant_that_is_disabled_is_refused_at_once(database_url: str, database: Database, tmp_path: Path) -> None:
    """Although its token is cached. It is served again after it is enabled."""
    made = settings.load(data_dir=tmp_path, database_url=database_url)
    token = keys.issue_token(made, "shop", list(keys.SCOPES), timedelta(hours=1))
    asked = [("PUT", "sync/PRODUCT"), ("GET", "sync/PRODUCT"), ("GET", "products"), ("DELETE", "sync/PRODUCT")]
    with (
        serve(create_app(made)) as url,
        httpx2.Client(headers={"Authorization": f"Bearer {token}"}, timeout=30) as shop,
    ):
        for disabled, refused in ((False, False), (True, True), (False, False)):
            database.call(merchants.update_merchant, "shop", disabled=disabled)
            for method, path in asked:
                answer = shop.request(method, f"{url}/product-gateway/v1/{path}")
                assert (answer.status_code == 403) == refused, answer.text
