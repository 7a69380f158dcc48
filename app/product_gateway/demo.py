"""The demo (`make run`): sample service, gateway, worker, a merchant and a token in one process."""

import sys
from datetime import timedelta
from pathlib import Path

from product_gateway import data_directory
from product_gateway.auth import encryption, keys
from product_gateway.db import merchants, migrate
from product_gateway.db.database import Database, open_database
from product_gateway.model.merchants import Platform
from product_gateway.model.syncs import EntityType
from product_gateway.services import http_server, processes, sockets
from product_gateway.settings import Settings
from product_gateway.telemetry import logs

MERCHANT = "demo"
SAMPLE_SERVICE_TOKEN = "sample-service-token"  # noqa: S105 - no secret
TOKEN_LIFETIME = timedelta(hours=12)


def run(settings: Settings, port: int, sample_port: int, catalog: Path, delay: float) -> None:
    """Run until Ctrl-C. Raises SettingsError."""
    from product_gateway.sample import catalog_file
    from product_gateway.sample.service import create_sample_app  # a slow import that the sandbox does not need

    data_directory.prepare(settings, secrets=True)
    gateway = sockets.bind("127.0.0.1", port)
    sample = sockets.bind("127.0.0.1", sample_port, "--sample-port")
    for_operations = sockets.bind_operations(settings, sockets.OPERATIONS_PORT_OF_GATEWAY)
    data = catalog_file.read(catalog)
    if data.left_out:
        print(f"{catalog}: {data.summary()}", file=sys.stderr)
    logs.configure(settings.log_level, settings.log_format)
    app = create_sample_app(data, token=SAMPLE_SERVICE_TOKEN, delay=delay)
    with http_server.HTTPServer(app, sample):
        with open_database(settings.database) as database:
            migrate.prepare(database)
            register(settings, database, MERCHANT, sockets.url_of(sample))
        token_file = settings.data_dir / "demo.token"
        data_directory.write_private(
            token_file, keys.issue_token(settings, MERCHANT, list(keys.SCOPES), TOKEN_LIFETIME).encode() + b"\n"
        )
        urls = sockets.url_of(gateway), sockets.url_of(for_operations)
        welcome = _welcome(*urls, token_file, *map(data.count, EntityType))
        processes.serve(settings, gateway, for_operations, lambda: print(welcome, flush=True), with_worker=True)


def register(settings: Settings, database: Database, name: str, url: str) -> None:
    """Add or update a merchant whose platform is the sample service at the URL."""
    token = encryption.Secrets(settings).encrypt(SAMPLE_SERVICE_TOKEN)
    if database.call(merchants.find, name) is None:
        database.call(merchants.add, name, Platform.BYOP, url, token, "GBP")
    else:
        values = {"platform": Platform.BYOP, "product_service_url": url, "product_service_token": token}
        database.call(merchants.update_merchant, name, **values, disabled=False)


def _welcome(url: str, operations: str, token_file: Path, products: int, collections: int) -> str:
    api = f"{url}/product-gateway/v1"
    return f"""
The product gateway is at {url}, with a sample product service of {products} products and {collections} collections.
Its merchant is {MERCHANT}. A token for it, valid for 12 hours, is in {token_file}:

{token_file.read_text().strip()}

Type this in another terminal:

  TOKEN=$(cat {token_file})
  curl -i -X PUT -H "Authorization: Bearer $TOKEN" {api}/sync/PRODUCT      # 202: enqueued
  curl -i -X PUT -H "Authorization: Bearer $TOKEN" {api}/sync/PRODUCT      # 429: one is active
  curl -H "Authorization: Bearer $TOKEN" {api}/sync/PRODUCT                # number of records
  curl -H "Authorization: Bearer $TOKEN" "{api}/products?page_size=2"      # the catalog

In a browser: {url}/docs (API reference) and {operations}/monitor (running and failing syncs).
Ctrl-C stops everything.
"""
