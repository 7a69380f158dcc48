"""Only one sync per merchant and entity type is active, however many ask at once, of however many processes."""

import asyncio
from collections import Counter

import httpx2

from tests.support.contract import Gateway
from tests.support.deployment import API, Deployment

REQUESTS = 200


async def test_of_200_that_ask_at_once_one_is_accepted(deployment: Deployment) -> None:
    """The database decides, not a process: two servers share it, and no worker makes room in between."""
    limits = httpx2.Limits(max_connections=REQUESTS, max_keepalive_connections=REQUESTS)
    with deployment.serving() as one, deployment.serving() as two:
        gateway = Gateway(deployment, one)
        gateway.add("shop")
        gateway.add("other")
        async with asyncio.timeout(60), httpx2.AsyncClient(limits=limits, timeout=50) as client:
            urls = [one if number % 2 else two for number in range(REQUESTS)]
            # Each request has a connection of its own, which is there already.
            await asyncio.gather(*(client.get(f"{url}/health/live") for url in urls))
            # Another entity type, and another merchant, are not in the way of the first.
            for merchant, entity_type, asked in (
                ("shop", "PRODUCT", urls),
                ("shop", "COLLECTION", urls[:20]),
                ("other", "PRODUCT", urls[:20]),
            ):
                headers = {"Authorization": f"Bearer {gateway.token(merchant)}"}
                puts = (client.put(f"{url}{API}/sync/{entity_type}", headers=headers) for url in asked)
                answers = await asyncio.gather(*puts)
                statuses = Counter(each.status_code for each in answers)
                assert statuses[202] == 1, statuses
                assert statuses[429] >= 10, statuses
                assert statuses.keys() <= {202, 429, 503}, statuses  # 503: for whom a busy machine has no time
                [accepted] = [each.json()["data"] for each in answers if each.status_code == 202]
                refused = [each for each in answers if each.status_code == 429]
                assert {each.headers["Link"] for each in refused} == {f'<{API}/syncs/{accepted["id"]}>; rel="monitor"'}
