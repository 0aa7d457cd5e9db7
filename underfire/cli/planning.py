"""`underfire audit --dry-run`: print the plan of an audit and an estimate of its cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from underfire.cli.progress import clock
from underfire.cli.shared import ERR, OUT, print_json

if TYPE_CHECKING:
    from underfire.audit.costs import Cost
    from underfire.audit.spec import AuditSpec


def show_plan(spec: AuditSpec, out: str, as_json: bool) -> None:
    """Print the cells that an audit has to compute, with their passes through the model and their time.

    Cells that the run folder `out` has already are counted, but not listed.
    """
    from underfire.audit.preparing import prepare
    from underfire.audit.shards import fitting
    from underfire.audit.store import Store

    store = Store(out)
    prepared = prepare(spec, store)
    left = prepared.left(store.keys())
    found = prepared.estimates.costs(left.values())
    finished, seconds = len({cell.key for cell in prepared.cells}) - len(left), sum(cost.seconds for cost in found)
    chosen = prepared.spec.shard_size or 1
    advised = fitting(chosen, len(prepared.target.data), [cost for cost in found if cost.kind != "probe"])
    if as_json:
        document = {"cells": len(left), "finished": finished, "seconds": seconds, "shard_size": advised}
        print_json({**document, "costs": found})
        return
    OUT.print(_table(found))
    OUT.print(
        f"\n{len(left)} cells, {sum(cost.images * cost.passes for cost in found):.3g} passes of an image, "
        f"about {clock(seconds)} in one process here"
    )
    if finished:
        OUT.print(f"{finished} cells are finished already in {out}", soft_wrap=True)
    if advised < chosen:
        longest = max(cost.longest for cost in found if cost.kind != "probe")
        ERR.print(
            f"the longest cell takes about {clock(longest)}, which a killed run may lose; with shard_size: {advised}, "
            "a cell takes a minute"
        )
    elif spec.shard_size is None:
        ERR.print(f"a cell has {chosen} images")


def _table(found: list[Cost]) -> Table:
    """Return the table of the costs, with one row for all cells that do not use the model."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("cells", justify="right")
    table.add_column("of", overflow="fold")
    for column in ("images", "passes", "seconds"):
        table.add_column(column, justify="right")
    for cost in found:
        if cost.images:
            table.add_row(str(cost.cells), cost.title, f"{cost.images}", f"{cost.passes:.3g}", f"{cost.seconds:.2g}")
    rest = sum(cost.cells for cost in found if not cost.images)
    if rest:
        table.add_row(str(rest), "cells that only read these results")
    return table
