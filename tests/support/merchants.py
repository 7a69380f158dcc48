"""Merchants and their clients, created in this process, because each command takes a second."""

from collections.abc import Iterable
from datetime import timedelta

import httpx2

from product_gateway.auth import encryption, keys
from product_gateway.db import merchants
from product_gateway.db.database import open_database
from product_gateway.model.merchants import Platform
from tests.support.deployment import Deployment


def open_shops(deployment: Deployment, service: str, names: Iterable[str]) -> None:
    """Add merchants with this product service, which accepts any token."""
    token = encryption.Secrets(deployment.settings()).encrypt("any")
    with open_database(deployment.environment["PRODUCT_GATEWAY_DATABASE_URL"]) as database:
        for name in names:
            database.call(merchants.add, name, Platform.BYOP, service, token)


def headers(deployment: Deployment, merchant: str) -> dict[str, str]:
    """Return headers with a token of the merchant."""
    token = keys.issue_token(deployment.settings(), merchant, list(keys.SCOPES), timedelta(hours=1))
    return {"Authorization": f"Bearer {token}"}


def client(deployment: Deployment, url: str, merchant: str) -> httpx2.Client:
    """Return an HTTP client of the merchant."""
    return httpx2.Client(base_url=url, headers=headers(deployment, merchant), timeout=30)
