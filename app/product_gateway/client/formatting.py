"""Syncs, histories and problems as people read them. Nothing that a gateway sends reaches a terminal as it came."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from product_gateway.client.bodies import OneStatus, Problems, Result, Sync
from product_gateway.client.gateway import plain
from product_gateway.model.syncs import EntityType, SyncStatus

COLOURS = {SyncStatus.SUCCEEDED: "green", SyncStatus.FAILED: "bold red", SyncStatus.CANCELLED: "yellow"}
SAMPLES = 3
PLAIN_WIDTH = 200  # where no terminal says how wide it is


def console(stream: TextIO) -> Console:
    """Writes to `stream`; in colour on a terminal alone, and there not where NO_COLOR is set (no-color.org)."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")  # a detail may have what the terminal's encoding lacks
    make = partial(Console, file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)
    made = make()
    if stream.isatty() and made.is_terminal:
        return made
    return make(force_terminal=False, color_system=None, width=PLAIN_WIDTH)


def figures(sync: Sync, speed: float | None = None) -> str:
    """How far it is: `15 of 24 records, 62 %`; `speed` is in records per second."""
    if sync.is_active and not sync.progress.records_read:
        return "no record read yet"
    read, total, percent = sync.progress.records_read, sync.progress.records_total, sync.progress.percent
    parts = [f"{read:,} records" if total is None else f"{read:,} of {total:,} records"]
    if percent is not None:
        parts.append(f"{percent} %")
    if speed is not None:
        parts.append(f"{speed:,.0f} records/s")
    if sync.attempt > 1:
        parts.append(f"attempt {sync.attempt}")
    return ", ".join(parts)


def described(sync: Sync, speed: float | None = None) -> Text:
    """What became of it, or how far it is; its counts and the reason of a failure on lines of their own."""
    text = Text.assemble(f"Sync {sync.id} of {sync.entity_type} ", "is " if sync.is_active else "", _status(sync))
    if sync.is_active:
        return text.append(f": {figures(sync, speed)}.")
    counts = ", ".join(f"{name} {getattr(sync.result, name):,}" for name in Result.model_fields)
    text.append(f" after {sync.seconds:.1f} s: {figures(sync)}.\n  {counts}")
    if sync.failure is not None:
        text.append("\n  ").append(plain(sync.failure.code), "bold red").append(f": {plain(sync.failure.detail)}")
    for each in sync.warnings:
        text.append("\n  ").append(plain(each.code), "yellow").append(f": {plain(each.detail)}")
    return text


def rejected(problems: Problems) -> Text:
    """The records that were left out, by what is wrong with them; the first ones by name."""
    text = Text("  Rejected, by what is wrong:")
    for group in problems.data:
        text.append(f"\n    {plain(group.code)}: {group.count:,}")
        shown = group.samples[:SAMPLES]
        for sample in shown:
            name = "a record without an id" if sample.record_id is None else repr(sample.record_id)
            text.append(f"\n      {plain(name)} at {plain(sample.pointer) or '/'}: {plain(sample.message)}")
        if group.count > len(shown):
            text.append(f"\n      and {group.count - len(shown):,} more")
    return text


def status(found: OneStatus) -> Text:
    data = found.data
    text = Text(f"{data.entity_type}: {data.num_records:,.0f} records, last updated {_in_utc(data.updated_at)} UTC.")
    return text if found.meta.sync is None else text.append("\n").append_text(_latest(found.meta.sync))


def never_synced(entity_type: EntityType, latest: Sync | None) -> Text:
    text = Text(f"{entity_type}: no sync has succeeded yet.\n")
    if latest is None:
        return text.append(f"None has been asked for: product-gateway sync {entity_type} does.")
    return text.append_text(_latest(latest))


def history(syncs: Sequence[Sync]) -> RenderableType:
    """A table, a sync a line; below it why syncs failed."""
    if not syncs:
        return Text("There are no such syncs.")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("asked for (UTC)", "records", "status"):
        table.add_column(name, no_wrap=True)
    for name in ("seconds", "read", *Result.model_fields):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("sync", no_wrap=True)
    for sync in syncs:
        table.add_row(
            _in_utc(sync.queued_at),
            sync.entity_type,
            _status(sync),
            "" if sync.is_active else f"{sync.seconds:.1f}",
            f"{sync.progress.records_read:,}",
            *(f"{getattr(sync.result, name):,}" for name in Result.model_fields),
            str(sync.id),
        )
    failed = [(sync.id, sync.failure) for sync in syncs if sync.failure is not None]
    lines = [Text.assemble(f"{name} ", (plain(why.code), "red"), f": {plain(why.detail)}") for name, why in failed]
    return Group(table, *([Text(), *lines] if lines else []))


def _latest(sync: Sync) -> Text:
    return Text(f"The latest was asked for {_in_utc(sync.queued_at)} UTC: ").append_text(described(sync))


def _status(sync: Sync) -> Text:
    return Text(sync.status, COLOURS.get(sync.status, ""))


def _in_utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
