"""Administration of merchants: arguments are validated, secrets are encrypted before they are stored."""

import base64
import binascii
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from product_gateway.auth.encryption import Secrets
from product_gateway.auth.keys import merchant_name
from product_gateway.db import catalog, catalog_removal, encrypted, freshness, merchants, syncs, webhooks
from product_gateway.db.database import Database
from product_gateway.errors import SettingsError
from product_gateway.merchants.currencies import CODES
from product_gateway.model.catalog import MaxAge
from product_gateway.model.merchants import Merchant, Platform
from product_gateway.model.syncs import EntityType, Sync
from product_gateway.model.webhooks import Delivery, DeliveryStatus
from product_gateway.openapi.bodies import rfc3339, sync_body
from product_gateway.settings import Settings, is_http_address
from product_gateway.telemetry.visible_text import visible

PRUNED_AT_ONCE = 200  # syncs of one transaction
SECRET_BYTES = range(24, 65)  # of a webhook (Standard Webhooks, "Signature scheme")
DELIVERIES_SHOWN = 5
AGE_UNITS = {"d": 86400, "h": 3600, "m": 60}
LONGEST_AGE = 3650 * 86400
PERMISSION = "PRODUCT_GATEWAY_ALLOW_PRIVATE_ADDRESSES=true"

Values = dict[str, Any]
Ages = Mapping[EntityType, int | None]  # seconds, None to remove a max age


@dataclass(frozen=True, slots=True)
class WebhookChange:
    """What is to become of a merchant's webhook: columns to set, its secret encrypted; or `off`.

    `fresh` is a secret made up, plain and encrypted, also for a webhook that has none yet.
    """

    values: dict[str, str]
    off: bool = False
    fresh: tuple[str, str] = field(default=("", ""), repr=False)


def validated(settings: Settings, url: str | None, token_file: Path | None, **columns: Any) -> Values:
    """Return the arguments that are not None as columns. Raises SettingsError."""
    values = {name: value for name, value in columns.items() if value is not None}
    if url is not None:
        values["product_service_url"] = checked_url(settings, url)
    if token_file is not None:
        values["product_service_token"] = Secrets(settings).encrypt(token_in(token_file))
    if "currency" in values and values["currency"] not in CODES:
        raise SettingsError(f"{values['currency']!r} is not a currency. Give its code of ISO 4217, such as GBP.")
    return values


def max_ages(given: Iterable[str]) -> dict[EntityType, int | None]:
    """Return the seconds for each entity type, None to remove a max age. Raises SettingsError."""
    found: dict[EntityType, int | None] = {}
    for each in given:
        fits = re.fullmatch(r"(PRODUCT|COLLECTION)=(?:(\d{1,7})([dhm])|off)", each, re.IGNORECASE | re.ASCII)
        seconds = int(fits[2]) * AGE_UNITS[fits[3].lower()] if fits and fits[2] else None
        if fits is None or (seconds is not None and not 0 < seconds <= LONGEST_AGE):
            raise SettingsError(
                f"--max-age {each!r}: give an entity type and an age, such as PRODUCT=90m, PRODUCT=24h or "
                "COLLECTION=7d, from 1m to 3650d. PRODUCT=off removes the max age."
            )
        entity_type = EntityType(fits[1].upper())
        if entity_type in found:
            raise SettingsError(f"--max-age has two values for {entity_type}. Give one.")
        found[entity_type] = seconds
    return found


def age_as_text(seconds: int) -> str:
    """Return the age in the form of --max-age."""
    unit, length = next((unit, length) for unit, length in AGE_UNITS.items() if seconds % length == 0)
    return f"{seconds // length}{unit}"


def webhook(
    settings: Settings, url: str | None, secret_file: Path | None, *, new_secret: bool = False, off: bool = False
) -> WebhookChange | None:
    """Return the validated change of a webhook, None for no change. Raises SettingsError."""
    if url is None and secret_file is None and not new_secret and not off:
        return None
    if off and (url or secret_file or new_secret):
        raise SettingsError("--no-webhook turns the webhook off; it does not go with the other options of it.")
    if secret_file and new_secret:
        raise SettingsError("Give --webhook-secret-file or --new-webhook-secret, not both.")
    if off:
        return WebhookChange({}, off)
    values = {} if url is None else {"url": checked_webhook_url(settings, url)}
    encrypt = Secrets(settings).encrypt
    if secret_file is not None:
        values["secret"] = encrypt(webhook_secret_in(secret_file))
    made_up = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    fresh = (made_up, encrypt(made_up))
    return WebhookChange({**values, "secret": fresh[1]} if new_secret else values, off, fresh)


def set_webhook(database: Database, name: str, change: WebhookChange) -> str | None:
    """Apply the change; return the new secret if one was generated. Raises SettingsError."""
    if change.off:
        database.call(webhooks.remove, name)
        return None
    plain, encrypted_secret = change.fresh
    values = change.values
    if database.call(webhooks.find, name) is None:
        values = {"secret": encrypted_secret, **values}
    database.call(webhooks.put, name, **values)
    return plain if values.get("secret") == encrypted_secret else None


def add(
    database: Database,
    name: str,
    platform: Platform,
    values: Values,
    webhook: WebhookChange | None = None,
    ages: Ages | None = None,
) -> Merchant:
    """Add a merchant; the caller sets the webhook afterwards. Contacts nothing. Raises SettingsError."""
    if webhook is not None and "url" not in webhook.values:
        raise SettingsError(f"{name} has no webhook yet: add --webhook-url.")
    if platform is Platform.BYOP and "product_service_url" not in values:
        raise SettingsError("A merchant who brings their own platform needs --product-service-url.")
    added = database.call(merchants.add, merchant_name(name), platform, **values)
    if ages:
        database.call(freshness.put, name, ages)
    return added


def update(
    database: Database, name: str, values: Values, webhook: WebhookChange | None = None, ages: Ages | None = None
) -> Merchant:
    """Change a merchant; the caller sets the webhook afterwards. Raises SettingsError."""
    if not values and not ages and webhook is None:
        raise SettingsError("Nothing to change: name at least one of the options, which --help shows.")
    wants_one = webhook is not None and not webhook.off and "url" not in webhook.values
    if wants_one and database.call(webhooks.find, name) is None:
        raise SettingsError(f"{name} has no webhook yet: add --webhook-url.")
    changed = database.call(merchants.update_merchant, name, **values) if values else database.call(merchants.get, name)
    if ages:
        database.call(freshness.put, name, ages)
    return changed


def allow_mass_deletion(database: Database, name: str, entity_type: EntityType) -> None:
    """Allow it for the next successful sync of the entity type. Raises SettingsError."""
    database.call(merchants.get, name)
    database.call(catalog_removal.allow_mass_deletion, name, entity_type)


def reencrypt(settings: Settings, database: Database) -> tuple[int, int, list[str]]:
    """Encrypt every stored secret with the first key of the key file. A secret that is changed meanwhile is kept.

    Returns the numbers of renewed and of unchanged secrets, and the names of those that no key decrypts.
    """
    keys = Secrets(settings)
    renewed = unchanged = 0
    unreadable: list[str] = []
    for each in database.call(encrypted.all_of_them):
        try:
            anew = keys.renewed(each.value)
        except SettingsError:
            unreadable.append(f"{each.merchant} ({each.what})")
            continue
        unchanged += anew is None
        renewed += anew is not None and database.call(encrypted.replace, each, anew)
    return renewed, unchanged, unreadable


def prune(settings: Settings, database: Database) -> int:
    """Delete syncs and messages older than their retention; return the number of syncs."""
    dropped = 0
    days, cancelled_days = settings.retention_days, settings.cancelled_retention_days
    while found := database.call(syncs.prune, days, PRUNED_AT_ONCE, cancelled_days):
        dropped += found
    while database.call(webhooks.prune, days, PRUNED_AT_ONCE):
        pass
    return dropped


def body(merchant: Merchant, ages: Mapping[EntityType, int]) -> dict[str, Any]:
    """Return the merchant with its max ages in seconds for JSON, without secrets."""
    return {
        "name": merchant.name,
        "platform": merchant.platform,
        "disabled": merchant.disabled,
        "productServiceUrl": merchant.product_service_url,
        "hasProductServiceToken": merchant.product_service_token is not None,
        "currency": merchant.currency,
        "maxRejectedPercent": merchant.max_rejected_percent,
        "maxAgeSeconds": {entity_type: ages.get(entity_type) for entity_type in EntityType},
        "createdAt": rfc3339(merchant.created_at),
    }


@dataclass(frozen=True, slots=True)
class Description:
    """A merchant with its catalogs, latest syncs, webhook and latest messages, as text or JSON without secrets."""

    merchant: Merchant
    catalogs: list[tuple[EntityType, int, int, Sync | None]]  # records and bytes
    ages: dict[EntityType, MaxAge]
    webhook: str | None
    deliveries: list[Delivery]

    @classmethod
    def read(cls, database: Database, name: str) -> "Description":
        """Read a merchant. Raises SettingsError."""
        merchant = database.call(merchants.get, name)
        catalogs = []
        for entity_type, size in database.call(catalog.sizes, name).items():
            state, latest = database.call(catalog.state_and_latest_sync, name, entity_type)
            catalogs.append((entity_type, state.num_records, size.bytes, latest))
        ages = database.call(freshness.of_merchant, name)
        deliveries = database.call(webhooks.latest, name, DELIVERIES_SHOWN)
        return cls(merchant, catalogs, ages, _described_webhook(database, name), deliveries)

    def body(self) -> dict[str, Any]:
        """Return the description for JSON."""
        found = {
            entity_type: {
                "records": records,
                "bytes": size,
                "latestSync": latest and sync_body(latest),
                "staleAfter": rfc3339(self.ages[entity_type].stale_after) if entity_type in self.ages else None,
                "stale": entity_type in self.ages and self.ages[entity_type].is_stale,
            }
            for entity_type, records, size, latest in self.catalogs
        }
        told = [
            {
                "id": str(each.id),
                "syncId": each.sync_id and str(each.sync_id),
                "entityType": each.entity_type,
                "type": each.event,
                "status": each.status,
                "attempts": each.attempts,
                "lastStatus": each.last_status,
                "lastError": each.last_error,
            }
            for each in self.deliveries
        ]
        ages = {entity_type: age.seconds for entity_type, age in self.ages.items()}
        return {**body(self.merchant, ages), "catalog": found, "webhook": self.webhook, "messages": told}

    def text(self) -> str:
        """Return the description in lines."""
        merchant = self.merchant
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
        for entity_type, records, size, latest in self.catalogs:
            last = "never synced" if latest is None else f"last sync {latest.id} {latest.status}"
            lines.append((f"{entity_type.lower()}s", f"{records} ({size / 1_000_000:.1f} MB), {last}"))
            if latest is not None and latest.failure_code is not None:
                lines.append(("  failure", f"{latest.failure_code}: {latest.failure_detail}"))
            if (age := self.ages.get(entity_type)) is not None:
                stale = f"{'stale since' if age.is_stale else 'stale after'} {age.stale_after:%Y-%m-%d %H:%M:%S} UTC"
                lines.append(("  max age", f"{age_as_text(age.seconds)}, {stale}"))
        lines.append(("webhook", self.webhook or "-"))
        lines += [("  message", _described(each)) for each in self.deliveries]
        return "\n".join(f"{label:16}{visible(str(value))}" for label, value in lines)


def _described_webhook(database: Database, name: str) -> str | None:
    found = database.call(webhooks.find, name)
    if found is None:
        return None
    state = "" if found.gone_at is None else f", turned off by a 410 at {found.gone_at:%Y-%m-%d %H:%M:%S} UTC"
    if found.previous_secret_until is not None:
        state += f", signed with the previous secret too until {found.previous_secret_until:%Y-%m-%d %H:%M:%S} UTC"
    return without_query(found.url) + state


def without_query(url: str) -> str:
    """Return the URL of a webhook without its query, which may hold a key."""
    return re.sub(r"\?.*", "?***", url)


def _described(delivery: Delivery) -> str:
    attempts = f"{delivery.attempts} attempt{'' if delivery.attempts == 1 else 's'}"
    told = f"{delivery.event} of {delivery.sync_id or delivery.entity_type}: {delivery.status} after {attempts}"
    text = f"{delivery.created_at:%Y-%m-%d %H:%M:%S} {told}"
    if delivery.next_attempt_at is not None:
        text += f", next {delivery.next_attempt_at:%Y-%m-%d %H:%M:%S}"
    return text if delivery.status is DeliveryStatus.DELIVERED else f"{text}. {delivery.last_error or ''}".rstrip(". ")


def checked_webhook_url(settings: Settings, url: str, permission: str = PERMISSION) -> str:
    """Return the URL of a webhook. It may have a query, which may hold a key and is never shown. Raises SettingsError.

    `permission` names the option or the setting that allows plain HTTP.
    """
    if not is_http_address(url, " \\#@") or len(url) > 2000:
        raise SettingsError(
            f"{_shown(url)} is not the address of a webhook: https://, a host, and perhaps a path and a query, without "
            "a user or fragment."
        )
    _refuse_plain_http(settings, url, permission)
    return url


def checked_url(settings: Settings, url: str, permission: str = PERMISSION) -> str:
    """Return the URL of a product service without a slash at its end. Raises SettingsError.

    `permission` names the option or the setting that allows plain HTTP.
    """
    if not is_http_address(url, " \\?#@"):
        raise SettingsError(
            f"{_shown(url)} is not the address of a product service: https://, a host and perhaps a path, without a "
            "user, query or fragment. /products and /collections are added to it."
        )
    _refuse_plain_http(settings, url, permission)
    return url.rstrip("/")


def _refuse_plain_http(settings: Settings, url: str, permission: str = PERMISSION) -> None:
    if url.lower().startswith("http:") and not settings.allow_private_addresses:
        raise SettingsError(
            f"{_shown(url)} would be called without encryption. Give an https:// address; on a private network, "
            f"{permission} allows http://."
        )


def _shown(url: str) -> str:
    """Quote a URL without password and query: output of commands ends up in CI logs."""
    return repr(re.sub(r"//.*@", "//***@", re.sub(r"[?#].*", "?***", url, flags=re.DOTALL), flags=re.DOTALL)[:200])


def token_in(path: Path) -> str:
    try:
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise SettingsError(f"{path} does not hold a bearer token: one line of ASCII without spaces.")
    return token


def webhook_secret_in(path: Path) -> str:
    try:
        secret = path.read_text("ascii").strip()
        size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except (OSError, UnicodeDecodeError, binascii.Error):
        secret, size = "", 0
    if not secret.startswith("whsec_") or size not in SECRET_BYTES:
        raise SettingsError(
            f"{path} does not hold the secret of a webhook: whsec_ and, in base64, {SECRET_BYTES[0]} to "
            f"{SECRET_BYTES[-1]} bytes. Without a file, one is made."
        )
    return secret
