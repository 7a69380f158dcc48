"""Merchants: where each keeps its products, and what it may be called."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Platform(StrEnum):
    """Where a merchant keeps products: a platform of their own (BYOP) or Bento itself."""

    BYOP = "BYOP"
    BENTO = "BENTO"


# What a merchant may be called: it comes out of tokens, and goes into logs and commands.
MERCHANT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@|~+-]{0,127}")


@dataclass(frozen=True, slots=True)
class Merchant:
    """A tenant. `product_service_token` is as it is stored: encrypted."""

    name: str
    platform: Platform
    product_service_url: str | None
    product_service_token: str | None = field(repr=False)
    currency: str | None
    max_rejected_percent: int
    disabled: bool
    created_at: datetime
    updated_at: datetime
