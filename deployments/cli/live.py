"""Shows a run as it goes: rows that move on a terminal, plain lines with the time in a pipe."""

import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tasks.record.feed import Event, State

MARK = {
    State.WAITING: ("·", "dim"),
    State.DONE: ("✓", "green"),
    State.FAILED: ("✗", "bold red"),
    State.SKIPPED: ("-", "dim"),
}
BAR = 20
FRAMES = 8  # a second
PAUSE = 5.0  # seconds between two lines of one subject's amounts; each quarter of it is told besides


class Row(NamedTuple):
    """One line of the display: an event's subject, and what kind of thing it is, if that is worth a word."""

    subject: str
    kind: str = ""


class Display:
    """Listens to a run's events while the context lasts; `rows` are in the order in which the run comes to them.

    What turns up on the way as a part of a row ("images on node-a" of "images") gets a row below it.
    """

    def __init__(self, console: Console, rows: list[Row], clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._rows: dict[str, Event] = {row.subject: Event(row.subject, State.WAITING, "") for row in rows}
        self._kinds = {row.subject: row.kind for row in rows if row.kind}
        self._spinners: dict[str, Spinner] = {}
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=FRAMES, transient=False)
        self._told: dict[str, str] = {}
        self._amounts: dict[str, tuple[float, int]] = {}  # when one was told, and in which quarter

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail()
        if self._console.is_terminal:
            with suppress(OSError):  # a terminal that was closed
                self._live.stop()

    def hear(self, event: Event) -> None:
        """One event of the run.  Output that cannot be written (a closed pipe, a full disk) never holds the run up."""
        with suppress(OSError):
            self._show(event)

    def _show(self, event: Event) -> None:
        if event.state is State.ENDED:
            return
        if event.state is State.LOG:
            self._line(f"{event.subject} | {event.text}", "dim")
            return
        if event.subject in self._rows:
            self._rows[event.subject] = event
        elif (whole := event.subject.partition(" on ")[0]) in self._rows:
            self._rows = _with_part(self._rows, whole, event)
        if not self._console.is_terminal and self._told.get(event.subject) != event.text and self._due(event):
            self._told[event.subject] = event.text
            self._line(f"{event.subject}: {event.text}", "")

    def _due(self, event: Event) -> bool:
        if not event.passing:
            return True
        now, quarter = self._clock(), int((event.share or 0.0) * 4)
        then, told = self._amounts.get(event.subject, (now - PAUSE, quarter))
        if quarter == told and now - then < PAUSE:
            return False
        self._amounts[event.subject] = (now, quarter)
        return True

    def _line(self, text: str, style: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        self._console.print(f"[dim]{stamp}[/] [{style or 'default'}]{escape(text)}[/]", soft_wrap=True)

    def _fail(self) -> None:
        for name, event in self._rows.items():
            if event.state is State.RUNNING:
                self._rows[name] = Event(name, State.FAILED, event.text, event.share)
            elif event.state is State.WAITING:
                self._rows[name] = Event(name, State.SKIPPED, "not touched")

    def _render(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(width=1)
        table.add_column(no_wrap=True, min_width=max(map(len, self._rows)))
        table.add_column(no_wrap=True, min_width=max(map(len, self._kinds.values()), default=0))
        table.add_column(max_width=BAR)
        table.add_column(overflow="ellipsis", no_wrap=True)
        for name, event in self._rows.items():
            bar: RenderableType = ""
            if event.share is not None and event.state is State.RUNNING:
                bar = ProgressBar(total=1.0, completed=event.share, width=BAR)
            table.add_row(self._mark(name, event), escape(name), self._kinds.get(name, ""), bar, escape(event.text))
        return Group(Text(""), table)

    def _mark(self, name: str, event: Event) -> RenderableType:
        if event.state is State.RUNNING:
            return self._spinners.setdefault(name, Spinner("dots", style="cyan"))
        symbol, style = MARK[event.state]
        return Text(symbol, style=style)


def _with_part(rows: dict[str, Event], whole: str, event: Event) -> dict[str, Event]:
    """The rows with a new one after those that belong to `whole` already."""
    names = list(rows)
    last = max(n for n, name in enumerate(names) if name == whole or name.startswith(f"{whole} on "))
    ordered = [*names[: last + 1], event.subject, *names[last + 1 :]]
    return {name: rows.get(name, event) for name in ordered}
