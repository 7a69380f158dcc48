"""The operations port's pages, rendered on the server from the API's bodies. Jinja escapes text from merchants."""

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from product_gateway.docs_pages import pages
from product_gateway.errors import PageNotFound
from product_gateway.http.responses import Response
from product_gateway.model.syncs import EntityType, SyncStatus
from product_gateway.openapi.bodies import rfc3339
from product_gateway.operations.monitor.alerts import ago
from product_gateway.operations.monitor.auth import Operator
from product_gateway.telemetry.version import version
from product_gateway.telemetry.visible_text import visible

HERE = Path(__file__).parent
SHARED = [pages.OWN / name for name in ("icon.svg", "theme.css", "theme.js")]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, **pages.ISOLATION}
# Where the other paths are, as seen from a page: it also works behind a prefix.
BASES = {"getMonitor": "monitor/", "getMonitorSync": "../../"}
STATES = {
    "QUEUED": "Waiting",
    "IN_PROGRESS": "In progress",
    "SUCCEEDED": "Succeeded",
    "FAILED": "Failed",
    "CANCELLED": "Cancelled",
}
Filters = tuple[str | None, EntityType | None, SyncStatus | None, str | None]
"""Of the list of syncs: merchant, entity type, status and cursor."""
CHART_WIDTH, CHART_HEIGHT = 600, 120


class PageRenderer:
    """The pages and what they load; read when the first of them is asked for."""

    def monitor(
        self,
        overview: Mapping[str, Any],
        recent: Mapping[str, Any],
        filters: Filters,
        now: datetime,
        operator: Operator,
    ) -> Response[bytes]:
        merchant, entity_type, status, cursor = filters
        chosen = {"merchant": merchant or "", "entity_type": entity_type or "", "status": status or ""}
        return self._page(
            "monitor.html", 200, base=BASES["getMonitor"], now=now, operator=operator, overview=overview, recent=recent,
            chosen=chosen, is_filtered=any(chosen.values()) or cursor is not None, mark=_mark(recent),
            cursor=cursor or "",
        )  # fmt: skip

    def sync(self, detail: Mapping[str, Any], now: datetime, operator: Operator) -> Response[bytes]:
        return self._page(
            "sync.html", 200, base=BASES["getMonitorSync"], now=now, operator=operator, detail=detail,
            sync=detail["sync"], chart=_chart(detail["series"]),
        )  # fmt: skip

    def index(self) -> Response[bytes]:
        """Return the page at `/`, with links to all others."""
        return self._page("index.html", 200, base=BASES["getMonitor"], now=None, operator=None)

    def error(self, answer: Response[Any], operation: str) -> Response[bytes]:
        """Return an API error as a page. If the operator must sign in, the page has the sign-in form."""
        found = answer.body["error"][0]
        page = self._page("error.html", answer.status, base=BASES[operation], now=None, operator=None, error=found)
        return Response(page.body, answer.status, {**HEADERS, **answer.headers}, "text/html")

    def parts(self, overview: Mapping[str, Any], recent: Mapping[str, Any], now: datetime) -> dict[str, str]:
        """The parts of the first page that change, each by the id of what holds it."""
        module = self._environment.get_template("parts.html").make_module({"base": BASES["getMonitor"], "now": now})
        whole = {name: str(getattr(module, name)(overview)) for name in ("attention", "active", "title")}
        of_it = {name: str(getattr(module, name)(overview[name])) for name in ("queue", "workers", "freshness")}
        return {**whole, **of_it, "recent": _mark(recent), "away": ""}

    def asset(self, name: str) -> pages.File:
        """What a page loads, by the name that it is published under. Raises PageNotFound."""
        if name not in self._assets:
            raise PageNotFound
        return self._assets[name]

    def _page(self, template: str, status: int, **values: Any) -> Response[bytes]:
        text = self._environment.get_template(template).render(asset=self._names, **values)
        return Response(text.encode(), status, HEADERS, "text/html")

    @cached_property
    def _environment(self) -> Environment:
        made = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            finalize=_visible,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        made.filters |= {"number": _number, "length_of_time": ago, "since": _since, "clock": _clock, "day": _day}
        made.filters |= {"instant": datetime.fromisoformat, "wanted": _wanted}
        made.globals |= {"VERSION": version(), "STATES": STATES, "ENTITY_TYPES": [each.value for each in EntityType]}
        return made

    @cached_property
    def _assets(self) -> dict[str, pages.File]:
        files = {
            path.name: pages.as_file(path.read_bytes(), path.name, pages.cache_of(path.name))
            for path in (*sorted((HERE / "assets").iterdir()), *SHARED)
        }
        return {pages.published_name(name, file): file for name, file in files.items()}

    @cached_property
    def _names(self) -> dict[str, str]:
        """Template name -> published name: monitor.css -> monitor.5f0c1d….css."""
        return {f"{name.split('.')[0]}_{name.rpartition('.')[2]}": name for name in self._assets}


def _visible(value: object) -> object:
    """Nothing of strangers is hidden on a page. What a macro has written has been through this already."""
    return visible(value) if type(value) is str else value


def _mark(recent: Mapping[str, Any]) -> str:
    """Changes when one of the latest syncs is new, or is not what it was."""
    seen = "".join(f"{each['id']}{each['status']}" for each in recent["data"])
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def _chart(series: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the points of a line through the speeds, and both scales, or None for fewer than two speeds."""
    if len(series) < 2:
        return None
    times = [datetime.fromisoformat(each["at"]).timestamp() for each in series]
    speeds = [each["recordsPerSecond"] for each in series]
    width, top = (times[-1] - times[0]) or 1.0, _rounded_up(max(speeds) or 1.0)
    points = [
        f"{(time - times[0]) / width * CHART_WIDTH:.1f},{CHART_HEIGHT - speed / top * CHART_HEIGHT:.1f}"
        for time, speed in zip(times, speeds, strict=True)
    ]
    return {
        "points": " ".join(points),
        "most": max(speeds),
        "least": min(speeds),
        "speeds": [top, top / 2, 0],
        "times": [rfc3339(datetime.fromtimestamp(times[0] + width * part, UTC)) for part in (0, 0.5, 1)],
    }


def _rounded_up(value: float) -> float:
    """Return 1, 2 or 5 times a power of ten, the next one that is not less than the value."""
    power: float = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 or float(value).is_integer() else f"{value:,.1f}"


def _since(instant: str, now: datetime) -> str:
    return ago(max(0.0, (now - datetime.fromisoformat(instant)).total_seconds()))


def _clock(instant: str) -> str:
    return f"{datetime.fromisoformat(instant):%H:%M:%S}"


def _day(instant: str) -> str:
    return f"{datetime.fromisoformat(instant):%Y-%m-%d %H:%M:%S} UTC"


def _wanted(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
