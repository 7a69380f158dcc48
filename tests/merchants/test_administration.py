"""registry: what the operator says of merchants is checked before it is stored, and secrets are not stored plain."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from product_gateway import settings
from product_gateway.auth.encryption import Secrets
from product_gateway.db import encrypted, freshness, merchants, webhooks
from product_gateway.db.database import Database, open_database
from product_gateway.errors import SettingsError
from product_gateway.merchants import administration
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from product_gateway.settings import Settings
from tests.support.max_ages import set_back

TOKEN = "the-plain-token-of-the-merchant"
URL = "https://shop.example/api"


@pytest.fixture
def theirs(tmp_path: Path) -> Settings:
    """Settings as in production, but for the folder."""
    return settings.load(data_dir=tmp_path, database_url=f"sqlite:///{tmp_path / 'gateway.db'}")


@pytest.fixture
def empty(theirs: Settings, sqlite_template: Path) -> Iterator[Database]:
    """The settings' database, without merchants."""
    (theirs.data_dir / "gateway.db").write_bytes(sqlite_template.read_bytes())
    with open_database(theirs.database) as database:
        yield database


def values(theirs: Settings, **given: Any) -> dict[str, Any]:
    """Of a merchant, as the command line gives them."""
    unset = {"url": None, "token_file": None}
    return administration.validated(theirs, **{**unset, **given})


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("https://shop.example", "https://shop.example"),
        ("https://shop.example/", "https://shop.example"),
        ("https://shop.example/a/b//", "https://shop.example/a/b"),
        ("https://shop.example:8443/%7Eapi", "https://shop.example:8443/%7Eapi"),
        ("https://[2001:db8::1]:8443/api", "https://[2001:db8::1]:8443/api"),
        ("https://shöp.example", "https://shöp.example"),
    ],
)
def test_the_address_of_a_product_service_is_a_place_that_paths_can_be_added_to(
    theirs: Settings, url: str, stored: str
) -> None:
    """/products and /collections come behind it."""
    assert values(theirs, url=url) == {"product_service_url": stored}


NO_ADDRESSES = {
    "no scheme": "shop.example",
    "another scheme": "ftp://shop.example",
    "a file": "file:///etc/passwd",
    "no host": "https://",
    "a path only": "https:///products",
    "a port only": "https://:443/",
    "port 0": "https://shop.example:0",
    "a port that is too high": "https://shop.example:65536",
    "a port that is no number": "https://shop.example:https",
    "half an IPv6 address": "https://[::1",
    "a user": "https://user@shop.example",
    "a password": "https://user:hunter2@shop.example",
    "a query": "https://shop.example/?page=1",
    "an empty query": "https://shop.example/?",
    "a fragment": "https://shop.example/#top",
    "an empty fragment": "https://shop.example/#",
    "a space": "https://shop.example/my api",
    "a line break": "https://shop.example\n",
    "a NUL": "https://shop.example/\0",
    "a backslash": "https://shop.example\\@other.example",
    "bytes that are no text": "https://shop.example/\udcff",
    "nothing": "",
}


@pytest.mark.parametrize("url", NO_ADDRESSES.values(), ids=NO_ADDRESSES)
def test_what_is_not_such_an_address_is_refused_at_once(theirs: Settings, url: str) -> None:
    """Better than a sync that fails for a reason that only the gateway's operator can mend."""
    with pytest.raises(SettingsError, match="is not the address of a product service: https://, a host and perhaps"):
        values(theirs, url=url)


def test_plain_http_is_for_private_networks_that_are_meant(theirs: Settings) -> None:
    """Every pull would be refused by the one HTTP client."""
    with pytest.raises(SettingsError, match="PRODUCT_GATEWAY_ALLOW_PRIVATE_ADDRESSES=true allows http://"):
        values(theirs, url="http://10.0.0.7:8081")
    meant = settings.load(data_dir=theirs.data_dir, allow_private_addresses=True)
    assert values(meant, url="http://10.0.0.7:8081") == {"product_service_url": "http://10.0.0.7:8081"}


@pytest.mark.parametrize("currency", ["", "gbp", "GB", "GBPS", "£", "G1P", "GBP\n", "ＧＢＰ"])
def test_a_currency_is_a_code_of_three_capital_letters(theirs: Settings, currency: str) -> None:
    """Prices are minor units of it, so a slip would be a wrong price everywhere."""
    assert values(theirs, currency="GBP") == {"currency": "GBP"}
    with pytest.raises(SettingsError, match=r"is not a currency\. Give its code of ISO 4217, such as GBP"):
        values(theirs, currency=currency)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (["PRODUCT=1m"], {EntityType.PRODUCT: 60}),
        (["PRODUCT=90m", "COLLECTION=7d"], {EntityType.PRODUCT: 5400, EntityType.COLLECTION: 604800}),
        (["product=24H"], {EntityType.PRODUCT: 86400}),
        (["COLLECTION=3650d"], {EntityType.COLLECTION: 3650 * 86400}),
        (["PRODUCT=off", "COLLECTION=OFF"], dict.fromkeys(EntityType)),
        ([], {}),
    ],
)
def test_a_max_age_is_a_number_of_minutes_hours_or_days(
    given: list[str], seconds: dict[EntityType, int | None]
) -> None:
    """Of either entity type."""
    assert administration.max_ages(given) == seconds


NO_AGES = ["", "24h", "PRODUCT", "PRODUCT=", "PRODUCT=24", "PRODUCT=1w", "PRODUCT=30s", "PRODUCT=0h", "PRODUCT=-1h"]
NO_AGES += ["PRODUCT=1.5h", "PRODUCT=3651d", "PRODUCT=9999999d", "PRODUCT=99999999999m", "SHOP=1h", "PRODUCT=1h "]
NO_AGES += ["PRODUCT = 1h", "PRODUCT=1h30m", "PRODUCT=٣h", "PRODUCT=none"]


@pytest.mark.parametrize("given", NO_AGES)
def test_what_is_not_a_max_age_is_refused_with_the_forms(given: str) -> None:
    """An operator need not look them up."""
    with pytest.raises(
        SettingsError, match=r"PRODUCT=90m, PRODUCT=24h or COLLECTION=7d, from 1m to 3650d\. PRODUCT=off"
    ):
        administration.max_ages([given])


def test_two_max_ages_of_one_entity_type_are_refused() -> None:
    """One of them is a slip of the pen."""
    with pytest.raises(SettingsError, match="--max-age has two values for PRODUCT"):
        administration.max_ages(["PRODUCT=1h", "COLLECTION=1h", "PRODUCT=off"])


@pytest.mark.parametrize(("seconds", "shown"), [(60, "1m"), (5400, "90m"), (7200, "2h"), (86400, "1d"), (90000, "25h")])
def test_a_max_age_is_shown_in_the_form_in_which_it_is_given(seconds: int, shown: str) -> None:
    """So that it can be copied."""
    assert administration.age_as_text(seconds) == shown
    assert administration.max_ages([f"PRODUCT={shown}"]) == {EntityType.PRODUCT: seconds}


def test_the_description_says_since_when_a_catalog_is_stale(theirs: Settings, empty: Database) -> None:
    """And the message about it."""
    administration.add(empty, "shop", Platform.BYOP, values(theirs, url=URL), None, {EntityType.PRODUCT: 3600})
    empty.call(webhooks.put, "shop", url="https://shop.example/hook", secret="encrypted")
    set_back(empty, 7200)
    empty.call(freshness.mark, 1)
    found = administration.Description.read(empty, "shop")
    assert re.search(r"\n  max age +1h, stale since \d{4}-", found.text())
    assert "catalog.stale of PRODUCT: PENDING" in found.text()
    assert (found.body()["catalog"]["PRODUCT"]["stale"], found.body()["messages"][0]["syncId"]) == (True, None)
    assert administration.update(empty, "shop", {}, None, {EntityType.PRODUCT: None}).name == "shop"
    assert "max age" not in administration.Description.read(empty, "shop").text()


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"two\nlines", b"t\xc3\xb6ken", b"\xff", b"a\0b"])
def test_a_file_without_a_bearer_token_is_refused(theirs: Settings, tmp_path: Path, content: bytes) -> None:
    """What cannot stand in an HTTP header never will."""
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match="token does not hold a bearer token: one line of ASCII"):
        values(theirs, token_file=file)


@pytest.mark.parametrize("name", ["", "-shop", "my shop", "../shop", "shop\n", "sh\0p", "shöp", "\udcff", "s" * 129])
def test_names_that_no_token_may_carry_are_refused(theirs: Settings, empty: Database, name: str) -> None:
    """The merchant could never ask for anything."""
    with pytest.raises(SettingsError, match="cannot be a merchant's name: up to 128 letters"):
        administration.add(empty, name, Platform.BENTO, {})
    assert empty.call(merchants.list_all) == []


def test_who_brings_a_platform_needs_an_address_and_keeps_one(theirs: Settings, empty: Database) -> None:
    """There would be nothing to sync from."""
    with pytest.raises(SettingsError, match="needs --product-service-url"):
        administration.add(empty, "shop", Platform.BYOP, values(theirs))
    administration.add(empty, "shop", Platform.BENTO, values(theirs))
    with pytest.raises(SettingsError, match="add --product-service-url"):
        administration.update(empty, "shop", {"platform": Platform.BYOP})
    changed = administration.update(empty, "shop", values(theirs, url=URL, platform=Platform.BYOP))
    assert (changed.platform, changed.product_service_url) == (Platform.BYOP, URL)


def test_what_is_not_named_stays_as_it_is(theirs: Settings, empty: Database, tmp_path: Path) -> None:
    """An update of one thing must not undo another."""
    (tmp_path / "token").write_text(TOKEN)
    given = values(theirs, url=URL, token_file=tmp_path / "token", currency="GBP", max_rejected_percent=3)
    before = administration.add(empty, "shop", Platform.BYOP, given)
    after = administration.update(empty, "shop", {"disabled": True})
    assert after.disabled
    for name in ("platform", "product_service_url", "product_service_token", "currency", "max_rejected_percent"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.updated_at >= before.updated_at
    with pytest.raises(SettingsError, match="Nothing to change"):
        administration.update(empty, "shop", {})


def test_a_merchants_token_is_nowhere_in_the_database(theirs: Settings, empty: Database, tmp_path: Path) -> None:
    """A copy or a backup of the database does not give access to a merchant's shop."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    given = values(theirs, url=URL, token_file=tmp_path / "token")
    administration.add(empty, "shop", Platform.BYOP, given)
    stored = administration.update(empty, "shop", values(theirs, token_file=tmp_path / "token"))
    content = b"".join(path.read_bytes() for path in tmp_path.glob("gateway.db*"))  # with what is not moved over yet
    assert URL.encode() in content
    assert TOKEN.encode() not in content
    empty.close()
    assert TOKEN.encode() not in (tmp_path / "gateway.db").read_bytes()
    assert Secrets(theirs).decrypt(str(stored.product_service_token)) == TOKEN


def test_the_description_of_a_merchant_has_no_secrets(theirs: Settings, empty: Database, tmp_path: Path) -> None:
    """Operators paste it into tickets."""
    (tmp_path / "token").write_text(TOKEN)
    given = values(theirs, url=URL, token_file=tmp_path / "token", currency="GBP")
    stored = administration.add(empty, "shop", Platform.BYOP, given).product_service_token
    text = administration.Description.read(empty, "shop").text()
    for shown in ("shop", "BYOP", "enabled", URL, "GBP", "products", "collections", "never synced"):
        assert shown in text
    assert TOKEN not in text
    assert str(stored) not in text
    assert TOKEN not in repr(empty.call(merchants.get, "shop"))


def test_who_is_not_there_is_said_by_name(empty: Database) -> None:
    """Slips of the pen are the common case."""
    for work in (
        lambda: administration.Description.read(empty, "unknown").text(),
        lambda: administration.update(empty, "unknown", {"disabled": True}),
        lambda: administration.allow_mass_deletion(empty, "unknown", EntityType.PRODUCT),
    ):
        with pytest.raises(SettingsError, match=r"There is no merchant unknown\. `product-gateway merchant list`"):
            work()


def test_all_stored_secrets_are_encrypted_with_the_first_key(database: Database, tmp_path: Path) -> None:
    """Tokens, webhooks' secrets and their previous ones; what no key reads is named and kept."""
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()

    def holding(*lines: str) -> Settings:
        (tmp_path / "keys").write_text("\n".join(lines))
        return settings.load(data_dir=tmp_path, secret_key_file=tmp_path / "keys")

    before = Secrets(holding(old))
    for name in ("one", "two"):
        database.call(merchants.add, name, Platform.BYOP, URL, before.encrypt(f"token of {name}"))
    database.call(merchants.add, "none", Platform.BYOP, URL, None)
    for secret in ("first", "second"):
        database.call(webhooks.put, "one", url=URL, secret=before.encrypt(secret))
    both = holding(new, old)
    assert administration.reencrypt(both, database) == (4, 0, [])
    assert administration.reencrypt(both, database) == (0, 4, [])

    after = Secrets(holding(new))
    for name in ("one", "two"):
        assert after.decrypt(str(database.call(merchants.get, name).product_service_token)) == f"token of {name}"
    webhook = database.call(webhooks.find, "one")
    assert webhook is not None
    assert [after.decrypt(str(each)) for each in (webhook.secret, webhook.previous_secret)] == ["second", "first"]

    stranger = Fernet.generate_key().decode()
    database.call(merchants.update_merchant, "two", product_service_token=Secrets(holding(stranger)).encrypt("x"))
    kept = database.call(merchants.get, "two").product_service_token
    done = administration.reencrypt(holding(old, new), database)
    assert done == (3, 0, ["two (product service token)"])
    assert database.call(merchants.get, "two").product_service_token == kept


def test_a_secret_that_was_changed_meanwhile_is_not_overwritten(database: Database) -> None:
    """Another command may set a new token while the old ones are encrypted anew."""
    database.call(merchants.update_merchant, "shop", product_service_token="old")
    (found,) = (each for each in database.call(encrypted.all_of_them) if each.merchant == "shop")
    assert "old" not in repr(found)
    database.call(merchants.update_merchant, "shop", product_service_token="changed")
    assert not database.call(encrypted.replace, found, "renewed")
    assert database.call(merchants.get, "shop").product_service_token == "changed"
