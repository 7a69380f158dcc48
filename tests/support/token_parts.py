"""Parts of hand-made tokens: claims, signatures, and how they are written (RFC 7515)."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

Part = dict[str, Any] | str | bytes
"""What is written as JSON, or as it stands."""


def claims(**changes: Any) -> dict[str, Any]:
    """Return valid claims with these changes; None removes one."""
    now = int(time.time())
    all_of_them: dict[str, Any] = {"merchant": "shop", "scope": "sync:read", "iat": now, "exp": now + 86400}
    all_of_them |= {"iss": "product-gateway", "aud": "product-gateway", **changes}
    return {name: value for name, value in all_of_them.items() if value is not None}


def written(header: Part, payload: Part, sign: Callable[[bytes], bytes]) -> str:
    """Return a hand-made token: libraries refuse to create most of those below."""
    parts = [each if isinstance(each, str | bytes) else json.dumps(each) for each in (header, payload)]
    message = ".".join(base64url(each.encode() if isinstance(each, str) else each) for each in parts)
    return f"{message}.{base64url(sign(message.encode()))}"


def hmac_by(secret: bytes) -> Callable[[bytes], bytes]:
    """Return a function that signs with HS256."""
    return lambda message: hmac.digest(secret, message, hashlib.sha256)


def always(signature: bytes) -> Callable[[bytes], bytes]:
    """Return a function that does not sign but returns this signature."""
    return lambda _: signature


def base64url(content: bytes) -> str:
    """Encode without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
