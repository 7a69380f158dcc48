"""What each sync is to be like: said by whoever asks for it, and read by the product service when it is pulled."""

import asyncio
import collections
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from product_gateway.model.syncs import EntityType

SECONDS_BETWEEN_LOOKS = 0.005

Key = tuple[str, str]
"""A merchant and an entity type: of those, one sync is active."""


class Scenario(StrEnum):
    """How a sync goes, as `Prefer: sync=` names it."""

    ORDINARY = "ordinary"
    SLOW = "slow"
    FAILING = "failing"
    REJECTING = "rejecting"
    LOST_WORKER = "lost-worker"
    MASS_DELETION = "mass-deletion"


NAMES = ", ".join(each for each in Scenario if each is not Scenario.ORDINARY)


@dataclass
class Run:
    """A sync and its script. `lost` when it has lost its worker."""

    merchant: str
    entity_type: EntityType
    sync_id: str
    script: Scenario
    hurried: bool = False
    lost: bool = False


class Scenarios:
    """The latest sync of each merchant and entity type. Written by the gateway's thread, read by the service's."""

    def __init__(self) -> None:
        self._latest: dict[Key, Run] = {}
        self._asked: collections.Counter[Key] = collections.Counter()

    @contextmanager
    def asking(self, key: Key) -> Iterator[None]:
        """While the gateway answers: a worker may be quicker with the sync than we are with its script."""
        self._asked[key] += 1
        try:
            yield
        finally:
            self._asked[key] -= 1

    def begin(self, run: Run) -> None:
        """Unless it is known: an Idempotency-Key brings an earlier sync again. Ids are in the order of time."""
        key = run.merchant, run.entity_type.value
        known = self._latest.get(key)
        if known is None or run.sync_id > known.sync_id:
            self._latest[key] = run

    async def current(self, merchant: str, entity_type: EntityType) -> Run:
        """That of the active sync; an ordinary one where nobody has asked for any."""
        key = merchant, entity_type.value
        while self._asked[key]:  # noqa: ASYNC110 - counted by another thread
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        return self._latest.get(key) or Run(merchant, entity_type, "", Scenario.ORDINARY)
