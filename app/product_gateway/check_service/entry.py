"""What the command `check-service` does with what it was given: check, report, write files, say how it went."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from product_gateway.check_service.reports import console, files
from product_gateway.check_service.results import CheckResults
from product_gateway.check_service.runner import Plan, check
from product_gateway.errors import SettingsError
from product_gateway.merchants import administration
from product_gateway.model.syncs import EntityType
from product_gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Options:
    """The command's arguments and options, as somebody typed them."""

    url: str
    token_file: Path
    only: tuple[EntityType, ...]
    max_pages: int
    examples: int
    seed: int
    merchant: str | None
    junit: Path | None
    json: Path | None


def overrides(allow_private_addresses: bool, page_size: int | None, timeout: float | None) -> dict[str, Any]:
    """The settings that options stand for; what is unset comes from the environment."""
    values: dict[str, Any] = {"allow_private_addresses": True} if allow_private_addresses else {}
    if page_size is not None:
        values["page_size"] = page_size
    if timeout is not None:
        values |= {"read_timeout_seconds": timeout, "request_timeout_seconds": timeout}
    return values


def run(asked: Options, settings: Settings) -> int:
    """Checks the service and reports; the exit status. Raises SettingsError where it cannot begin."""
    if asked.examples and importlib.util.find_spec("schemathesis") is None:
        raise SettingsError(
            "Made-up requests need Schemathesis: pip install 'product-gateway[check]'. --examples 0 does without them."
        )
    url = str(administration.validated(settings, asked.url, None, None, None)["product_service_url"])
    token = administration.token_in(asked.token_file)
    only = tuple(dict.fromkeys(asked.only))
    plan = Plan(url, token, only, settings.page_size, asked.max_pages, asked.examples, asked.seed)
    sheet = CheckResults(token, only)
    check(plan, settings, sheet, asked.merchant)
    if asked.junit is not None:
        files.write_junit(sheet, asked.junit)
    if asked.json is not None:
        files.write_json(sheet, asked.json)
    console.show(sheet, sheet.plain(url), asked.seed if asked.examples else None)
    return console.status(sheet)
