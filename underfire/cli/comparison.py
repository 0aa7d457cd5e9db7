"""`underfire compare`: print the figures that changed between two runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from underfire.cli.codes import HELD, NOT_BELIEVED
from underfire.cli.shared import ERR, OUT, print_json, to_plain

if TYPE_CHECKING:
    from underfire.records import Interval


def compare(before: str, after: str, every: bool, as_json: bool) -> int:
    """Print the figures of two run folders that changed significantly, or all figures with `every`.

    Returns:
        The exit code: `NOT_BELIEVED` if one of the runs is not finished or cannot be believed.
    """
    from underfire.audit.comparing import SIGNIFICANCE
    from underfire.audit.comparing import compare as go
    from underfire.audit.gates import sound
    from underfire.audit.ledger import Ledger
    from underfire.audit.summary import findings

    ledgers = Ledger(before), Ledger(after)
    changes, code = go(*ledgers), HELD
    for name, ledger in zip((before, after), ledgers, strict=True):
        standing = findings(ledger).standing
        for reason in filter(None, (standing.headline, *standing.reasons)):
            (ERR if as_json else OUT).print(f"{name}: {reason}", soft_wrap=True)
        code = code if sound(standing) else NOT_BELIEVED
    if as_json:
        print_json([{**to_plain(change), "significant": change.significant} for change in changes])
        return code
    shown = [change for change in changes if every or change.significant]
    if shown:
        table = Table(box=None, header_style="dim", pad_edge=False)
        table.add_column("figure", overflow="fold")
        for column in ("before", "after", "difference, 95 %"):
            table.add_column(column, no_wrap=True)
        table.add_column("p", justify="right", no_wrap=True)
        for change in shown:
            values = [_number(change.before), _number(change.after), _range(change.difference)]
            table.add_row(change.figure, *values, "" if change.p is None else f"{change.p:.2g}")
        OUT.print(table)
        OUT.print()
    changed = sum(change.significant for change in changes)
    test = f"exact sign test over the images, p < {SIGNIFICANCE}; a gap by the interval of its difference"
    if all(change.p is None for change in changes):
        test = "the two runs have different images; their intervals were compared"
    OUT.print(f"{changed} of {len(changes)} figures changed ({test})", soft_wrap=True)
    return code


def _number(value: Interval | None) -> str:
    return "–" if value is None else f"{value.value:.3g}"


def _range(value: Interval | None) -> str:
    return "" if value is None else f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"
