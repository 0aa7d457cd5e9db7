"""Print the tables of `underfire detect evaluate`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from underfire.cli.shared import OUT

if TYPE_CHECKING:
    from underfire.records import Interval


def print_figures(name: str, result: Mapping[str, Any]) -> None:
    """Print the figures of one detector as a table."""
    stated, measured = result["expected_false_positive_rate"], result["false_positive_rate"]
    OUT.print(f"{name}: expected false-positive rate {stated}, measured {measured}")
    known = any(found["evades_aware"] for found in result["attacks"].values())
    evading = {"evades, aware": "evades_aware", "evades": "evades"} if known else {"evades": "evades"}
    head = ("attack", "n", *evading, "AUROC", "of all", "detected", "at 1/5/10 %")
    table = Table(*head, box=None, header_style="dim", pad_edge=False)
    for label, found in result["attacks"].items():
        shares = ["–" if i is None else f"{i.value:.2f}" for i in found["tpr_at"].values()]
        names = (*evading.values(), "auroc", "auroc_of_all", "detected")
        figures = [*(_cell(found[name]) for name in names), " / ".join(shares)]
        worst = result["worst"] and label == result["worst"]["attack"]
        table.add_row(f"{label} (worst)" if worst else label, str(found["successful"]), *figures)
    OUT.print(table)
    if result["worst"]:
        OUT.print(f"worst attack: AUROC {result['worst']['auroc']}; mean over the attacks: {result['mean_auroc']}\n")


def print_differences(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the differences of the best detector as a table."""
    if not rows:
        return
    others = list(dict.fromkeys(row["other"] for row in rows))
    OUT.print(f"AUROC of {rows[0]['detector']} minus that of another detector on the same images (paired intervals)")
    table = Table("attack", *others, box=None, header_style="dim", pad_edge=False)
    for label in dict.fromkeys(row["attack"] for row in rows):
        found = {row["other"]: row["difference"] for row in rows if row["attack"] == label}
        table.add_row(label, *(f"{i.value:+.3f}\n{i.low:+.2f} to {i.high:+.2f}" for i in map(found.get, others) if i))
    OUT.print(table)


def _cell(i: Interval | None) -> str:
    return "–" if i is None or math.isnan(i.value) else f"{i.value:.3f}\n{i.low:.2f}–{i.high:.2f}"
