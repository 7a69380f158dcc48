"""Merchants."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Platform(StrEnum):
    """Where a merchant keeps its products: on its own platform (BYOP) or in Bento."""

    BYOP = "BYOP"
    BENTO = "BENTO"


# Restricted, because names come from tokens and appear in logs and commands.
MERCHANT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@|~+-]{0,127}")


@dataclass(frozen=True, slots=True)
class Merchant:
    """A tenant. `product_service_token` is encrypted."""

    name: str
    platform: Platform
    product_service_url: str | None
    product_service_token: str | None = field(repr=False)
    currency: str | None
    max_rejected_percent: int
    disabled: bool
    created_at: datetime
    updated_at: datetime
