"""Make experiments of the parts of a grid, each with a page of its own, which takes a core less than two hours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from underfire.audit.ledger import Ledger
from underfire.reproductions.registry import Experiment, Outcome, Setting
from underfire.reproductions.transfer.grid import Grid
from underfire.reproductions.transfer.page import outcome

Page = Callable[[Grid, Setting, Ledger, str], Outcome]


def part(
    grid: Grid,
    what: str,
    *,
    source: str,
    sources: Sequence[str] = (),
    attacks: Sequence[str] = (),
    prepare: Callable[[Grid, Setting], Grid] = Grid.at,
    page: Page | None = None,
) -> Experiment:
    """Return the experiment of a part of a grid; the experiment of the whole finds its results in the work folder.

    Args:
        grid: the whole.
        what: the part in words, the title of its page.
        source: the paper whose numbers the page of the whole compares.
        sources: labels of the sources; none takes all.
        attacks: labels of the attacks; none takes all.
        prepare: returns the grid of a run.
        page: makes the page from the grid, the setting, the ledger and a note; None makes the usual table.
    """
    note = f"A part of `{grid.name}`, whose page has all of the table and what must hold."

    def run(setting: Setting) -> Outcome:
        own = prepare(grid.only(sources=sources, attacks=attacks), setting)
        ledger = own.run(setting)
        if page is not None:
            return page(own, setting, ledger, note)
        return outcome(own, setting, ledger, [], title=what, source=source, notes=[note])

    return Experiment(f"{what} (a part of {grid.name}).", run)
