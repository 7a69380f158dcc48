"""A model of the syncs of one entity type of a merchant: all steps that clients, workers and the clock can take.

Each action names the functions in `product_gateway` that it models. An action is one transaction: each transaction of
the gateway locks the row of its sync with its first write, so that two of them on one sync run one after the other. A
PUT is also modelled as two steps, because its look-up locks nothing. That of a claim locks nothing either, but its
UPDATE finds the row only as it was read and with an expired lease or none: a claim that is late changes nothing.

The model keeps what a later step depends on. Fencing tokens only grow, and are only compared for equality: a claim has
either the token of its sync or an old one. A record is a flag: the sync has unpublished records, or none.
"""

from collections.abc import Iterator
from typing import NamedTuple

QUEUED, IN_PROGRESS = "QUEUED", "IN_PROGRESS"
PUBLISHED, STAGED, DISCARDED = "PUBLISHED", "STAGED", "DISCARDED"  # SUCCEEDED, by publication
FAILED, CANCELLED = "FAILED", "CANCELLED"
NO_RESULT = "ended without a result"  # FAILED, CANCELLED or DISCARDED, where a newer sync makes them alike
ENDED_WITHOUT_RESULT = (FAILED, CANCELLED, DISCARDED, NO_RESULT)
ACTIVE = (QUEUED, IN_PROGRESS)

# Where a worker is in its sync: before and after `sync.pull.prepare`, and while it only tries to hand the sync back.
CLAIMED, READY, LEAVING = "claimed", "ready", "leaving"
LOST = "lost"  # every write will be refused: see `Actions.tidy`
CURSOR_WRITTEN = "cursor written"  # of a mutant that writes a page in two transactions

ONE_ACTIVE = "two syncs of an entity type are active"
OLD_WRITE = "a write under an old token is accepted"
ONE_UNPUBLISHED = "two syncs have unpublished records"
LIVE_LEASE = "a worker takes a sync whose lease has not expired"
LOST_RECORDS = "a sync publishes less than it has read"
NOT_SHOWN = "a sync is PUBLISHED, and readers do not see its records"
FINAL = "a result that was discarded is published"
NEVER_ENDS = "a sync can neither end nor be claimed"


class Sync(NamedTuple):
    """A row of `syncs`. `pages` is the cursor, `lost` counts the workers that the sync has lost.

    Beside the row: whether the sync `has_records` that are unpublished, and whether one of its pages `lacks_records`.
    """

    status: str = QUEUED
    expired: bool = False
    manual: bool = False
    lost: int = 0
    pages: int = 0
    has_records: bool = False
    lacks_records: bool = False

    @property
    def is_active(self) -> bool:
        """Queued or in progress."""
        return self.status in ACTIVE

    @property
    def is_unpublished(self) -> bool:
        """The sync has a result, or a part of one, that readers do not see."""
        return self.has_records or self.status == STAGED


class Claim(NamedTuple):
    """What a worker knows of the sync that it runs: its place in `State.syncs`, the next page, and where it is.

    `has_token`: the claim's token is the sync's. `is_latest`: no claim of the sync came later. Without a mutation, both
    are the same.
    """

    sync: int
    page: int
    step: str = CLAIMED
    has_token: bool = True
    is_latest: bool = True


class State(NamedTuple):
    """The syncs of one entity type, newest first, and the claims by worker.

    `unpublished` is the place of `catalog_counts.unpublished_sync`. `listed` is the place of the sync that the
    background loop is about to roll back. `looked_up`: a PUT has found no active sync, and has not inserted its own.
    `broken` is a rule that the last step broke.
    """

    claims: tuple[Claim | None, ...]
    syncs: tuple[Sync, ...] = ()
    unpublished: int | None = None
    listed: int | None = None
    looked_up: bool = False
    broken: str = ""

    @property
    def has_active(self) -> bool:
        """A sync is queued or in progress."""
        return any(each.is_active for each in self.syncs)

    def sync(self, place: int, **changes: object) -> "State":
        """Change a sync."""
        changed = self.syncs[place]._replace(**changes)  # type: ignore[arg-type]
        return self._replace(syncs=(*self.syncs[:place], changed, *self.syncs[place + 1 :]))

    def claim(self, worker: int, claim: Claim | None) -> "State":
        """Change what a worker does; None: it is idle."""
        return self._replace(claims=(*self.claims[:worker], claim, *self.claims[worker + 1 :]))


class Step(NamedTuple):
    """An action that is possible in a state, by a worker or a client, and the state after it."""

    action: str
    after: State
    worker: int | None = None
    text: str = ""


class Rules(NamedTuple):
    """What the statements check. A mutant lacks one of these."""

    unique_index: bool = True
    writes_check_token: bool = True
    writes_check_status: bool = True
    end_checks_token: bool = True
    claims_check_lease: bool = True
    claims_increase_token: bool = True
    claims_take_over: bool = True
    end_publishes: bool = True
    writer_is_noted: bool = True
    publish_checks_staged: bool = True
    roll_back_checks_sync: bool = True
    page_is_one_transaction: bool = True


class Bounds(NamedTuple):
    """The size of the model. `syncs` is how many the model remembers: see `Actions.tidy`. `lost` is MAX_LOST_WORKERS.

    With `stale_lists`, the background loop reads and rolls back in two steps, otherwise in one.
    """

    entity_types: int = 2
    workers: int = 3
    pages: int = 1
    syncs: int = 3
    lost: int = 2
    forgets_lost_claims: bool = True
    stale_lists: bool = False


class Actions:
    """All actions on one entity type."""

    def __init__(self, bounds: Bounds, rules: Rules) -> None:
        self.bounds = bounds
        self.rules = rules
        checks = (
            rules.writes_check_token,
            rules.writes_check_status,
            rules.end_checks_token,
            rules.claims_increase_token,
        )
        self.forgets_lost_claims = bounds.forgets_lost_claims and all(checks)
        self.initial = State((None,) * bounds.workers)
        self._of_workers = [self.leave, self.heartbeat, self.prepare, self.page, self.end, self.fail, self.hand_back]

    def steps(self, state: State) -> Iterator[Step]:
        """Return the possible steps. Some change nothing."""
        yield from self.put(state)
        yield from self.cancel(state)
        yield from self.end_review(state)
        yield from self.expire(state)
        yield from self.claim(state)
        yield from self.roll_back(state)
        for worker, claim in enumerate(state.claims):
            if claim is not None and claim.step == LOST:
                text = "is refused a write, and leaves the sync"
                yield Step("refused", state.claim(worker, None), worker, text)
            elif claim is not None:
                is_held = state.syncs[claim.sync].status == IN_PROGRESS
                note = "(old token) " if not claim.is_latest else "" if is_held else "(not in progress) "
                yield Step("die", state.claim(worker, None), worker, "is killed")
                for action in self._of_workers:
                    for step in action(state, worker, claim):
                        yield step._replace(worker=worker, text=note + step.text)

    def tidy(self, state: State) -> State:
        """Forget what no later step depends on.

        Of a claim whose writes are all refused, only the worker is kept. Of the syncs, the newest one is kept, and
        those that are claimed or have unpublished records: so a run may have any number of syncs. Of an ended sync, the
        status is kept.
        """
        claims = state.claims
        if self.forgets_lost_claims:
            claims = tuple(each and (each if self._may_write(state, each) else Claim(-1, 0, LOST)) for each in claims)
        held = {state.unpublished, state.listed, *(each.sync for each in claims if each)}
        kept = [
            place
            for place, sync in enumerate(state.syncs)
            if place == 0 or sync.is_active or sync.is_unpublished or place in held
        ]
        syncs = [state.syncs[place] for place in kept]
        places = {was: place for place, was in enumerate(kept)}
        return state._replace(
            syncs=tuple(each if each.is_active else _ended(each, place > 0) for place, each in enumerate(syncs)),
            claims=tuple(each and each._replace(sync=places.get(each.sync, -1)) for each in claims),
            unpublished=None if state.unpublished is None else places[state.unpublished],
            listed=None if state.listed is None else places[state.listed],
        )

    def _may_write(self, state: State, claim: Claim) -> bool:
        return claim.step != LOST and claim.has_token and state.syncs[claim.sync].status == IN_PROGRESS

    def put(self, state: State) -> Iterator[Step]:
        """`db.enqueue.enqueue_many`: look up the active sync; insert one if there is none, and the index allows it.

        `db.reverts.request` does the same if a sync was published.
        """
        is_free = not state.has_active
        if is_free and not state.looked_up:
            yield Step("look up", state._replace(looked_up=True), text="a PUT looks up, and finds no active sync")
        if state.looked_up and not is_free and self.rules.unique_index:
            yield Step("refuse", state._replace(looked_up=False), text="the unique index refuses the PUT's sync")
        if len(state.syncs) == self.bounds.syncs:
            return
        if state.looked_up and (is_free or not self.rules.unique_index):
            yield from self._inserts(state._replace(looked_up=False), "the PUT that has looked up inserts a sync")
        if is_free:
            yield from self._inserts(state, "a PUT inserts a sync")
            if any(each.status == PUBLISHED for each in state.syncs):
                yield Step("revert", self._with_new(state, manual=False), text="a POST requests a revert")

    def _inserts(self, state: State, text: str) -> Iterator[Step]:
        yield Step("put", self._with_new(state, manual=False), text=text)
        yield Step("put", self._with_new(state, manual=True), text=f"{text} with publish=manual")

    def _with_new(self, state: State, *, manual: bool) -> State:
        claims = tuple(each and each._replace(sync=each.sync + (each.step != LOST)) for each in state.claims)
        after = state._replace(syncs=(Sync(manual=manual), *state.syncs), claims=claims)
        unpublished, listed = (None if each is None else each + 1 for each in (state.unpublished, state.listed))
        return after._replace(unpublished=unpublished, listed=listed)

    def cancel(self, state: State) -> Iterator[Step]:
        """`db.syncs.cancel`: one statement for all active syncs of the entity type."""
        if state.has_active:
            syncs = tuple(each._replace(status=CANCELLED) if each.is_active else each for each in state.syncs)
            yield Step("cancel", state._replace(syncs=syncs), text="a DELETE cancels the sync")

    def end_review(self, state: State) -> Iterator[Step]:
        """`db.generations.publish` and `discard`: a client ends a review; `publish` only of the newest sync."""
        for place, sync in enumerate(state.syncs):
            may_publish = sync.status == STAGED or (sync.status == DISCARDED and not self.rules.publish_checks_staged)
            if may_publish and place == 0:
                broken = FINAL if sync.status == DISCARDED else ""
                after = _published(state, place)._replace(broken=broken)
                yield Step("publish", after, text="a client publishes the staged result")
            if sync.status == STAGED:
                yield Step("discard", state.sync(place, status=DISCARDED), text="a client discards the staged result")

    def expire(self, state: State) -> Iterator[Step]:
        """The clock passes `lease_expires_at`. Two leases may expire in any order."""
        for place, sync in enumerate(state.syncs):
            if sync.status == IN_PROGRESS and not sync.expired:
                yield Step("expire", state.sync(place, expired=True), text="the lease expires")

    def claim(self, state: State) -> Iterator[Step]:
        """`db.claims.claim`, by an idle worker: an expired lease, or a queued sync; FAILED after too many workers."""
        for place, sync in enumerate(state.syncs):
            may_take_over = self.rules.claims_take_over and (sync.expired or not self.rules.claims_check_lease)
            takes_over = sync.status == IN_PROGRESS and may_take_over
            if not takes_over and sync.status != QUEUED:
                continue
            lost = sync.lost + takes_over
            for worker in (number for number, each in enumerate(state.claims) if each is None):
                if lost >= self.bounds.lost:
                    after = state.sync(place, status=FAILED, lost=lost)
                    yield Step("give up", after, worker, "ends the sync, which has lost too many workers: FAILED")
                    continue
                claims = tuple(self._outdated(each) if each and each.sync == place else each for each in state.claims)
                after = state._replace(claims=claims).sync(place, status=IN_PROGRESS, expired=False, lost=lost)
                after = after.claim(worker, Claim(place, sync.pages))
                if takes_over and not sync.expired:
                    after = after._replace(broken=LIVE_LEASE)
                yield Step("claim", after, worker, "takes over the sync" if takes_over else "claims the sync")

    def _outdated(self, claim: Claim) -> Claim:
        has_token = claim.has_token and not self.rules.claims_increase_token
        return claim._replace(has_token=has_token, is_latest=False)

    def roll_back(self, state: State) -> Iterator[Step]:
        """`sync.pruning.roll_back_loop`: `db.generations.left_behind` finds a sync, and then `roll_back` undoes it."""
        if state.listed is not None:
            for step in self._roll_back(state, state.listed, "the background loop"):
                is_done = step.after.unpublished != state.listed
                yield step._replace(after=step.after._replace(listed=None)) if is_done else step
        elif state.unpublished is not None and state.syncs[state.unpublished].status in ENDED_WITHOUT_RESULT:
            if self.bounds.stale_lists:
                text = "the background loop finds what the sync has left"
                yield Step("list", state._replace(listed=state.unpublished), text=text)
            else:
                yield from self._roll_back(state, state.unpublished, "the background loop")

    def _roll_back(self, state: State, place: int, who: str) -> Iterator[Step]:
        if state.unpublished is None or (state.unpublished != place and self.rules.roll_back_checks_sync):
            yield Step("roll back", state, text=f"{who} has nothing to roll back")
        elif any(each.has_records for each in state.syncs):
            # It deletes the records of the next generation, of whichever sync they are.
            syncs = tuple(
                each._replace(has_records=False, lacks_records=each.has_records and each.status in (*ACTIVE, STAGED))
                for each in state.syncs
            )
            yield Step("roll back", state._replace(syncs=syncs), text=f"{who} rolls back the unpublished records")
        else:
            yield Step("roll back", state._replace(unpublished=None), text=f"{who} notes that nothing is unpublished")

    def leave(self, state: State, worker: int, claim: Claim) -> Iterator[Step]:
        """`sync.worker.Worker._hand_back_when_possible`: no answer; the last write may have worked."""
        if claim.step != LEAVING:
            yield Step("leave", _leaving(state, worker, claim), text="gets no answer from the database")

    def heartbeat(self, state: State, worker: int, claim: Claim) -> Iterator[Step]:
        """`db.claims.heartbeat`: renew the lease, also if it has expired and was not taken."""
        if claim.step == LEAVING:
            return
        if after := self._write(state, worker, claim):
            yield Step("heartbeat", after.sync(claim.sync, expired=False), text="renews the lease")
        else:
            yield Step("refused", state.claim(worker, None), text="is refused a write, and leaves the sync")

    def prepare(self, state: State, worker: int, claim: Claim) -> Iterator[Step]:
        """`sync.pull.prepare`: `db.generations.unpublished_by_another`, which only reads, and then `prepare`.

        `prepare` discards a staged result, and rolls back some of the records; then it is called again.
        """
        if claim.step != CLAIMED:
            return
        ready = claim._replace(step=READY)
        if not self.rules.writer_is_noted or state.unpublished in (None, claim.sync):
            yield Step("find nothing", state.claim(worker, ready), text="finds nothing to roll back")
        elif after := self._write(state, worker, claim):
            after = after.sync(claim.sync, expired=False)
            if after.syncs[state.unpublished].status == STAGED:
                after = after.sync(state.unpublished, status=DISCARDED)
            for step in self._roll_back(after, state.unpublished, ""):
                done = step.after.unpublished is None
                yield step._replace(
                    action="prepare",
                    after=step.after.claim(worker, ready if done else claim),
                    text="rolls back the earlier sync" + (" to the end" if done else ""),
                )
            yield Step("prepare", after, text="rolls back a part of the earlier sync")

    def page(self, state: State, worker: int, claim: Claim) -> Iterator[Step]:
        """`db.catalog_write.write_page`: records, if any have changed, and the cursor. The first write is a heartbeat.

        `db.catalog_removal.remove_missing` and `remove` and `db.reverts.restore` write in the same way.
        """
        if claim.step == CURSOR_WRITTEN:
            if after := self._write(state, worker, claim):
                after = after.sync(claim.sync, lacks_records=False).claim(worker, claim._replace(step=READY))
                yield Step("page", _add(after, claim.sync, self.rules), text="writes the page's records")
            return
        if claim.step != READY or claim.page == self.bounds.pages:
            return
        if after := self._write(state, worker, claim):
            following = claim._replace(page=claim.page + 1)
            text = f"writes page {following.page}"
            after = after.sync(claim.sync, pages=following.page, expired=False)
            if not self.rules.page_is_one_transaction:
                after = after.sync(claim.sync, lacks_records=True)
                after = after.claim(worker, following._replace(step=CURSOR_WRITTEN))
                yield Step("page", after, text=f"{text}: first the cursor")
                return
            yield Step("page", _add(after.claim(worker, following), claim.sync, self.rules), text=text)
            yield Step("page", after.claim(worker, following), text=f"{text}, which changes nothing")

    def end(self, state: State, worker: int, claim: Claim) -> Iterator[Step]:
        """`db.generations.succeed`: SUCCEEDED, and published or staged, in one transaction."""
        if claim.step != READY or claim.page < self.bounds.pages:
            return
        if after := self._write(state, worker, claim, checks_token=self.rules.end_checks_token):
            if state.syncs[claim.sync].manual:
                after = after.sync(claim.sync, status=STAGED)._replace(unpublished=claim.sync)
                text = "ends the sync: SUCCEEDED, staged"
            elif self.rules.end_publishes:
                after = _published(after, claim.sync)
                text = "ends the sync: SUCCEEDED, published"
            else:
                after, text = after.sync(claim.sync, status=PUBLISHED), "ends the sync: SUCCEEDED"
            yield Step("end", after.claim(worker, None), text=text)
            yield Step("end", _leaving(after, worker, claim), text=f"{text}, but gets no answer")

    def fail(self, state: State, worker: int, claim: Claim) -> Iterator[Step]:
        """`db.claims.fail`: at any moment of a pull."""
        if claim.step != LEAVING and (after := self._write(state, worker, claim)):
            yield Step("fail", after.sync(claim.sync, status=FAILED).claim(worker, None), text="ends the sync: FAILED")

    def hand_back(self, state: State, worker: int, claim: Claim) -> Iterator[Step]:
        """`db.claims.hand_back` and `release`: at any moment. Without an answer, a worker tries again."""
        if after := self._write(state, worker, claim):
            after = after.sync(claim.sync, status=QUEUED, expired=False)
            yield Step("hand back", after.claim(worker, None), text="hands the sync back")
            yield Step("hand back", _leaving(after, worker, claim), text="hands the sync back, but gets no answer")
        elif claim.step == LEAVING:
            yield Step("refused", state.claim(worker, None), text="is refused, and leaves the sync")

    def _write(self, state: State, worker: int, claim: Claim, *, checks_token: bool = True) -> State | None:
        """Return the state if the statement finds its row (`db.claims._ours`): the claim's token, and IN_PROGRESS."""
        sync = state.syncs[claim.sync]
        checks_token = checks_token and self.rules.writes_check_token
        if (checks_token and not claim.has_token) or (self.rules.writes_check_status and sync.status != IN_PROGRESS):
            return None
        is_old = not claim.is_latest or sync.status != IN_PROGRESS
        return state._replace(broken=OLD_WRITE) if is_old else state


def _ended(sync: Sync, is_older: bool) -> Sync:
    status = NO_RESULT if is_older and sync.status in ENDED_WITHOUT_RESULT else sync.status
    return Sync(status, has_records=sync.has_records, lacks_records=sync.lacks_records and sync.is_unpublished)


def broken_rule(state: State) -> str:
    """Return the rule that the state breaks, or an empty text."""
    if state.broken:
        return state.broken
    if sum(each.is_active for each in state.syncs) > 1:
        return ONE_ACTIVE
    if sum(each.is_unpublished for each in state.syncs) > 1:
        return ONE_UNPUBLISHED
    if any(each.status == PUBLISHED and each.has_records for each in state.syncs):
        return NOT_SHOWN
    return ""


def _published(state: State, place: int) -> State:
    """`db.generations._publish_at`: show all that is unpublished."""
    broken = state.broken or (LOST_RECORDS if state.syncs[place].lacks_records else "")
    syncs = tuple(each._replace(has_records=False) for each in state.syncs)
    return state._replace(syncs=syncs, unpublished=None, broken=broken).sync(place, status=PUBLISHED)


def _add(state: State, place: int, rules: Rules) -> State:
    """`db.generations.add`: note the writer of the next generation. The statement refuses a second one."""
    if rules.writer_is_noted and state.unpublished not in (None, place):
        return state._replace(broken=state.broken or ONE_UNPUBLISHED)
    return state._replace(unpublished=place).sync(place, has_records=True)


def _leaving(state: State, worker: int, claim: Claim) -> State:
    return state.claim(worker, claim._replace(step=LEAVING, page=0))
