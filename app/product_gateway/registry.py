"""What the operator does to merchants: checked, and with their tokens encrypted before they are stored."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from product_gateway.db import Database, catalog, merchants, syncs
from product_gateway.errors import SettingsError
from product_gateway.keys import Secrets, merchant_name
from product_gateway.model import EntityType, Merchant, Platform
from product_gateway.settings import Settings

PRUNED_AT_ONCE = 200

Values = dict[str, Any]


def checked(
    settings: Settings, url: str | None, token_file: Path | None, currency: str | None, max_rejected_percent: int | None
) -> Values:
    """What is not None as columns of a merchant. Raises SettingsError."""
    values: Values = {}
    if url is not None:
        values["product_service_url"] = _checked_url(settings, url)
    if token_file is not None:
        values["product_service_token"] = Secrets(settings).encrypt(token_in(token_file))
    if currency is not None:
        if not re.fullmatch("[A-Z]{3}", currency):
            raise SettingsError(f"{currency!r} is not a currency. Give its code of ISO 4217, such as GBP.")
        values["currency"] = currency
    if max_rejected_percent is not None:
        values["max_rejected_percent"] = max_rejected_percent
    return values


def add(database: Database, name: str, platform: Platform, values: Values) -> Merchant:
    """A new merchant. Contacts nothing. Raises SettingsError."""
    if platform is Platform.BYOP and "product_service_url" not in values:
        raise SettingsError("A merchant who brings their own platform needs --product-service-url.")
    return database.call(merchants.add, merchant_name(name), platform, **values)


def update(database: Database, name: str, platform: Platform | None, disabled: bool | None, values: Values) -> Merchant:
    """Changes what is not None, and the values. Raises SettingsError."""
    if platform is not None:
        values = {**values, "platform": platform}
    if disabled is not None:
        values = {**values, "disabled": disabled}
    if not values:
        raise SettingsError("Nothing to change: name at least one of the options, which --help shows.")
    return database.call(merchants.change, name, **values)


def allow_mass_deletion(database: Database, name: str, entity_type: EntityType) -> None:
    """For the next successful sync of the entity type. Raises SettingsError."""
    database.call(merchants.get, name)
    database.call(catalog.allow_mass_deletion, name, entity_type)


def prune(settings: Settings, database: Database) -> int:
    """Drops the syncs that are older than the settings keep them; how many."""
    dropped = 0
    while found := database.call(syncs.prune, settings.retention_days, PRUNED_AT_ONCE):
        dropped += found
    return dropped


def describe(database: Database, name: str) -> str:
    """The merchant in words, without secrets. Raises SettingsError."""
    merchant = database.call(merchants.get, name)
    lines = [
        ("name", merchant.name),
        ("platform", merchant.platform),
        ("state", "disabled" if merchant.disabled else "enabled"),
        ("product service", merchant.product_service_url or "-"),
        ("its token", "set" if merchant.product_service_token else "not set"),
        ("currency", merchant.currency or "-"),
        ("may be rejected", f"{merchant.max_rejected_percent} %"),
        ("added", f"{merchant.created_at:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    for entity_type in EntityType:
        state, latest = database.call(catalog.state_and_latest_sync, name, entity_type)
        last = "never synced" if latest is None else f"last sync {latest.id} {latest.status}"
        lines.append((f"{entity_type.lower()}s", f"{state.num_records}, {last}"))
    return "\n".join(f"{label:16}{value}" for label, value in lines)


def _checked_url(settings: Settings, url: str) -> str:
    try:
        parts = urlsplit(url)
        wanted = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        wanted = False
    if not wanted or not url.isprintable() or set(url) & set(" \\?#@"):
        raise SettingsError(
            f"{_shown(url)} is not the address of a product service: https://, a host and perhaps a path, without a "
            "user, query or fragment. /products and /collections are added to it."
        )
    if parts.scheme == "http" and not settings.allow_private_addresses:
        raise SettingsError(
            f"{_shown(url)} would be called without encryption. Give an https:// address; on a private network, "
            "PRODUCT_GATEWAY_ALLOW_PRIVATE_ADDRESSES=true allows http://."
        )
    return url.rstrip("/")


def _shown(url: str) -> str:
    """Without what may be a password or a key: what a command says ends up in the log of a pipeline."""
    return repr(re.sub(r"//.*@", "//***@", re.sub(r"[?#].*", "?***", url, flags=re.DOTALL), flags=re.DOTALL)[:200])


def token_in(path: Path) -> str:
    """The bearer token that a file holds. Raises SettingsError."""
    try:
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise SettingsError(f"{path} does not hold a bearer token: one line of ASCII without spaces.")
    return token
