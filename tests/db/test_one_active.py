"""Only one sync per merchant and entity type is active, however many ask at once, of however many processes."""

import asyncio
import json
from collections import Counter

from tests.support.contract import Gateway
from tests.support.deployment import API, Deployment
from tests.support.load import Connection, written

REQUESTS = 200


async def test_of_200_that_ask_at_once_one_is_accepted(deployment: Deployment) -> None:
    """The database decides, not a process: two servers share it, and no worker makes room in between."""
    with deployment.serving() as one, deployment.serving() as two:
        gateway = Gateway(deployment, one)
        gateway.add("shop")
        gateway.add("other")
        async with asyncio.timeout(60):
            # Each request has a connection of its own, which is there already.
            clients = await asyncio.gather(*(Connection.to(two if n % 2 else one) for n in range(REQUESTS)))
            await asyncio.gather(*(client.ask(written("/health/live")) for client in clients))
            # Another entity type, and another merchant, are not in the way of the first.
            for merchant, entity_type, asked in (
                ("shop", "PRODUCT", clients),
                ("shop", "COLLECTION", clients[:20]),
                ("other", "PRODUCT", clients[:20]),
            ):
                put = written(f"{API}/sync/{entity_type}", gateway.token(merchant), "PUT")
                answers = await asyncio.gather(*(client.ask(put) for client in asked))
                statuses = Counter(each.status for each in answers)
                assert statuses[202] == 1, statuses
                assert statuses[429] >= 10, statuses
                assert statuses.keys() <= {202, 429, 503}, statuses  # 503: for whom a busy machine has no time
                [accepted] = [json.loads(each.body)["data"] for each in answers if each.status == 202]
                refused = [each for each in answers if each.status == 429]
                assert {each.headers["link"] for each in refused} == {f'<{API}/syncs/{accepted["id"]}>; rel="monitor"'}
            for client in clients:
                client.close()
