"""How a run looks in a terminal: sentences, headings and bars with speed and time left."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from etude.compose.voice import Advance, Voice

_BETWEEN_LINES = 15.0
"""Seconds between lines where there is no terminal to draw a bar on."""


class TerminalVoice(Voice):
    """Speaks on standard error, so that standard output holds results alone."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._open: Progress | None = None

    def say(self, line: str) -> None:
        if not self.console.is_terminal:  # a file is not as wide as anything
            self.console.print(Text(f"  {line}"))
            return
        indent = len(line) - len(line.lstrip())
        self.console.print(Padding(Text(line.lstrip(), style="dim"), (0, 0, 0, 2 + indent)), soft_wrap=False)

    def heading(self, line: str) -> None:
        self.console.print()
        self.console.print(line, style="bold", markup=False)

    @contextmanager
    def bar(self, label: str, total: float, unit: str) -> Iterator[Advance]:
        if not self.console.is_terminal:
            yield from self._lines(label, total, unit)
            return
        if self._open is not None:  # a bar within a bar, as the held-out loss within training: one line more, not one bar more
            yield from self._task(self._open, label, total, leave=False)
            return
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TaskProgressColumn() if unit in ("tokens", "bytes") else MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Progress(*columns, console=self.console) as progress:
            self._open = progress
            try:
                yield from self._task(progress, label, total, leave=True)
            finally:
                self._open = None

    def _lines(self, label: str, total: float, unit: str) -> Iterator[Advance]:
        """For a file that somebody follows: a line now and then, and one at the end."""
        began = told = time.monotonic()
        done = 0.0
        since: tuple[float, float] | None = None

        def advance(amount: float, note: str) -> None:
            nonlocal done, told, since
            done += amount
            now = time.monotonic()
            if since is None:  # what the first report counts may have been done in another sitting
                since = (now, done)
            if now - told >= _BETWEEN_LINES and 0 < done < total:
                told = now
                speed = (done - since[1]) / (now - since[0]) if now > since[0] else 0
                left = f"{(total - done) / speed:.0f} s left" if speed > 0 else ""
                self.say(", ".join(part for part in (f"{label}: {done:,.0f} of {total:,.0f} {unit}", note, left) if part))

        yield advance
        self.say(f"{label}: {done:,.0f} {unit} in {time.monotonic() - began:.0f} s")

    def _task(self, progress: Progress, label: str, total: float, *, leave: bool) -> Iterator[Advance]:
        task = progress.add_task(f"  {label}", total=total, note="")
        yield lambda amount, note: progress.update(task, advance=amount, note=note or progress.tasks[task].fields["note"])
        progress.update(task, visible=leave)
