"""The sample service with one fault each: what a service can do wrong that keeps every schema. By name."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from product_gateway.sample.catalog_file import Catalog
from product_gateway.sample.service import create_sample_app

TOKEN = "the-merchants-t0ken"
SIZES_OF_PEOPLE = ("1", "2", "20", "50", "60", "100", "250", "500")


@dataclass(frozen=True)
class Asked:
    """A request. `number` counts them."""

    path: str
    query: dict[str, str]
    token: str
    number: int

    def but(self, **query: str | None) -> "Asked":
        """With other parameters; None leaves one out."""
        return replace(
            self, query={name: value for name, value in {**self.query, **query}.items() if value is not None}
        )


@dataclass
class Told:
    """An answer: its body as data."""

    status: int
    body: Any
    content_type: str

    @property
    def items(self) -> list[Any]:
        """Of a page; of anything else, nothing that counts."""
        return list(self.body.get("items", ())) if self.status == 200 else []


Honest = Callable[[Asked], Awaitable[Told]]
Fault = Callable[["Crooked", Asked, Honest], Awaitable[Told]]
FAULTS: dict[str, tuple[str, Fault]] = {}  # the rule that it breaks, and what it does


def breaks(code: str) -> Callable[[Fault], Fault]:
    """Registers a fault under its name, with dashes, and the rule that it breaks."""

    def register(function: Any) -> Fault:
        FAULTS[function.__name__.replace("_", "-")] = (code, function)
        return function  # type: ignore[no-any-return]

    return register


@dataclass
class Crooked:
    """An ASGI application over the sample service; `fault` None has none."""

    catalog: Catalog
    fault: str | Fault | None
    number: int = 0
    at_once: int = 0
    met: set[Any] = field(default_factory=set)

    def __post_init__(self) -> None:
        transport = httpx2.ASGITransport(create_sample_app(self.catalog, token=TOKEN))
        self._sample = httpx2.AsyncClient(transport=transport, base_url="http://sample.example")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        self.number += 1
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        asked = Asked(scope["raw_path"].decode(), dict(request.query_params), token, self.number)
        fault = FAULTS[self.fault][1] if isinstance(self.fault, str) else self.fault
        told = await (fault(self, asked, self.honest) if fault else self.honest(asked))
        response = Response(orjson.dumps(told.body), told.status, media_type=told.content_type)
        await response(scope, receive, send)

    async def honest(self, asked: Asked) -> Told:
        """What the sample service answers."""
        headers = {"Authorization": f"Bearer {asked.token}"} if asked.token else {}
        answer = await self._sample.get(asked.path, params=asked.query, headers=headers)
        return Told(answer.status_code, orjson.loads(answer.content), answer.headers["Content-Type"])


async def each_record(told: Told, change: Callable[[dict[str, Any]], object]) -> Told:
    """The answer, its records changed, in a list and alone alike."""
    if told.status == 200:
        for record in told.body.get("items", [told.body]):
            change(record)
    return told


@breaks("token-required")
async def open_without_a_token(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Anybody may read."""
    return await honest(asked if asked.token else replace(asked, token=TOKEN))


@breaks("token-checked")
async def open_with_any_token(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Looks whether there is a token, and not which."""
    return await honest(replace(asked, token=TOKEN) if asked.token else asked)


@breaks("problem-details")
async def errors_of_its_own(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Says what is wrong in another form."""
    told = await honest(asked)
    return told if told.status == 200 else Told(told.status, {"error": "no"}, "application/json")


@breaks("no-next-after-last")
async def next_after_the_last(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """The last page names a next one."""
    told = await honest(asked)
    if told.items:
        told.body["pagination"].setdefault("nextCursor", "MTow")
    return told


@breaks("stable-order")
async def order_of_the_moment(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Every second answer is the other way round."""
    told = await honest(asked)
    if told.items and asked.number % 2:
        told.body["items"].reverse()
    return told


@breaks("cursor-stable")
async def cursors_that_wear_out(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Who asks again gets less."""
    told = await honest(asked)
    key = tuple(asked.query.items())
    if "cursor" in asked.query and key in self.met:
        del told.body["items"][0]
    self.met.add(key)
    return told


@breaks("cursor-replays")
async def cursor_of_another_page(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Each page's own cursor is that of the first one."""
    told = await honest(asked)
    if told.items:
        told.body["pagination"]["cursor"] = "MDow"
    return told


@breaks("page-sizes")
async def no_single_records(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """A page of one record is refused."""
    return await honest(asked.but(page_size="0") if asked.query.get("page_size") == "1" else asked)


@breaks("default-page-size")
async def everything_by_default(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Without a page size, as many as can be."""
    single = asked.path.count("/") > 1
    return await honest(asked if single or "page_size" in asked.query else asked.but(page_size="500"))


@breaks("at-once")
async def one_at_a_time(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """While it is at one request, others get nothing."""
    self.at_once += 1
    alone = self.at_once == 1
    await asyncio.sleep(0.05)
    told = await honest(asked)
    self.at_once -= 1
    if told.items and not alone:
        told.body["items"] = []
    return told


@breaks("unknown-parameter")
async def falls_over_a_parameter(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """What it does not know is a failure."""
    told = await honest(asked)
    return replace(told, status=500) if set(asked.query) - {"ids", "cursor", "page_size"} else told


@breaks("speed")
async def slow(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """The first page takes its time, once."""
    if asked.number == 1:
        await asyncio.sleep(2)
    return await honest(asked)


@breaks("best-page-size")
async def slow_at_one_size(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Fifty records take as long as a thousand."""
    await asyncio.sleep(0.8 if asked.query.get("page_size") == "50" else 0)
    return await honest(asked)


@breaks("ids-known")
async def no_filter(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Does not look at ids."""
    return await honest(asked.but(ids=None))


@breaks("ids-several")
async def one_id_alone(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Takes the first of the ids."""
    return await honest(asked.but(ids=asked.query["ids"].split(",")[0]) if "ids" in asked.query else asked)


@breaks("ids-many")
async def few_ids(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Takes ten ids and no more."""
    return await honest(asked.but(ids=",".join(asked.query["ids"].split(",")[:10])) if "ids" in asked.query else asked)


@breaks("ids-unknown")
async def unknown_ids_are_refused(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """One that does not exist spoils the others."""
    told = await honest(asked)
    return Told(404, {}, "application/json") if "ids" in asked.query and "no-such" in asked.query["ids"] else told


@breaks("ids-duplicates")
async def double_ids_come_twice(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """A record for each id that is named."""
    told = await honest(asked)
    ids = asked.query.get("ids", "").split(",")
    if len(ids) != len(set(ids)):
        told.body["items"] *= 2
    return told


@breaks("ids-encoded")
async def ids_as_they_came(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Looks for what stands in the address, without decoding it."""
    told = await honest(asked)
    if "ids" in asked.query:
        told.body["items"] = [each for each in told.items if each["id"].isascii() and " " not in each["id"]]
    return told


@breaks("record-by-id")
async def another_record_by_id(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """A record alone has another title."""
    told = await honest(asked)
    if told.status == 200 and "items" not in told.body:
        told.body["title"] += " (single)"
    return told


@breaks("unknown-id")
async def nothing_with_200(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """What it does not have is an empty success."""
    told = await honest(asked)
    return Told(200, {}, "application/json") if told.status == 404 else told


@breaks("plain-ids")
async def spaces_around_ids(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """An id ends with a space."""
    return await each_record(await honest(asked), lambda record: record.update(id=record["id"] + " "))


@breaks("times")
async def times_without_an_offset(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Times without an offset from UTC."""
    return await each_record(await honest(asked), lambda record: record.update(createdAt="2024-01-01T00:00:00"))


@breaks("times")
async def updated_before_created(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """The two are mixed up."""
    times = {"createdAt": "2024-01-02T00:00:00Z", "updatedAt": "2024-01-01T00:00:00Z"}
    return await each_record(await honest(asked), lambda record: record.update(times))


@breaks("prices")
async def prices_in_pounds(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """50 stands for 50.00."""
    return await each_record(await honest(asked), lambda record: record.update(listPrice=50))


@breaks("page-bytes")
async def heavy_pages(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """A page is nearly as large as an answer may be."""
    told = await honest(asked)
    if told.items:
        told.body["items"][0]["meta"] = {"x": "y" * 1_700_000}
    return told


@breaks("compressed")
async def large_and_plain(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """A record of more than one mebibyte."""
    return await heavy_pages(self, asked, honest)


@breaks("members-known")
async def members_that_nobody_lists(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """A collection has a product that is sold no more."""
    gone = [{"id": "gone", "title": "Gone"}]
    told = await honest(asked)
    return await each_record(told, lambda record: record.update(products=gone)) if "collections" in asked.path else told


@breaks("fuzz-failures")
async def falls_over_other_alphabets(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """An id that is not ASCII is a failure."""
    told = await honest(asked)
    return replace(told, status=500) if told.status == 404 and "%" in asked.path else told


@breaks("fuzz-documented")
async def a_status_of_its_own(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Wrong requests get one that the contract does not have."""
    told = await honest(asked)
    return replace(told, status=418) if told.status == 400 else told


@breaks("fuzz-shape")
async def errors_without_a_title(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Problem details lack what they must have."""
    told = await honest(asked)
    return told if told.status == 200 else replace(told, body={"status": told.status})


@breaks("fuzz-accepts")
async def no_odd_page_sizes(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """Page sizes that people do not think of are refused."""
    return await honest(asked if asked.query.get("page_size", "1") in SIZES_OF_PEOPLE else asked.but(page_size="0"))


@breaks("fuzz-refuses")
async def takes_anything(self: Crooked, asked: Asked, honest: Honest) -> Told:
    """A page size that is none is taken for the default."""
    told = await honest(asked)
    return await honest(asked.but(page_size=None)) if told.status == 400 and "cursor" not in asked.query else told
