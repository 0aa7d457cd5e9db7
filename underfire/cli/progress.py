"""Show the progress of a job: a bar with a count, a rate and the remaining time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from threading import Event, Thread

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from underfire.cli.shared import ERR

EVERY = 30.0
"""The seconds between two lines about the progress, where no terminal shows a bar."""


class _Count(ProgressColumn):
    """Show the number of finished units and the total."""

    def render(self, task: Task) -> Text:
        return Text(f"{_number(task.completed)}/{_number(task.total or 0)} {task.fields['unit']}")


class _Pace(ProgressColumn):
    """Show the mean rate since the start, and the remaining time, by the share of the work where it is known."""

    def render(self, task: Task) -> Text:
        seconds, new = task.elapsed or 0.0, task.completed - task.fields["first"]
        if new <= 0 or seconds <= 0:
            return Text("")
        pace = f"{_number(new / seconds)} {task.fields['unit']}/s"
        if task.finished:
            return Text(f"{pace}, took {clock(seconds)}")
        share = task.fields["share"] or new / max(new, (task.total or 0) - task.fields["first"])
        return Text(f"{pace}, ETA {clock(seconds * (1 - share) / share)}")


def _number(value: float) -> str:
    """Format a whole number in full and another one with three digits, without exponents."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def clock(seconds: float) -> str:
    """Return a time as `minutes:seconds` or `hours:minutes:seconds`, and in days from two days on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24:,} days"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def _lines(bars: Progress) -> Iterator[None]:
    """Print the state of a bar as a line every `EVERY` seconds."""
    end = Event()

    def report() -> None:
        while not end.wait(EVERY):
            task = bars.tasks[0]
            done, pace = (column.render(task).plain for column in (_Count(), _Pace()))
            ERR.print(", ".join(filter(None, (f"{task.description}: {done}", pace))), soft_wrap=True)

    thread = Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@contextmanager
def progress(
    what: str, total: float, *, unit: str, start: float = 0, quiet: bool = False
) -> Iterator[Callable[..., None]]:
    """Show a progress bar on stderr that begins at `start`; without a terminal, a line every `EVERY` seconds.

    Yields:
        `show(done, what, share)`, which moves the bar to `done` and may rename it. The remaining time follows from
        `share`, the share of the work that was done since the start; if it is None, every unit counts the same.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        _Count(Column(no_wrap=True)),
        _Pace(Column(no_wrap=True)),  # in a narrow window the bar gets shorter
    )
    bars = Progress(*columns, console=ERR, disable=quiet)
    task = bars.add_task(what, total=total, unit=unit, first=start, share=None)
    bars.update(task, completed=start)
    bars.start()
    try:
        with _lines(bars) if not (quiet or ERR.is_terminal) else nullcontext():
            yield lambda done, what=what, share=None: bars.update(task, completed=done, description=what, share=share)
    except BaseException:
        bars.remove_task(task)  # leave room for the error message
        bars.live.transient = True
        bars.live.stop()  # not `bars.stop`, which would print an empty line
        raise
    bars.stop()


class StagedBar:
    """A progress bar that opens at its first call, which states the total; before that, it shows the text `before`.

    A job may have several stages: a call with another total, or with less done than before, opens a new bar.
    """

    def __init__(self, stack: ExitStack, what: str, unit: str, before: str, quiet: bool) -> None:
        self._what, self._unit, self._quiet = what, unit, quiet
        self._stage: tuple[int, int] | None = None  # parts done, and in all
        self._show: Callable[..., None] = lambda done, what, share: None
        self._shown = stack.enter_context(ExitStack())
        if not quiet:
            self._shown.enter_context(ERR.status(before))

    def __call__(self, done: int, total: int, what: str = "", share: float | None = None) -> None:
        """Show that `done` of `total` parts are done; `what` renames the bar, `share` is as in `progress`."""
        if self._stage is None or total != self._stage[1] or done < self._stage[0]:
            self._shown.close()
            bar = progress(self._what, total, unit=self._unit, start=done, quiet=self._quiet or not total)
            self._show = self._shown.enter_context(bar)
        self._stage = done, total
        self._show(done, what or self._what, share)
