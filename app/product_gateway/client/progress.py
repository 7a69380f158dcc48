"""What is seen while a sync is watched: a bar on a terminal, lines elsewhere, JSON lines for programs."""

import json
import time
from collections import deque
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from product_gateway.client import formatting
from product_gateway.client.bodies import OneSync, Sync
from product_gateway.client.gateway import Answer

SECONDS_OF_SPEED = 15.0
SECONDS_BETWEEN_LINES = 10.0
PERCENT_BETWEEN_LINES = 10
SECONDS_BETWEEN_MOVES = 2
SECONDS_BETWEEN_LOOKS = 5
SECONDS_TO_WAIT = 20  # of a gateway that answers when the sync ends


class Speed:
    """Records per second over the last looks."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()

    def after(self, sync: Sync, now: float) -> float | None:
        """With this look at `now` (seconds of a steady clock); None while nothing can be said."""
        read = sync.progress.records_read
        if self._looks and read < self._looks[-1][1]:
            self._looks.clear()
        self._looks.append((now, read))
        while len(self._looks) > 2 and now - self._looks[0][0] > SECONDS_OF_SPEED:
            self._looks.popleft()
        (first, read_first), (last, read_last) = self._looks[0], self._looks[-1]
        return (read_last - read_first) / (last - first) if last - first >= 0.1 and read_last > read_first else None


class Display(Protocol):
    """Where a watched sync is shown; `pause` are the seconds between two looks, `wait` what a gateway may take for
    one."""

    pause: float
    wait: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, answer: Answer[OneSync]) -> None:
        """A look at the sync."""

    def notice(self, text: str) -> None:
        """Show a notice to the user. `text` is plain text."""


class Lines:
    """A line when something has changed: for logs, and for terminals that can do no more."""

    pause: float = SECONDS_BETWEEN_LOOKS
    wait = SECONDS_TO_WAIT

    def __init__(self, console: Console) -> None:
        self._console = console
        self._speed = Speed()
        self._said: tuple[object, ...] = ()
        self._percent = 0
        self._at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, answer: Answer[OneSync]) -> None:
        """At once where the status or the attempt is another; otherwise each tenth part, or after a while."""
        sync, now = answer.content.data, time.monotonic()
        speed = self._speed.after(sync, now)
        what = (sync.id, sync.status, sync.attempt)
        percent = sync.progress.percent or 0
        if not sync.is_active:
            return
        due = percent >= self._percent + PERCENT_BETWEEN_LINES or now >= self._at + SECONDS_BETWEEN_LINES
        if what != self._said or due:
            self._said, self._percent, self._at = what, percent, now
            self._console.print(formatting.described(sync, speed))

    def notice(self, text: str) -> None:
        """A line."""
        self._console.print(Text(text))


class Bar:
    """A bar that moves, for each sync that is watched a new one."""

    pause: float = SECONDS_BETWEEN_MOVES
    wait = SECONDS_BETWEEN_MOVES

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        self._speed = Speed()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=None, figures="")
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, answer: Answer[OneSync]) -> None:
        """The bar where the sync is."""
        sync = answer.content.data
        total, read = sync.progress.records_total, sync.progress.records_read
        figures = formatting.figures(sync, self._speed.after(sync, time.monotonic()) if sync.is_active else None)
        self._progress.update(
            self._task, description=sync.entity_type, total=total, completed=read, figures=figures, refresh=True
        )

    def notice(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(Text(text))


class JsonLines:
    """The gateway's body of each look that is not the one before; notices go to `console`."""

    pause: float = SECONDS_BETWEEN_LOOKS
    wait = SECONDS_TO_WAIT

    def __init__(self, console: Console, stream: TextIO) -> None:
        self._console = console
        self._stream = stream
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, answer: Answer[OneSync]) -> None:
        """One line, at once."""
        line = as_json(answer.body)
        if line != self._last:
            self._last = line
            print(line, file=self._stream, flush=True)

    def notice(self, text: str) -> None:
        """A line on standard error."""
        self._console.print(Text(text))


def as_json(body: object) -> str:
    """Return JSON in one line of ASCII, so that nothing in it can be taken for a command."""
    return json.dumps(body)


def display(console: Console, stream: TextIO, *, json_lines: bool) -> Display:
    """The one that fits `console`, which is standard error, and what was asked for."""
    if json_lines:
        return JsonLines(console, stream)
    return Bar(console) if console.is_interactive and not console.is_dumb_terminal else Lines(console)
