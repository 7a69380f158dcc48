"""The waits between the attempts of a webhook delivery."""

from product_gateway.http_client.backoff import exponential_delay

LONGEST_WAIT = 6 * 3600.0
LONGEST_RETRY_AFTER = 24 * 3600.0
JITTER = (0.75, 1.25)


def retry_delay(attempt: int, first: float, retry_after: float | None) -> float:
    """Return the seconds until the next attempt: exponential, or Retry-After where the receiver asks for longer."""
    delay = exponential_delay(attempt, first, LONGEST_WAIT, jitter=JITTER)
    return max(delay, min(retry_after or 0.0, LONGEST_RETRY_AFTER))
