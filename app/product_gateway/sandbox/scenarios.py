"""Scenarios: how each sync is to go. Clients choose them, and the product service follows them."""

import asyncio
import collections
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from product_gateway.model.syncs import EntityType

Key = tuple[str, str]
"""A merchant and an entity type, which have at most one active sync."""


class Scenario(StrEnum):
    """The values of `Prefer: sync=`, and `ordinary` without it."""

    ORDINARY = "ordinary"
    SLOW = "slow"
    FAILING = "failing"
    REJECTING = "rejecting"
    LOST_WORKER = "lost-worker"
    MASS_DELETION = "mass-deletion"
    CHANGING = "changing"


NAMES = ", ".join(each for each in Scenario if each is not Scenario.ORDINARY)


@dataclass
class Run:
    """A sync and its scenario. `hurried` runs without delays. `lost` is True once its worker has lost it."""

    merchant: str
    entity_type: EntityType
    sync_id: str
    scenario: Scenario
    hurried: bool = False
    lost: bool = False


class Scenarios:
    """The latest run of each merchant and entity type. Shared by the threads of the gateway and the product service."""

    def __init__(self) -> None:
        self._latest: dict[Key, Run] = {}
        self._pending: collections.Counter[Key] = collections.Counter()
        self._changed = threading.Condition()

    @contextmanager
    def pending(self, key: Key) -> Iterator[None]:
        """Let `current` wait during this block, because a worker may claim a sync before its scenario is known."""
        with self._changed:
            self._pending[key] += 1
        try:
            yield
        finally:
            with self._changed:
                self._pending[key] -= 1
                self._changed.notify_all()

    def begin(self, run: Run) -> None:
        """Store a run, unless it is older: an Idempotency-Key may return an earlier sync. Ids are ordered by time."""
        key = run.merchant, run.entity_type.value
        known = self._latest.get(key)
        if known is None or run.sync_id > known.sync_id:
            self._latest[key] = run

    async def current(self, merchant: str, entity_type: EntityType) -> Run:
        """Return the run of the active sync, by default an ordinary one. Wait until no request is pending."""
        key = merchant, entity_type.value
        if self._pending[key]:
            await asyncio.to_thread(self._wait_until_settled, key)
        return self._latest.get(key) or Run(merchant, entity_type, "", Scenario.ORDINARY)

    def _wait_until_settled(self, key: Key) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._pending[key])
