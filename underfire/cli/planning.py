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
    """Print the cells that an audit still has to compute, with their passes through the model and their time.

    Cells that are finished in the run folder `out` are counted, but not listed.
    """
    from underfire.audit.preparing import prepare
    from underfire.audit.shards import fitting
    from underfire.audit.store import Store

    store = Store(out)
    prepared = prepare(spec, store)
    remaining = prepared.left(store.keys())
    costs = prepared.estimates.costs(remaining.values())
    finished = len({cell.key for cell in prepared.cells}) - len(remaining)
    seconds = sum(cost.seconds for cost in costs)
    chosen = prepared.spec.shard_size or 1
    advised = fitting(chosen, len(prepared.target.data), [cost for cost in costs if cost.kind != "probe"])
    if as_json:
        document = {"cells": len(remaining), "finished": finished, "seconds": seconds, "shard_size": advised}
        print_json({**document, "costs": costs})
        return
    # the table and the totals
    OUT.print(_table(costs))
    OUT.print(
        f"\n{len(remaining)} cells, {sum(cost.images * cost.passes for cost in costs):.3g} passes of an image, "
        f"about {clock(seconds)} in one process here"
    )
    if finished:
        OUT.print(f"{finished} cells are finished already in {out}", soft_wrap=True)
    # advice about the size of the cells
    if advised < chosen:
        longest = max(cost.longest for cost in costs if cost.kind != "probe")
        ERR.print(
            f"the longest cell takes about {clock(longest)}, which a killed run may lose; with shard_size: {advised}, "
            "a cell takes a minute"
        )
    elif spec.shard_size is None:
        ERR.print(f"a cell has {chosen} images")


def _table(costs: list[Cost]) -> Table:
    """Return the table of the costs, with one row for all cells that do not use the model."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("cells", justify="right")
    table.add_column("of", overflow="fold")
    for column in ("images", "passes", "seconds"):
        table.add_column(column, justify="right")
    for cost in costs:
        if cost.images:
            table.add_row(str(cost.cells), cost.title, f"{cost.images}", f"{cost.passes:.3g}", f"{cost.seconds:.2g}")
    rest = sum(cost.cells for cost in costs if not cost.images)
    if rest:
        table.add_row(str(rest), "cells that only read these results")
    return table
