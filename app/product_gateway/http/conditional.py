"""Conditional requests (RFC 9110 §13)."""


def matches(etag: str, if_none_match: str) -> bool:
    """Return whether If-None-Match has the entity tag, by the weak comparison (§13.1.2)."""
    known = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return etag.removeprefix("W/") in known or "*" in known
