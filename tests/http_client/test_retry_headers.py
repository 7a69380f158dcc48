"""Retry-After and rate-limit headers, in every form that is in use."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from product_gateway.http_client.retry_headers import LONGEST, wait_asked

DATE = ("Date", "Fri, 06 Nov 2026 08:49:07 GMT")
EPOCH = int(datetime(2026, 11, 6, 8, 49, 7, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("2.0", 2),
        ("0.5", 0.5),
        (".5", 0.5),
        ("2.", 2),
        ("+5", 5),
        ("1e1", 10),
        ("007", 7),
        ('"30"', 30),
        ("120s", 120),
        ("120 s", 120),
        ("2 minutes", 120),
        ("1500ms", 1.5),
        ("1 hour", 3600),
        ("1m30s", 90),
        ("PT1M30S", 90),
        ("30; comment", 30),
        ("30, 60", 60),
        ("60,30", 60),
        ("wait 5 seconds", 5),
        ("0", 0),
        ("-1", 0),
        ("9" * 400, LONGEST),
        ("Fri, 06 Nov 2026 08:49:37 GMT", 30),
        ("Friday, 06-Nov-26 08:49:37 GMT", 30),
        ("Fri Nov  6 08:49:37 2026", 30),
        ("Fri, 06 Nov 2026 09:49:37 +0100", 30),
        ("06 Nov 2026 08:49:37 GMT", 30),
        ("fri, 6 nov 2026 8:49:37 gmt", 30),
        ('"Fri, 06 Nov 2026 08:49:37 GMT"', 30),
        ("2026-11-06T08:49:37Z", 30),
        ("2026-11-06T09:49:37.5+01:00", 30.5),
        ("2026-11-06 08:49:37", 30),
        ("Fri, 06 Nov 2026 08:49:17 GMT, Fri, 06 Nov 2026 08:49:37 GMT", 30),
        ("Fri, 06 Nov 2026 08:49:00 GMT", 0),
        ("Fri, 06 Nov 2026 08:49:60 GMT", 52),
        ("Fri, 06 Nov 2026 03:49:37 EST", 30),
        ("Fri Nov 06 2026 08:49:37 GMT+0000 (Coordinated Universal Time)", 30),
        ("Fri Nov 06 2026 09:49:37 GMT+0100 (Central European Standard Time)", 30),
        ("00:00:30", 30),
        ("1:30", 90),
        ("01:00:00", 3600),
        (f"{EPOCH + 30}", 30),
        (f"{EPOCH + 30}.5", 30.5),
        (f"{EPOCH + 30}{'0' * 6}", 30),
        (f"{EPOCH + 30}{'0' * 9}", 30),
        (f"{EPOCH + 30}000", 30),
        (f"{EPOCH - 30}", 0),
    ],
)
def test_retry_after_is_read_in_and_slightly_out_of_form(value: str, seconds: float) -> None:
    """In seconds or as a date (RFC 9110), and as people write it."""
    assert wait_asked([DATE, ("retry-after", value)]) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "never",
        "0x10",
        "12abc",
        "Fri, 99 Nov 2026 08:49:37 GMT",
        "²",
        "NaN",
        "inf",
        "11/6/2026 8:49:37 AM",
        "6.11.2026 08:49:37",
        "Freitag, 06. November 2026 08:49:37",
        "Nov 6, 2026",
    ],
)
def test_what_is_neither_a_period_nor_a_date_asks_for_nothing(value: str) -> None:
    """The ordinary back-off follows."""
    assert wait_asked([DATE, ("Retry-After", value)]) is None


def test_a_date_is_compared_with_the_clock_of_the_server() -> None:
    """The two clocks may differ by minutes. Without a Date, there is only ours."""
    later = datetime.now(UTC) + timedelta(seconds=60)
    assert 50 < (wait_asked([("Retry-After", format_datetime(later, usegmt=True))]) or 0) <= 60
    assert wait_asked([DATE, ("Retry-After", "Fri, 06 Nov 2026 08:50:07 GMT")]) == 60


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([("Retry-After", "5"), ("Retry-After", "30")], 30),
        ([("Retry-After", "5"), ("X-RateLimit-Reset", "300")], 5),
        ([("Retry-After", "soon"), ("X-RateLimit-Reset", "30")], 30),
        ([("X-Retry-After", "5")], 5),
        ([("retry-after-ms", "1500")], 1.5),
        ([("x-ms-retry-after-ms", "1500")], 1.5),
        ([("RateLimit-Reset", "30")], 30),
        ([("RateLimit-Remaining", "0"), ("RateLimit-Reset", "30")], 30),
        ([("RateLimit-Remaining", "7"), ("RateLimit-Reset", "30")], None),
        ([("RateLimit", "limit=100, remaining=0, reset=30")], 30),
        ([("RateLimit", "limit=100, remaining=9, reset=30")], None),
        ([("RateLimit", '"default";r=0;t=30')], 30),
        ([("RateLimit", '"minute";r=5;t=20, "day";r=0;t=40')], 40),
        ([("RateLimit", '"minute";r=5;t=20')], None),
        ([("X-RateLimit-Reset", "30")], 30),
        ([("X-RateLimit-Reset", "30.5")], 30.5),
        ([("X-RateLimit-Reset", f"{EPOCH + 30}")], 30),
        ([("X-RateLimit-Reset", f"{EPOCH + 30}000"), ("X-RateLimit-Remaining", "0")], 30),
        ([("X-RateLimit-Reset", f"{EPOCH + 30}"), ("X-RateLimit-Remaining", "1")], None),
        ([("X-RateLimit-Reset", "Fri, 06 Nov 2026 08:49:37 GMT")], 30),
        ([("X-RateLimit-Reset", "2026-11-06T08:49:37Z")], 30),
        ([("X-Rate-Limit-Reset", "30")], 30),
        ([("X-RateLimit-Reset-After", "1.25")], 1.25),
        ([("X-Rate-Limit-Reset-After", "30")], 30),
        ([("X-Rate-Limit-Time-Reset-Ms", "15000"), ("X-Rate-Limit-Requests-Left", "0")], 15),
        ([("X-Rate-Limit-Time-Reset-Ms", "15000"), ("X-Rate-Limit-Requests-Left", "3")], None),
        ([("x-ratelimit-reset-requests", "6m0s"), ("x-ratelimit-remaining-requests", "0")], 360),
        ([("x-ratelimit-reset-tokens", "9s"), ("x-ratelimit-remaining-tokens", "8")], None),
        ([("X-RateLimit-Remaining", "0")], None),
        ([("X-Retry-After-Seconds", "5")], 5),
        ([("X-Rate-Limit-Retry-After-Milliseconds", "1500")], 1.5),
        ([("X-RateLimit-Remaining", "0/289/1187"), ("X-RateLimit-Reset", "29/289/36000")], 29),
        ([("X-RateLimit-Remaining", "12/0/1187"), ("X-RateLimit-Reset", "29/289/36000")], 289),
        ([("X-RateLimit-Remaining", "12/1/1187"), ("X-RateLimit-Reset", "29/289/36000")], None),
        ([("RateLimit-Remaining", "0, 50"), ("RateLimit-Reset", "5, 300")], 5),
        ([("X-RateLimit-Remaining", "0.0"), ("X-RateLimit-Reset", "30")], 30),
        (
            [
                ("X-Plenty-Global-Short-Period-Calls-Left", "0"),
                ("X-Plenty-Global-Short-Period-Decay", "4"),
                ("X-Plenty-Global-Long-Period-Calls-Left", "900"),
                ("X-Plenty-Global-Long-Period-Decay", "40000"),
            ],
            4,
        ),
        ([("X-LS-API-Bucket-Level", "60/60")], 2),
        ([("X-LS-API-Bucket-Level", "59/60")], None),
        ([("X-Shopify-Shop-Api-Call-Limit", "40/40")], 2),
        ([("X-Shopify-Shop-Api-Call-Limit", "39/40")], None),
        ([("HTTP_X_SHOPIFY_SHOP_API_CALL_LIMIT", "80/80")], 2),
        ([], None),
    ],
)
def test_rate_limits_of_platforms_are_read(headers: list[tuple[str, str]], seconds: float | None) -> None:
    """Where Retry-After says nothing, and nothing remains of the limit."""
    assert wait_asked([DATE, *headers]) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("part", ["ratelimit", "ratelimit-reset", "ratelimit-remaining-reset-ms", "x-plenty-decay"])
@pytest.mark.parametrize("value", ["1 ", "6 Nov ", "1:", "1/", "r=0;t=", "2026-11-06 "])
def test_a_long_header_takes_no_longer(part: str, value: str) -> None:
    """A header may have 64 KiB, and is read in the event loop that all merchants share."""
    headers = [(part * 4000, "5"), ("X-RateLimit-Reset", value * 10_000), ("Retry-After", value * 10_000)]
    began = time.monotonic()
    wait_asked(headers)
    assert time.monotonic() - began < 0.5
